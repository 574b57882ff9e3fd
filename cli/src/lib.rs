//! `muster`: the command line of a fleet. Each command is one file in `commands/`.
//!
//! A library only so that what reads files and answers can be tested from outside; nobody else should use it.

#[doc(hidden)]
pub mod args;
#[doc(hidden)]
pub mod commands;

#[doc(hidden)]
pub mod bundle;
#[doc(hidden)]
pub mod golden;
#[doc(hidden)]
pub mod install;
#[doc(hidden)]
pub mod keys;
#[doc(hidden)]
pub mod onnx;
#[doc(hidden)]
pub mod release;

#[doc(hidden)]
pub mod client;
#[doc(hidden)]
pub mod context;
#[doc(hidden)]
pub mod resources;
#[doc(hidden)]
pub mod trust;
#[doc(hidden)]
pub mod url;
#[doc(hidden)]
pub mod yaml;

#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod files;
#[doc(hidden)]
pub mod output;
#[doc(hidden)]
pub mod tell;
#[doc(hidden)]
pub mod wait;
