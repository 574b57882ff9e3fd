//! Shows every parser of bytes from outside a great many inputs that are nearly good, and holds each to
//! three promises: it returns (no panic, no endless loop), it takes memory in proportion to what it was
//! given, and enough of what it was shown got past its first step for the first two to mean something.
//!
//! Each crate that reads from outside has a test binary `fuzz`; `cargo xtask test` runs them for about a
//! minute in all, `cargo xtask test --long` with at least [`LONG_INPUTS`] for each parser. Fewer get what is
//! behind a socket, writes a file or a database for each input, or opens a key that says how long that takes:
//! each of them calls [`Parser::long_inputs`], and what parses behind it gets its million from memory.
//!
//! The seed is drawn anew for each run, and printed: `MUSTER_FUZZ_SEED=N` repeats a run,
//! `MUSTER_FUZZ_TRACE=1` prints each input before it is read, for what no program survives to tell about
//! (a stack that overflows).
//!
//! # Who reads what, and where it is fuzzed
//!
//! | bytes | from | test |
//! |---|---|---|
//! | wire messages of every version, MQTT topics | a broker's owner, devices, a stolen plane | `shared/tests/fuzz.rs` |
//! | envelopes, roots, manifests, floors, releases, chunk indexes | the plane, publishers, disks | `shared/tests/fuzz.rs` |
//! | golden vectors, claim tokens, quantities, ids | publishers, people | `shared/tests/fuzz.rs` |
//! | paths of the doors | whoever reaches a door | `shared/tests/fuzz.rs` |
//! | bodies at the doors: TF Serving, Open Inference, binary tensors, examples | whoever reaches a door | `agent/tests/fuzz/main.rs` |
//! | raw gRPC messages | whoever reaches the door | `agent/tests/fuzz/main.rs` |
//! | frames of the worker's pipes, both directions; shapes of its model | a model's process | `agent/tests/fuzz/main.rs` |
//! | `agent.toml`, `enrolment.json`, keys, certificates, answers to an enrolment | the device's owner, a bad disk, the plane | `agent/tests/fuzz/main.rs` |
//! | MQTT packets at the client | a broker | `agent/tests/fuzz/main.rs` |
//! | desired states, commands, times, roots, floors, manifests behind a good signature | a stolen key | `agent/tests/fuzz/trust.rs` |
//! | the journal's records, `watermark.json`, `clock.json`, the counter's answer | a bad disk, the owner's program | `agent/tests/fuzz/trust.rs` |
//! | control groups, `/proc/…/status`, names of folders of models | the kernel, the owner | `agent/tests/fuzz/trust.rs` |
//! | processors, mounts, memory, throttling, wear, graphics as `/proc` and `/sys` have them | the kernel | `agent/tests/fuzz/machine.rs` |
//! | routes, `resolv.conf`, answers of resolvers and of whoever answers in the plane's place, as doctor reads them | the network | `agent/tests/fuzz/machine.rs` |
//! | JSON bodies, CSRs, certificates' names, cookies, requests, enrolments, renewals | whoever reaches the plane | `control-plane/tests/fuzz.rs` |
//! | what devices send, the configuration, the list of revoked keys, the ledger | devices, the operator, a bad disk | `control-plane/tests/fuzz.rs` |
//! | MQTT packets, from memory and at the embedded broker's listener | an enrolled device | `control-plane/tests/fuzz.rs` |
//! | block maps, tables of devices, enrolment files, images: their packing, tables and file systems; what the kernel tells of drives | people, downloads | `provisioning/tests/fuzz.rs` |
//! | bundles, ONNX, YAML, addresses, contexts, keys, PKCS#11 URIs, factory lists, the plane's answers and how they are told | files, a stolen plane | `cli/tests/fuzz.rs` |

mod change;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::change::{CHANGED_BYTES_MAX, Chance, change};
/// Counts what is allocated; each test binary that fuzzes makes it its allocator.
pub use peak_alloc::PeakAlloc;

/// What each parser is shown at least when `MUSTER_LONG` is set.
pub const LONG_INPUTS: usize = 1_000_000;
/// What each parser is shown where it does not say otherwise.
const INPUTS: usize = 50_000;
/// Memory that reading one input may take for each of its bytes: a tree of JSON values from the shortest
/// of texts.
const MEMORY_PER_BYTE: usize = 256;
/// Memory that reading one input may take besides: a decompressor's window, tables.
const MEMORY_BESIDES: usize = 256 * 1024;
/// The longest that one input may take, also on a machine that does much else.
const INPUT_TIME_MAX: Duration = Duration::from_secs(20);
/// Inputs that got past the first step and are changed further.
const KEPT_MAX: usize = 256;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The right to fuzz: one test of a process has it at a time, since what another thread allocates would
/// count. Each test takes it before anything else.
#[derive(Debug)]
pub struct Alone(#[allow(dead_code)] MutexGuard<'static, ()>);

/// Waits until no other test of this process fuzzes.
pub fn alone() -> Alone {
    Alone(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A parser to be fuzzed, with what it is shown.
#[derive(Debug)]
pub struct Parser {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    inputs: usize,
    long_inputs: usize,
    memory_per_byte: usize,
    memory_besides: usize,
    past_permille_min: usize,
}

impl Alone {
    /// Begins with good samples: each must get past the first step itself.
    pub fn parser<S: Into<Vec<u8>>>(&self, name: &'static str, seeds: impl IntoIterator<Item = S>) -> Parser {
        let seeds: Vec<Vec<u8>> = seeds.into_iter().map(Into::into).collect();
        assert!(!seeds.is_empty(), "{name} needs a good sample");
        Parser {
            name,
            seeds,
            inputs: INPUTS,
            long_inputs: LONG_INPUTS,
            memory_per_byte: MEMORY_PER_BYTE,
            memory_besides: MEMORY_BESIDES,
            past_permille_min: 4,
        }
    }
}

impl Parser {
    /// Shows so many inputs in the short form: fewer for slow parsers.
    #[must_use]
    pub fn inputs(mut self, inputs: usize) -> Self {
        self.inputs = inputs;
        self
    }

    /// Shows so many inputs in the long form: fewer than [`LONG_INPUTS`] where a socket is between, and the
    /// parser behind it has a test of its own or is another project's.
    #[must_use]
    pub fn long_inputs(mut self, inputs: usize) -> Self {
        self.long_inputs = inputs;
        self
    }

    /// Allows so much memory for each byte of input, and so much besides.
    #[must_use]
    pub fn memory(mut self, per_byte: usize, besides: usize) -> Self {
        (self.memory_per_byte, self.memory_besides) = (per_byte, besides);
        self
    }

    /// Of a thousand inputs, so many must get past the first step.
    #[must_use]
    pub fn past_permille_min(mut self, permille: usize) -> Self {
        self.past_permille_min = permille;
        self
    }

    /// Reads them all. `read` tells whether an input got past the parser's first step.
    pub fn run(self, mut read: impl FnMut(&[u8]) -> bool) {
        assert_counted();
        let seed = seed();
        let name = self.name;
        let inputs = if long() { self.inputs.max(self.long_inputs) } else { self.inputs };
        let mut chance = Chance::new(seed ^ hash(name));
        let mut kept = self.seeds.clone();
        for good in &self.seeds {
            assert!(self.shown(good, seed, &mut read), "{name}: its own sample does not get in: {}", hex::encode(good));
        }
        let began = Instant::now();
        let mut past = 0;
        for _ in 0..inputs {
            let from = chance.below(kept.len());
            let input = change(&kept[from], &kept, &mut chance);
            // A sample that came back whole shows nothing new.
            if self.shown(&input, seed, &mut read) && !self.seeds.contains(&input) {
                past += 1;
                // What grows without end would slow everything down; the good samples stay.
                if input.len() <= 4 * self.seeds.iter().map(Vec::len).max().unwrap_or(0) + 64 {
                    if kept.len() < KEPT_MAX {
                        kept.push(input);
                    } else if self.seeds.len() < kept.len() {
                        let at = self.seeds.len() + chance.below(kept.len() - self.seeds.len());
                        kept[at] = input;
                    }
                }
            }
        }
        let permille = past * 1000 / inputs.max(1);
        println!("{name}: {inputs} inputs, {permille} ‰ past the first step, {:.1} s", began.elapsed().as_secs_f64());
        let min = self.past_permille_min;
        assert!(permille >= min, "{name}: of {inputs} inputs only {past} got past the first step, wanted {min} ‰");
    }

    /// Shows one input, and ends the test with it where a promise is broken.
    fn shown(&self, input: &[u8], seed: u64, read: &mut impl FnMut(&[u8]) -> bool) -> bool {
        let name = self.name;
        let again = || format!("MUSTER_FUZZ_SEED={seed} repeats it; the input: {}", hex::encode(input));
        if std::env::var_os("MUSTER_FUZZ_TRACE").is_some() {
            eprintln!("{name}: {}", hex::encode(input));
        }
        let began = Instant::now();
        PeakAlloc.reset_peak_usage();
        let before = PeakAlloc.current_usage();
        let past = catch_unwind(AssertUnwindSafe(|| read(input)));
        let took = PeakAlloc.peak_usage().saturating_sub(before);
        let Ok(past) = past else { panic!("{name} panicked. {}", again()) };
        let allowed = self.memory_besides + input.len() * self.memory_per_byte;
        assert!(took <= allowed, "{name} took {took} bytes for {}, more than {allowed}. {}", input.len(), again());
        let time = began.elapsed();
        assert!(time <= INPUT_TIME_MAX, "{name} took {time:?} for {} bytes. {}", input.len(), again());
        past
    }
}

/// Whether the long form is asked for.
pub fn long() -> bool {
    std::env::var_os("MUSTER_LONG").is_some()
}

/// The seed that was asked for, or one from the clock; one for a whole process.
pub fn seed() -> u64 {
    static SEED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *SEED.get_or_init(|| {
        let asked = std::env::var("MUSTER_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
        let seed = asked.unwrap_or_else(clock);
        println!("MUSTER_FUZZ_SEED={seed}");
        seed
    })
}

/// Without its allocator a test would find every bound kept.
fn assert_counted() {
    PeakAlloc.reset_peak_usage();
    let before = PeakAlloc.current_usage();
    drop(std::hint::black_box(vec![1u8; 1 << 20]));
    let counted = PeakAlloc.peak_usage().saturating_sub(before);
    // A thread that ends meanwhile may free a little.
    assert!(counted >= 1 << 19, "the test binary must make `muster_fuzz::PeakAlloc` its global allocator");
}

/// FNV-1a: parsers of one run see different changes.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static COUNTED: PeakAlloc = PeakAlloc;

    fn fails(parser: Parser, read: impl FnMut(&[u8]) -> bool) -> String {
        let error = catch_unwind(AssertUnwindSafe(|| parser.run(read))).expect_err("it must fail");
        error.downcast_ref::<String>().cloned().unwrap_or_default()
    }

    #[test]
    fn a_parser_that_panics_is_told_with_the_input() {
        let alone = alone();
        let told = fails(alone.parser("panics", ["good"]), |bytes| bytes.len() < 30 || bytes[29] == bytes[1_000_000]);
        assert!(told.contains("panics panicked. MUSTER_FUZZ_SEED="), "{told}");
    }

    #[test]
    fn a_parser_that_takes_too_much_memory_is_told() {
        let alone = alone();
        let told = fails(alone.parser("greedy", ["good"]), |bytes| {
            std::hint::black_box(vec![1u8; if bytes == b"good" { 1 } else { 1 << 20 }]).len() < 9
        });
        assert!(told.contains("greedy took 1048576 bytes") || told.contains("greedy took"), "{told}");
    }

    #[test]
    fn a_fuzz_that_only_hits_the_first_if_is_no_test() {
        let alone = alone();
        let told = fails(alone.parser("shallow", ["good"]), |bytes| bytes == b"good");
        assert!(told.contains("got past the first step"), "{told}");
    }
}
