//! Who is believed: the plane's own keys and certificates ([`ca`], [`director`]), the root that the
//! operators sign ([`roles`]), whose keys must not be here ([`offline`]), what publishers never want to run
//! again ([`floors`]), what both mean for each bundle ([`standing`]), and how a device becomes one of the fleet ([`enrol`]).

pub mod ca;
pub mod director;
pub mod enrol;
pub mod floors;
pub mod offline;
pub mod roles;
pub mod standing;
