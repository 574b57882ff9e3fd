//! Puts the agent into a system that somebody has already: Raspberry Pi OS, Ubuntu, Debian, Armbian, a Jetson's.
//!
//! [`look`] reads what an image holds, [`plan`] decides how to get in and lists every change before any is made,
//! and [`apply`] makes them. There are two ways in:
//!
//! - **NoCloud**: where the boot partition is one that cloud-init reads, files on it do everything at first boot.
//! - **Inject**: else the files go into the ext4 root itself, with `debugfs`, as if a package had brought them.

pub mod apply;
pub mod ext4;
pub mod look;
mod nocloud;
pub mod plan;
pub mod source;

pub use plan::{Change, Plan, Way};

/// What an image says of itself, as a part of a line: it must not move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
