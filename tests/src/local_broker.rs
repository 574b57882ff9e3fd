//! A broker beside a device, as a plant or a home has one, and a client that speaks through it.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mqtt5::broker::config::{StorageBackend, StorageConfig};
use mqtt5::broker::{BrokerConfig, MqttBroker};
use rumqttc::{Event, MqttOptions, Packet, QoS};
use tokio::runtime::{Builder, Runtime};

/// The largest packet that the client takes.
const PACKET_BYTES_MAX: usize = 32 << 20;
/// Messages that wait to be sent.
const OUTGOING_MAX: usize = 64;

/// A running broker. Dropping it breaks every connection off; what it kept is lost.
pub struct LocalBroker {
    _runtime: Runtime,
    address: SocketAddr,
}

impl LocalBroker {
    /// Starts one that lets everybody in.
    pub fn start(address: SocketAddr) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let storage = StorageConfig::new().with_backend(StorageBackend::Memory);
        let config = BrokerConfig::new().with_bind_address(address).with_storage(storage);
        let mut broker = runtime.block_on(MqttBroker::with_config(config))?;
        let address = broker.local_addr().context("a broker that listens")?;
        runtime.spawn(async move { broker.run().await });
        Ok(Self { _runtime: runtime, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What a client heard.
pub type Heard = (String, Vec<u8>);

/// A client of its own.
pub struct Client {
    client: rumqttc::Client,
    heard: mpsc::Receiver<Heard>,
}

impl Client {
    /// Connects, and listens to everything below these topics.
    pub fn connect(broker: SocketAddr, filters: &[&str]) -> Result<Self> {
        let mut options = MqttOptions::new("a-sensor", broker.ip().to_string(), broker.port());
        options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        let (client, mut connection) = rumqttc::Client::new(options, OUTGOING_MAX);
        for filter in filters {
            client.subscribe(*filter, QoS::AtLeastOnce)?;
        }
        let (sender, heard) = mpsc::channel();
        let (ready, subscribed) = mpsc::channel();
        // It ends with the connection, or when nobody listens any more.
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        if sender.send((message.topic, message.payload.to_vec())).is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        for _ in filters {
            subscribed.recv_timeout(muster_world::DEADLINE).context("the broker takes no subscription")?;
        }
        Ok(Self { client, heard })
    }

    /// Sends a message that must arrive.
    pub fn publish(&self, topic: &str, payload: &[u8]) -> Result<()> {
        Ok(self.client.publish(topic, QoS::AtLeastOnce, false, payload)?)
    }

    /// Sends a message that the broker keeps for who comes later.
    pub fn publish_retained(&self, topic: &str, payload: &[u8]) -> Result<()> {
        Ok(self.client.publish(topic, QoS::AtLeastOnce, true, payload)?)
    }

    /// Sends a message that may be lost.
    pub fn publish_lossy(&self, topic: &str, payload: &[u8]) -> Result<()> {
        Ok(self.client.publish(topic, QoS::AtMostOnce, false, payload)?)
    }

    /// The next message; nothing if none came in time.
    pub fn next(&self, within: Duration) -> Option<Heard> {
        self.heard.recv_timeout(within).ok()
    }
}
