//! Who is believed: the plane's own keys and certificates ([`ca`]), the root that the operators sign
//! ([`roles`]), and how a device becomes one of the fleet ([`enrol`]).

pub mod ca;
pub mod enrol;
pub mod roles;
