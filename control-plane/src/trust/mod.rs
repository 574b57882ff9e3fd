//! Who is believed: the plane's own keys and certificates ([`ca`], [`director`]), the root that the
//! operators sign ([`roles`]), whose keys must not be here ([`offline`]), what publishers never want to run
//! again ([`floors`]), what both mean for each bundle ([`barred`]); how a device becomes one of the fleet
//! ([`enrol`], [`refusals`]), and how it is held or ceases to be one ([`members`], [`revocations`],
//! [`ledger`]).

pub mod barred;
pub mod ca;
pub mod director;
pub mod enrol;
pub mod floors;
pub mod ledger;
pub mod members;
pub mod offline;
pub mod refusals;
pub mod revocations;
pub mod roles;
