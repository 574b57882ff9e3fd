//! One question to one resolver, to tell which of them is dead: the system's own lookup says only that there is
//! no answer. What is answered is not believed; it only tells whether somebody answers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

/// How long a resolver may take.
const ANSWER_TIME: Duration = Duration::from_secs(3);
/// An answer over UDP without extensions.
const ANSWER_BYTES_MAX: usize = 512;
const PORT: u16 = 53;

/// What came of asking a resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It answers with so many records.
    Records(u16),
    /// It answers that there is no such name.
    NoSuchName,
    /// It answers that it cannot.
    Cannot(u8),
    /// Nobody listens there, or there is no way to it.
    Closed(String),
    /// Nothing.
    Nothing,
}

impl Said {
    /// As a person reads it.
    pub fn words(&self) -> String {
        match self {
            Self::Records(0) => "answers that the name has no address".to_owned(),
            Self::Records(_) => "answers".to_owned(),
            Self::NoSuchName => "answers that there is no such name".to_owned(),
            Self::Cannot(2) => "answers that it cannot find out (SERVFAIL)".to_owned(),
            Self::Cannot(5) => "refuses to answer (REFUSED)".to_owned(),
            Self::Cannot(code) => format!("answers with error {code}"),
            Self::Closed(why) => format!("cannot be asked: {why}"),
            Self::Nothing => format!("does not answer within {ANSWER_TIME:?}"),
        }
    }

    /// Whether it does what a resolver is for.
    pub fn works(&self) -> bool {
        matches!(self, Self::Records(_) | Self::NoSuchName)
    }
}

/// Asks a resolver for the IPv4 address of a name. `id` is drawn by whoever asks.
pub async fn ask(resolver: IpAddr, name: &str, id: u16) -> Said {
    let Some(question) = question(id, name) else { return Said::NoSuchName };
    let asked = async {
        let any: SocketAddr = if resolver.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        socket.connect((resolver, PORT)).await?;
        socket.send(&question).await?;
        let mut bytes = [0; ANSWER_BYTES_MAX];
        loop {
            let length = socket.recv(&mut bytes).await?;
            if let Some(said) = answer(id, &bytes[..length]) {
                return io::Result::Ok(said);
            }
        }
    };
    match timeout(ANSWER_TIME, asked).await {
        Ok(Ok(said)) => said,
        Ok(Err(error)) => Said::Closed(error.to_string()),
        Err(_) => Said::Nothing,
    }
}

/// A question for the IPv4 address of a name; none where it can be nobody's name.
pub fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let name = name.trim_end_matches('.');
    let mut bytes = vec![];
    bytes.extend(id.to_be_bytes());
    // It may ask others for us; one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    // The end of the name; type A; class IN.
    bytes.extend([0, 0, 1, 0, 1]);
    (name.len() <= 253).then_some(bytes)
}

/// What an answer says; none: it is no answer to this question.
pub fn answer(id: u16, bytes: &[u8]) -> Option<Said> {
    let head: &[u8; 12] = bytes.first_chunk()?;
    let is_answer = head[2] & 0x80 != 0;
    if [head[0], head[1]] != id.to_be_bytes() || !is_answer {
        return None;
    }
    Some(match head[3] & 0x0f {
        0 => Said::Records(u16::from_be_bytes([head[6], head[7]])),
        3 => Said::NoSuchName,
        code => Said::Cannot(code),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_spelled_and_answers_are_told_apart() {
        let asked = question(0x1234, "plane.example.org.").expect("a name");
        assert_eq!(asked[..2], [0x12, 0x34]);
        assert!(asked[12..].starts_with(b"\x05plane\x07example\x03org\x00"));
        for bad in ["", "a..b", &"x".repeat(64), &"x.".repeat(200)] {
            assert_eq!(question(1, bad), None, "{bad:?}");
        }
        let head = |flags: [u8; 2], records: u8| [0x12, 0x34, flags[0], flags[1], 0, 1, 0, records, 0, 0, 0, 0];
        for (bytes, expected) in [
            (&head([0x81, 0x80], 2)[..], Some(Said::Records(2))),
            (&head([0x81, 0x83], 0), Some(Said::NoSuchName)),
            (&head([0x81, 0x82], 0), Some(Said::Cannot(2))),
            // Our own question, another's answer, half a head.
            (&head([0x01, 0x00], 0), None),
            (&[0, 0, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0], None),
            (&[0x12, 0x34, 0x81], None),
        ] {
            assert_eq!(answer(0x1234, bytes), expected, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn nobody_at_an_address_is_no_answer() {
        // Nobody listens at port 53 of this address.
        let said = ask("127.53.53.53".parse().expect("an address"), "plane.example.org", 7).await;
        assert!(matches!(said, Said::Closed(_) | Said::Nothing), "{said:?}");
    }
}
