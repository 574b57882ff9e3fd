//! The broker with real clients: rumqttc over mutual TLS, as the agent does it.

mod delivery;
mod sessions;
mod support;

use crate::broker::embedded;
