//! A device's certificate and key in other hands: an MQTT client that says what no agent would.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use muster_shared::topic::Topic;
use muster_tls::ClientIdentity;
use muster_world::World;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS, SubscribeReasonCode, TlsConfiguration, Transport};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How long an answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
const WAITING_MAX: usize = 64;

/// The client.
pub struct Impostor {
    client: Client,
    heard: Receiver<Result<Packet, String>>,
}

impl Impostor {
    /// Connects to a world's broker as one of its devices, whose agent should not run.
    pub fn connect(world: &World, device: &str) -> anyhow::Result<Self> {
        Self::with(&world.device_folder(device), device, &world.plane().mqtt, world.plane().ca_fingerprint.parse()?)
    }

    /// The same with the files of a device's folder, under any name.
    pub fn with(folder: &Path, name: &str, broker: &str, ca: muster_shared::Digest) -> anyhow::Result<Self> {
        let tls = Self::tls(folder, ca)?;
        let (host, port) = broker.rsplit_once(':').context("the broker's address has no port")?;
        let mut options = MqttOptions::new(name, host, port.parse()?);
        options.set_max_packet_size(1 << 20, 1 << 20);
        options.set_transport(Transport::Tls(TlsConfiguration::Rustls(std::sync::Arc::new(tls))));
        Self::start(options)
    }

    /// Connects to a world's broker through the tunnel on its listener for devices.
    pub fn through_tunnel(world: &World, device: &str) -> anyhow::Result<Self> {
        let tls = Self::tls(&world.device_folder(device), world.plane().ca_fingerprint.parse()?)?;
        let near = crate::network::tunnel(world, tls)?;
        Self::start(MqttOptions::new(device, near.ip().to_string(), near.port()))
    }

    fn tls(folder: &Path, ca: muster_shared::Digest) -> anyhow::Result<rustls::ClientConfig> {
        let identity = folder.join("identity");
        let chain = vec![CertificateDer::from_pem_file(identity.join("certificate.pem"))?];
        let key = PrivateKeyDer::from_pem_file(identity.join("key.pem"))?;
        Ok(muster_tls::client(ca, Some(ClientIdentity { chain, key }))?)
    }

    fn start(options: MqttOptions) -> anyhow::Result<Self> {
        let (client, mut connection) = Client::new(options, WAITING_MAX);
        let (sender, heard) = channel();
        std::thread::spawn(move || {
            for event in connection.iter() {
                let (heard, last) = match event {
                    Ok(Event::Incoming(packet)) => (Ok(packet), false),
                    Ok(Event::Outgoing(_)) => continue,
                    Err(error) => (Err(error.to_string()), true),
                };
                // One connection only: what was cut off stays away.
                if sender.send(heard).is_err() || last {
                    return;
                }
            }
        });
        let mut impostor = Self { client, heard };
        impostor.until("the broker to let it in", |packet| matches!(packet, Packet::ConnAck(_)).then_some(()))?;
        Ok(impostor)
    }

    /// Whether the broker lets it read a topic.
    pub fn subscribe(&mut self, topic: &str) -> anyhow::Result<bool> {
        self.client.subscribe(topic, QoS::AtLeastOnce)?;
        self.until("an answer to the subscription", |packet| match packet {
            Packet::SubAck(ack) => Some(!ack.return_codes.contains(&SubscribeReasonCode::Failure)),
            _ => None,
        })
    }

    /// Says something.
    pub fn publish(&self, topic: &str, payload: Vec<u8>) -> anyhow::Result<()> {
        Ok(self.client.publish(topic, QoS::AtLeastOnce, false, payload)?)
    }

    /// The next message on a topic.
    pub fn hear(&mut self, topic: &Topic) -> anyhow::Result<Vec<u8>> {
        let topic = topic.to_string();
        self.until(&format!("a message on {topic}"), |packet| match packet {
            Packet::Publish(publish) if publish.topic == topic => Some(publish.payload.to_vec()),
            _ => None,
        })
    }

    /// Waits until the broker has cut it off, and says after how long.
    pub fn until_cut(&mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < ANSWER_DEADLINE {
            match self.heard.recv_timeout(ANSWER_DEADLINE) {
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return Ok(began.elapsed()),
            }
        }
        bail!("it was not cut off within {ANSWER_DEADLINE:?}")
    }

    fn until<T>(&mut self, what: &str, look: impl Fn(&Packet) -> Option<T>) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            let left = ANSWER_DEADLINE.saturating_sub(began.elapsed());
            match self.heard.recv_timeout(left) {
                Ok(Ok(packet)) => {
                    if let Some(found) = look(&packet) {
                        return Ok(found);
                    }
                }
                Ok(Err(error)) => bail!("waited for {what}: the connection is gone: {error}"),
                Err(_) => bail!("waited {ANSWER_DEADLINE:?} for {what}"),
            }
        }
    }
}
