//! Where models go, and why: pure policy, no socket, file, clock or random number.
//!
//! Read in this order: what the planner knows ([`fleet`]); why a device is chosen or not
//! ([`explain`]); which device takes one replica ([`place`]); the whole plan ([`plan`]).
//!
//! Invariant: equal inputs give equal plans. Everything is iterated in the order of its name.

pub mod fleet;

pub mod explain;

pub mod place;

pub mod plan;
