//! Labels to stick on devices: a code that leads a phone's camera to the device's page, and its name for people.
//!
//! A label holds no secret: whoever photographs it learns an address. [`layout`] decides where everything stands,
//! in millimetres; [`svg`] and [`pdf`] only write that down, so both look the same. Same labels, same bytes.

pub mod layout;
pub mod pdf;
pub mod sheet;
pub mod svg;

use muster_shared::DeviceId;
use muster_shared::id::Labels;

pub use layout::{LayoutError, Mark};
pub use sheet::Sheet;

/// What stands on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The device.
    pub name: DeviceId,
    /// What the code says: the address of the device's page.
    pub url: String,
    /// Smaller lines below the name.
    pub lines: Vec<String>,
}

impl Label {
    /// The label of a device of the fleet whose control plane has this address.
    pub fn of(name: DeviceId, plane: &str, labels: &Labels) -> Self {
        let url = format!("{}/d/{name}", plane.trim_end_matches('/'));
        let lines = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        Self { name, url, lines }
    }
}
