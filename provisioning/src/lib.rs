//! How the agent comes onto machines: images, flashing, enrolment files, packages.

pub mod bulk;
pub mod enrolment;
pub mod flash;
pub mod kit;
pub mod labels;
