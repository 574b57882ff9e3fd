//! How the agent comes onto machines. So far: a [package](deb) for Debian and what is made of it.

pub mod deb;
