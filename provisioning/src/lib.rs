//! How the agent comes onto machines: its [package](deb), images of its own, systems that somebody has already, and
//! cards that are written, labels, and the file that lets a device in. Nothing here needs a loop device or a mount, and
//! only writing to a drive needs root: a disk is a file that is written to.

pub mod deb;
pub mod disk;
pub mod enrolment;
pub mod image;
pub mod network;
pub mod patch;

pub mod bulk;
pub mod flash;
pub mod kit;
pub mod labels;
