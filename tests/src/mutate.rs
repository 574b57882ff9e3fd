//! Changes bytes by a seed: what attackers, bad disks and careless programs do to files and requests.

pub use muster_sim::rng::Rng;

/// Texts that readers of JSON, HTTP and protobuf treat apart.
const TOKENS: [&[u8]; 24] = [
    b"null",
    b"true",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-0",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b",",
    b":",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\x00",
    b"[[[[[[[[[[[[[[[[[[[[",
    b"99999999999999999999",
    b"-1",
    b"{\"b64\":\"x\"}",
    b"{\"b64\":\"AAAA\"}",
    b"\xf0\x9f\xa6\x80",
    b"1.5",
];

/// The bytes with one to four changes: a bit, a byte, a piece left out or doubled, cut off, a strange
/// word put in.
pub fn mutate(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..rng.range(1, 5) {
        change(&mut out, rng);
    }
    out
}

/// Operators of the same length, so that no length in a file changes with the name.
const OPERATORS: [&[&[u8]]; 3] = [
    &[b"Add", b"Sub", b"Mul", b"Div", b"Max", b"Min", b"Pow"],
    &[b"Relu", b"Tanh", b"Sqrt", b"Sign"],
    &[b"Softmax", b"Sigmoid"],
];

/// A model file with changes that leave most of it readable: bytes in place, operators of the same kind
/// for each other; or with changes of any kind.
pub fn mutate_model(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    match rng.range(0, 10) {
        0..=5 => {
            for _ in 0..rng.range(1, 4) {
                let at = rng.range(0, out.len() as u64) as usize;
                out[at] = rng.draw() as u8;
            }
        }
        6 | 7 => {
            let kinds = OPERATORS.iter().flat_map(|kind| kind.iter().map(move |name| (*kind, *name)));
            let found: Vec<(&[&[u8]], usize)> = kinds
                .flat_map(|(kind, name)| {
                    let starts = (0..out.len().saturating_sub(name.len())).filter(|at| out[*at..].starts_with(name));
                    starts.map(|at| (kind, at)).collect::<Vec<_>>()
                })
                .collect();
            if !found.is_empty() {
                let (kind, at) = *rng.pick(&found);
                let name: &&[u8] = rng.pick(kind);
                out[at..at + name.len()].copy_from_slice(name);
            }
        }
        _ => return mutate(bytes, rng),
    }
    out
}

fn change(out: &mut Vec<u8>, rng: &mut Rng) {
    if out.is_empty() {
        let token: &&[u8] = rng.pick(&TOKENS);
        return out.extend_from_slice(token);
    }
    let at = rng.range(0, out.len() as u64) as usize;
    let length = rng.range(1, 17).min((out.len() - at) as u64) as usize;
    match rng.range(0, 10) {
        0..=2 => out[at] ^= 1 << rng.range(0, 8),
        3 | 4 => out[at] = rng.draw() as u8,
        5 => drop(out.drain(at..at + length)),
        6 => {
            let piece = out[at..at + length].to_vec();
            out.splice(at..at, piece);
        }
        7 if rng.permille(300) => out.truncate(at),
        _ => {
            let token = *rng.pick(&TOKENS);
            let over = if rng.permille(500) { token.len().min(out.len() - at) } else { 0 };
            out.splice(at..at + over, token.iter().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_change_equally_and_nearly_every_change_changes_something() {
        let all = |seed| {
            let mut rng = Rng::new(seed);
            (0..1000).map(|_| mutate(b"{\"instances\": [[1, 2, 3]]}", &mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        let same = all(7).iter().filter(|bytes| *bytes == b"{\"instances\": [[1, 2, 3]]}").count();
        assert!(same < 20, "{same}");
    }
}
