//! Changes bytes by a seed: what attackers, bad disks and careless programs do to files and requests.

pub use muster_sim::rng::Rng;

/// The bytes with one to four changes, as the fuzzing of the parsers has them.
pub fn mutate(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    muster_fuzz::change(bytes, &[], &mut muster_fuzz::Chance::new(rng.draw()))
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
