//! Load on an HTTP server of this machine, from one thread that does as little as it can: the server
//! shall be what is measured. A crate of its own so that it is compiled for speed in every build.

mod answer;
mod connection;
mod cores;
mod run;

pub use answer::{Answer, Incoming};
pub use connection::ask;
pub use cores::{busy, on_core, ticks_to_time, two_cores};
pub use run::{Load, Measured, drive};
