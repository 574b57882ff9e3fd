//! Every MQTT topic, spelled once: `muster/v1/{device}/…`.

use std::fmt;
use std::str::FromStr;

use crate::id::{DeviceId, InstanceId};

/// A topic of protocol version 1.
///
/// ```
/// use muster_shared::topic::{Topic, Leaf};
/// let topic: Topic = "muster/v1/edge-1/desired".parse().unwrap();
/// assert_eq!(topic.leaf, Leaf::Desired);
/// assert_eq!(topic.to_string(), "muster/v1/edge-1/desired");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Topic {
    /// Whose topic it is.
    pub device: DeviceId,
    /// What travels there.
    pub leaf: Leaf,
}

/// What travels on a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Leaf {
    /// Up: what the device holds, with a fresh nonce; an unsigned hint.
    Hello,
    /// Down: root documents, one by one.
    Trust,
    /// Down: the whole signed desired state.
    Desired,
    /// Up: the whole signed reported state.
    Reported,
    /// Up: which frames are missing.
    ChunkGet,
    /// Down: frames.
    ChunkData,
    /// Up: signed telemetry batches.
    Telemetry,
    /// Down: which batches are durable.
    TelemetryAck,
    /// Up: things that happened; an unsigned hint.
    Event,
    /// Up, by the broker: the device's last will.
    Gone,
    /// Down: a request.
    Call,
    /// Up: an answer, to the instance that asked.
    Reply(InstanceId),
}

/// Which way a topic goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the device.
    Up,
    /// To the device.
    Down,
}

impl Leaf {
    /// Which way it goes: the whole access rule of the broker.
    pub fn way(&self) -> Way {
        match self {
            Self::Hello
            | Self::Reported
            | Self::ChunkGet
            | Self::Telemetry
            | Self::Event
            | Self::Gone
            | Self::Reply(_) => Way::Up,
            Self::Trust | Self::Desired | Self::ChunkData | Self::TelemetryAck | Self::Call => Way::Down,
        }
    }

    /// The topics a device reads.
    pub const DOWN: [Self; 5] = [Self::Trust, Self::Desired, Self::ChunkData, Self::TelemetryAck, Self::Call];

    /// This leaf of `device`.
    pub fn of(self, device: &DeviceId) -> Topic {
        Topic { device: device.clone(), leaf: self }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "muster/v1/{}/", self.device)?;
        match &self.leaf {
            Leaf::Hello => f.write_str("hello"),
            Leaf::Trust => f.write_str("trust"),
            Leaf::Desired => f.write_str("desired"),
            Leaf::Reported => f.write_str("reported"),
            Leaf::ChunkGet => f.write_str("chunk/get"),
            Leaf::ChunkData => f.write_str("chunk/data"),
            Leaf::Telemetry => f.write_str("telemetry"),
            Leaf::TelemetryAck => f.write_str("telemetry/ack"),
            Leaf::Event => f.write_str("event"),
            Leaf::Gone => f.write_str("gone"),
            Leaf::Call => f.write_str("call"),
            Leaf::Reply(instance) => write!(f, "reply/{instance}"),
        }
    }
}

/// A text that is no topic of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no topic of muster/v1")]
pub struct BadTopic;

impl FromStr for Topic {
    type Err = BadTopic;

    fn from_str(text: &str) -> Result<Self, BadTopic> {
        let (device, leaf) = text.strip_prefix("muster/v1/").and_then(|rest| rest.split_once('/')).ok_or(BadTopic)?;
        let leaf = match leaf {
            "hello" => Leaf::Hello,
            "trust" => Leaf::Trust,
            "desired" => Leaf::Desired,
            "reported" => Leaf::Reported,
            "chunk/get" => Leaf::ChunkGet,
            "chunk/data" => Leaf::ChunkData,
            "telemetry" => Leaf::Telemetry,
            "telemetry/ack" => Leaf::TelemetryAck,
            "event" => Leaf::Event,
            "gone" => Leaf::Gone,
            "call" => Leaf::Call,
            other => Leaf::Reply(other.strip_prefix("reply/").ok_or(BadTopic)?.parse().map_err(|_| BadTopic)?),
        };
        Ok(Self { device: device.parse().map_err(|_| BadTopic)?, leaf })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_reads_as_it_prints() {
        let device: DeviceId = "edge-1".parse().expect("an id");
        let reply = Leaf::Reply("cp-1".parse().expect("an id"));
        let up = [Leaf::Hello, Leaf::Reported, Leaf::ChunkGet, Leaf::Telemetry, Leaf::Event, Leaf::Gone, reply];
        for leaf in up.iter().chain(&Leaf::DOWN) {
            let topic = leaf.clone().of(&device);
            assert_eq!(topic.to_string().parse(), Ok(topic));
        }
        assert!(up.iter().all(|leaf| leaf.way() == Way::Up));
        assert!(Leaf::DOWN.iter().all(|leaf| leaf.way() == Way::Down));
    }

    #[test]
    fn wildcards_and_strangers_are_no_topics() {
        for text in [
            "",
            "muster/v1/+/hello",
            "muster/v1/#",
            "muster/v1/a/b/hello",
            "muster/v2/a/hello",
            "muster/v1/a/reply/",
            "muster/v1/a/reply/+",
            "muster/v1/a/chunk",
            "$SYS/broker",
            "muster/v1/A/hello",
            "muster/v1/a/hello/",
        ] {
            assert_eq!(text.parse::<Topic>(), Err(BadTopic), "{text}");
        }
    }
}
