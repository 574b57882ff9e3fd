//! Reads the heads of HTTP answers: what time it is there, and which page stands in the way. Pure.

use muster_shared::id::UnixMs;

use crate::facts::roots::clean;

/// Header lines that are looked at.
const LINES_MAX: usize = 100;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The time in the `Date` of an answer.
pub fn date_of(head: &[u8]) -> Option<UnixMs> {
    let head = String::from_utf8_lossy(head);
    date(header(&head, "date")?)
}

/// What a browser would be shown: the status, and where it is sent. None: it is no HTTP.
pub fn page_of(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let status = head.lines().next()?.strip_prefix("HTTP/1.")?.split_once(' ')?.1;
    let to = header(&head, "location").map_or_else(String::new, |to| format!(", which leads to {}", clean(to)));
    Some(format!("{}{to}", clean(status)))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = head.lines().skip(1).take(LINES_MAX).map_while(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the form that servers write.
fn date(text: &str) -> Option<UnixMs> {
    let mut words = text.split_once(", ")?.1.split(' ');
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    if words.next() != Some("GMT") {
        return None;
    }
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (day, year) = (number(day)?, number(year)?);
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let mut parts = time.split(':').map(number);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let is_one = (1..=31).contains(&day) && (1970..=9999).contains(&year) && hour < 24 && minute < 60 && second <= 60;
    if !is_one {
        return None;
    }
    Some((days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second) * 1000)
}

/// Days since 1970: years begin in March here, so that the leap day is their last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let of_years = year * 365 + year / 4 - year / 100 + year / 400;
    // Days from year 0's March to 1970.
    (of_years + (153 * month + 2) / 5 + day - 1).saturating_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_answer_is_read() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799)),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 06 Nov 99999 08:49:37 GMT", None),
            ("Sun, +6 Nov 1994 08:49:37 GMT", None),
            ("", None),
        ] {
            let head = format!("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nDate: {text}\r\n\r\n");
            assert_eq!(date_of(head.as_bytes()), seconds.map(|seconds: u64| seconds * 1000), "{text}");
        }
        assert_eq!(date_of(b"\xff\xfe"), None);
    }

    #[test]
    fn a_login_page_is_named() {
        let head = b"HTTP/1.1 302 Found\r\nlocation: http://login.example/\x1b[2J\r\n\r\n";
        assert_eq!(page_of(head).as_deref(), Some("302 Found, which leads to http://login.example/ [2J"));
        assert_eq!(page_of(b"HTTP/1.0 200 OK\r\n\r\n").as_deref(), Some("200 OK"));
        assert_eq!(page_of(b"\x15\x03\x01\x00\x02"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_head_is_read_or_passed_over(bytes: Vec<u8>, text: String) {
            let _ = (date_of(&bytes), page_of(&bytes), date(&text));
            let head = format!("HTTP/1.1 200 OK\r\ndate: {text}\r\n\r\n");
            let _ = date_of(head.as_bytes());
        }
    }
}
