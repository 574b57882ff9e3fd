//! Stories of `muster-agent serve`: many clients, versions that come and go, workers that die, files and
//! requests that are broken. With `MUSTER_LONG` set, as `cargo xtask test --long` sets it, whole.

mod faults;
mod grpc;
mod load;
mod mutants;
mod newcomers;
mod versions;
