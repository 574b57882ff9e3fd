//! Who is not, or not any more, one of the fleet.

use crate::Attack;

/// All of these.
pub const ATTACKS: &[Attack] = &[];
