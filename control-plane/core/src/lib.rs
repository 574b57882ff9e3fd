//! Where models go, and why: pure policy, no socket, file, clock or random number.
//!
//! Read in this order: what the planner knows ([`fleet`]); who is there ([`liveness`]), and who is there twice ([`clones`]); how a new
//! version goes through the fleet ([`rollout`]); why a device is chosen or not ([`explain`]); which
//! device takes one replica ([`place`]); what moves for a gain ([`rebalance`]); the whole plan
//! ([`plan`]); all of it in one look at the fleet ([`decide`]); and what a device is told ([`issue`]).
//!
//! Invariant: equal inputs give equal plans. Everything is iterated in the order of its name.

pub mod fleet;

pub mod clones;
pub mod liveness;
pub mod rollout;

pub mod explain;
pub mod place;
pub mod plan;
pub mod rebalance;

pub mod decide;
pub mod issue;

#[cfg(test)]
mod testing;
