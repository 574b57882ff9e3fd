//! Who is believed: the plane's own keys and certificates ([`ca`]), the root that the operators sign
//! ([`roles`]), how a device becomes one of the fleet ([`enrol`], [`refusals`]), and how it is held or
//! ceases to be one ([`members`], [`revocations`], [`ledger`]).

pub mod ca;
pub mod enrol;
pub mod ledger;
pub mod members;
pub mod refusals;
pub mod revocations;
pub mod roles;
