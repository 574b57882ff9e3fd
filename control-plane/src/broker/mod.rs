//! The MQTT broker: who may do what ([`Access`]) and what devices do ([`BrokerEvent`]).

pub mod embedded;

pub use embedded::{Access, BrokerError, BrokerEvent, Carried, CarryError, EmbeddedBroker, Proven, QoS};
