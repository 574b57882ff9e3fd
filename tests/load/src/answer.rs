//! An HTTP/1.1 answer as it arrives, read no further than to know where it ends.

use anyhow::{Context as _, bail};

/// Longest head that is taken.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Longest answer that is taken: none of a benchmark's is near it.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    head: String,
    /// The body, put together if it came in chunks.
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads a whole answer.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut incoming = Incoming::default();
        if !incoming.take(bytes)? {
            bail!("the answer is cut off");
        }
        incoming.answer()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.head.as_bytes(), name.as_bytes()).and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// What has arrived of one answer; used again for the next.
#[derive(Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    state: State,
    status: u16,
    head_end: usize,
}

#[derive(Default, Clone, Copy)]
enum State {
    #[default]
    Head,
    /// The body ends here.
    Body { end: usize },
    /// The next chunk's length stands here.
    Chunks { next: usize },
}

impl Incoming {
    /// Takes bytes; true once the answer is whole.
    pub fn take(&mut self, bytes: &[u8]) -> anyhow::Result<bool> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > ANSWER_BYTES_MAX {
            bail!("an answer of more than {ANSWER_BYTES_MAX} bytes");
        }
        loop {
            match self.state {
                State::Head => match find(&self.bytes, HEAD_END) {
                    Some(at) => self.read_head(at + HEAD_END.len())?,
                    None if self.bytes.len() > HEAD_BYTES_MAX => bail!("a head of more than {HEAD_BYTES_MAX} bytes"),
                    None => return Ok(false),
                },
                State::Body { end } => return Ok(self.bytes.len() >= end),
                State::Chunks { next } => match chunk(&self.bytes, next)? {
                    Some((start, end)) if start == end => return Ok(true),
                    Some((_, end)) => self.state = State::Chunks { next: end + 2 },
                    None => return Ok(false),
                },
            }
        }
    }

    /// The status, once the head is there.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Ready for the next answer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.state = State::Head;
    }

    fn read_head(&mut self, end: usize) -> anyhow::Result<()> {
        let head = &self.bytes[..end];
        let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)).context("no HTTP/1.1 answer")?;
        self.status = std::str::from_utf8(status)?.parse()?;
        self.head_end = end;
        self.state = match header(head, b"content-length") {
            Some(length) => State::Body { end: end + std::str::from_utf8(length)?.parse::<usize>()? },
            None if header(head, b"transfer-encoding").is_some() => State::Chunks { next: end },
            None => bail!("an answer that does not say how long it is"),
        };
        Ok(())
    }

    /// The answer, which must be whole.
    pub fn answer(&self) -> anyhow::Result<Answer> {
        let mut body = vec![];
        match self.state {
            State::Head => bail!("no whole answer"),
            State::Body { end } => {
                body.extend_from_slice(self.bytes.get(self.head_end..end).context("no whole answer")?)
            }
            State::Chunks { .. } => {
                let mut next = self.head_end;
                while let Some((start, end)) = chunk(&self.bytes, next)?.filter(|(start, end)| start < end) {
                    body.extend_from_slice(&self.bytes[start..end]);
                    next = end + 2;
                }
            }
        }
        let head = String::from_utf8_lossy(&self.bytes[..self.head_end]).into_owned();
        Ok(Answer { status: self.status, head, body })
    }
}

/// Where the chunk whose length stands at `at` begins and ends, if all of it and of the line end
/// after it is there. The last one is empty.
fn chunk(bytes: &[u8], at: usize) -> anyhow::Result<Option<(usize, usize)>> {
    let Some(line) = bytes.get(at..).and_then(|rest| find(rest, b"\r\n")) else { return Ok(None) };
    let digits = bytes[at..at + line].split(|byte| *byte == b';').next().unwrap_or_default();
    let length = usize::from_str_radix(std::str::from_utf8(digits)?.trim(), 16).context("no chunk")?;
    let start = at + line + 2;
    let end = start.saturating_add(length);
    Ok((bytes.len() >= end.saturating_add(2)).then_some((start, end)))
}

fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (found, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However an answer is cut, it is whole exactly at its last byte.
    fn check(text: &str, expect: (u16, &str)) {
        let bytes = text.as_bytes();
        for piece in [1, 7, bytes.len()] {
            let mut incoming = Incoming::default();
            // Twice: the second answer finds nothing left of the first.
            for _ in 0..2 {
                incoming.clear();
                let mut taken = 0;
                for part in bytes.chunks(piece) {
                    taken += part.len();
                    assert_eq!(incoming.take(part).expect("an answer"), taken == bytes.len(), "after {taken} bytes");
                }
                let answer = incoming.answer().expect("whole");
                assert_eq!((answer.status, answer.body.as_slice()), (expect.0, expect.1.as_bytes()));
            }
        }
    }

    #[test]
    fn an_answer_ends_where_its_length_says() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", (200, "hello"));
        check("HTTP/1.1 404 Not Found\r\nDate: now\r\nContent-Length:  0 \r\n\r\n", (404, ""));
    }

    #[test]
    fn chunks_are_put_together() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{head}5\r\nhello\r\n6;why=not\r\n world\r\n0\r\n\r\n"), (200, "hello world"));
    }

    #[test]
    fn headers_are_found_in_any_case() {
        let text = b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 146\r\nContent-Length: 0\r\n\r\n";
        let answer = Answer::parse(text).expect("whole");
        assert_eq!(answer.header("inference-header-content-length"), Some("146"));
        assert_eq!(answer.header("inference"), None);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for text in
            ["SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 20x OK\r\nContent-Length: 0\r\n\r\n"]
        {
            assert!(Incoming::default().take(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
