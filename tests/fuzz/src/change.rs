//! Changes bytes by a seed: what attackers, bad disks and careless programs do to files and messages.

/// A stream of numbers from a seed (SplitMix64). Equal seeds give equal streams, on every machine.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `high`; 0 where nothing is.
    pub fn below(&mut self, high: usize) -> usize {
        (self.draw() % (high.max(1) as u64)) as usize
    }
}

/// Texts that readers of JSON, YAML, TOML, HTTP, protobuf, DER and postcard treat apart.
const TOKENS: [&[u8]; 48] = [
    b"null",
    b"true",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"1e-999",
    b"-0",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b"'",
    b",",
    b":",
    b": ",
    b"\n",
    b"\n- ",
    b"\r\n\r\n",
    b"&a ",
    b"*a",
    b"!!binary ",
    b"<<: ",
    b"|\n  ",
    b"---\n",
    b"/",
    b"../",
    b"%2e%2e%2f",
    b"%00",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\x00",
    b"99999999999999999999",
    b"18446744073709551615",
    b"9223372036854775808",
    b"4294967295",
    b"-1",
    b"1.5",
    b"{\"b64\":\"x\"}",
    b"{\"b64\":\"AAAA\"}",
    b"\xf0\x9f\xa6\x80",
    // The longest variable-length integers of postcard and protobuf, and one that is too long.
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xff\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    // DER: a length of four bytes, a length without end.
    b"\x30\x84\xff\xff\xff\xff",
    b"\x30\x80",
    b"-----BEGIN CERTIFICATE-----\n",
];

/// What opens and closes a level in some format.
const NESTS: [(&[u8], &[u8]); 6] =
    [(b"[", b"]"), (b"{\"a\":", b"}"), (b"{a: ", b"}"), (b"- ", b""), (b"(", b")"), (b"\x0a\x7f", b"")];

/// Values that a length or a count may be swapped for.
const LENGTHS: [u64; 10] = [0, 1, 0x7f, 0x80, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, i64::MAX as u64, u64::MAX];

/// No change makes more than this of it.
pub const CHANGED_BYTES_MAX: usize = 256 * 1024;

/// `bytes` with one to four changes; `others` are further good samples, of which pieces may be spliced in.
pub fn change(bytes: &[u8], others: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=chance.below(4) {
        change_once(&mut out, others, chance);
    }
    out.truncate(CHANGED_BYTES_MAX);
    out
}

fn change_once(out: &mut Vec<u8>, others: &[Vec<u8>], chance: &mut Chance) {
    if out.is_empty() {
        return out.extend_from_slice(TOKENS[chance.below(TOKENS.len())]);
    }
    let at = chance.below(out.len());
    let length = (1 + chance.below(16)).min(out.len() - at);
    match chance.below(16) {
        0..=2 => out[at] ^= 1 << chance.below(8),
        3 | 4 => out[at] = chance.draw() as u8,
        5 => drop(out.drain(at..at + length)),
        6 => {
            let piece = out[at..at + length].to_vec();
            let times = if chance.below(8) == 0 { 1 + chance.below(64) } else { 1 };
            out.splice(at..at, piece.repeat(times));
        }
        7 if chance.below(3) == 0 => out.truncate(at),
        8 | 9 => splice(out, at, others, chance),
        10 => swap_length(out, at, chance),
        11 => step_length(out, at, chance),
        12 if chance.below(4) == 0 => nest(out, at, chance),
        13 => swap_pieces(out, at, length, chance),
        _ => {
            let token = TOKENS[chance.below(TOKENS.len())];
            let over = if chance.below(2) == 0 { token.len().min(out.len() - at) } else { 0 };
            out.splice(at..at + over, token.iter().copied());
        }
    }
}

/// A piece of another sample, or the rest of it.
fn splice(out: &mut Vec<u8>, at: usize, others: &[Vec<u8>], chance: &mut Chance) {
    let Some(other) = others.get(chance.below(others.len())).filter(|other| !other.is_empty()) else { return };
    let from = chance.below(other.len());
    if chance.below(2) == 0 {
        out.truncate(at);
        out.extend_from_slice(&other[from..]);
    } else {
        let until = (from + 1 + chance.below(64)).min(other.len());
        out.splice(at..at, other[from..until].iter().copied());
    }
}

/// A number of 1, 2, 4 or 8 bytes, of either order, becomes one that lengths break at.
fn swap_length(out: &mut [u8], at: usize, chance: &mut Chance) {
    let value = LENGTHS[chance.below(LENGTHS.len())];
    let bytes = 1 << chance.below(4);
    let Some(place) = out.get_mut(at..at + bytes) else { return };
    if chance.below(2) == 0 {
        place.copy_from_slice(&value.to_le_bytes()[..bytes]);
    } else {
        place.copy_from_slice(&value.to_be_bytes()[8 - bytes..]);
    }
}

/// A byte or a decimal digit one higher or lower: a length that is nearly right.
fn step_length(out: &mut [u8], at: usize, chance: &mut Chance) {
    out[at] = if chance.below(2) == 0 { out[at].wrapping_add(1) } else { out[at].wrapping_sub(1) };
}

/// Levels around the place, some times more than any reader should follow.
fn nest(out: &mut Vec<u8>, at: usize, chance: &mut Chance) {
    let (open, close) = NESTS[chance.below(NESTS.len())];
    let depth = [3, 20, 130, 2_000, 20_000][chance.below(5)];
    out.splice(at..at, open.repeat(depth));
    if chance.below(2) == 0 {
        let end = (at + open.len() * depth + 1).min(out.len());
        out.splice(end..end, close.repeat(depth));
    }
}

fn swap_pieces(out: &mut [u8], at: usize, length: usize, chance: &mut Chance) {
    let other = chance.below(out.len());
    for step in 0..length {
        if other + step < out.len() {
            out.swap(at + step, other + step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_change_equally_and_nearly_every_change_changes_something() {
        let sample = b"{\"instances\": [[1, 2, 3]]}".to_vec();
        let all = |seed| {
            let mut chance = Chance::new(seed);
            (0..1000).map(|_| change(&sample, std::slice::from_ref(&sample), &mut chance)).collect::<Vec<_>>()
        };
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        let same = all(7).iter().filter(|bytes| **bytes == sample).count();
        assert!(same < 100, "{same}");
        assert!(all(7).iter().any(|bytes| bytes.len() > 1000), "nothing was nested");
    }
}
