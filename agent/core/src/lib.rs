//! What an agent decides, without doing it. No runtime, socket, file, clock or random number: the
//! driver passes time and chance in and carries the actions out, and the simulator can do the same.
//!
//! The story, in order: a desired state is believed or not ([`verify`]); [`reconcile`] holds it
//! against the slots; a slot lives its life ([`slot`]); the bundle it needs is fetched ([`fetch`],
//! frame by frame in [`transfer`]); what fails is tried again later ([`backoff`]); what time it is, as far as a
//! device can know, says [`clock`]. Without a fleet,
//! [`repository`] says which versions of which models answer.

pub mod backoff;
pub mod clock;
pub mod fetch;
pub mod limits;
pub mod reconcile;
pub mod repository;
pub mod slot;
pub mod transfer;
pub mod verify;

#[cfg(test)]
mod testing;
