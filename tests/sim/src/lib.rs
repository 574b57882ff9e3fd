//! A whole fleet on virtual time: the real cores of the plane and of its agents, with a network that
//! loses, repeats and reorders, devices that fall and come back, a plane that restarts, operators who
//! want things; everything from one seed, without a clock and without a thread.
//!
//! Read in this order: all chance ([`rng`]); signed documents ([`catalog`]); one machine around the real
//! agent ([`device`]); the plane around the real planner ([`plane`]); what goes wrong ([`faults`]); what
//! must hold ([`check`]); the queue that drives it ([`world`]).
//!
//! The faults stop after a while, and then everything must converge: every device holds the newest
//! desired state, which is the plan; every deployment has its replicas, or says why not.

mod catalog;
mod check;
mod device;
mod faults;
mod plane;
pub mod rng;
mod trace;
mod world;

pub use world::Summary;

/// Devices of a fleet, where nothing else is asked for.
pub const DEVICES: usize = 200;

/// Runs one seed; an error says what did not converge, or which rule was broken.
pub fn run(seed: u64, devices: usize) -> Result<Summary, String> {
    world::World::new(seed, devices).run()
}
