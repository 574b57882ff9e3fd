//! How the agent comes onto machines: its [package](deb), images of its own, systems that somebody has already, and
//! the file that lets a device in. Nothing here needs root, a loop device or a mount: a disk is a file that is written to.

pub mod deb;
pub mod disk;
pub mod enrolment;
pub mod image;
pub mod network;
pub mod patch;
