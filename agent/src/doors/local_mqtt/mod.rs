//! The door for what already speaks MQTT on this device or its LAN: cameras, sensors, gateways. An
//! input topic asks a model; the answer is published on an output topic.
//!
//! [`settings`] is what the device's owner writes. Lossy like its protocol: while there is no
//! connection nothing is asked, and what comes faster than the models answer is dropped and counted.

pub mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use muster_agent_core::backoff::delay_ms;
use muster_shared::DeviceId;
use muster_shared::door::VersionChoice;
use muster_shared::manifest::Port;
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, Packet, Publish, QoS, SubscribeFilter, SubscribeReasonCode,
    TlsConfiguration, Transport,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::settings::{ERROR_SUFFIX, Payload, RawRoute, Settings, TOPIC_BYTES_MAX};
use super::Doors;
use super::http::Ask;
use crate::mqtt;
use crate::outside::jitter;
use crate::tensor::Tensor;

/// Predictions at work at a time; what comes beyond is dropped.
const AT_WORK_MAX: usize = 64;
/// The largest message either way.
const PACKET_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The largest answer: in its packet stand the topic and a few bytes beside it.
const ANSWER_BYTES_MAX: usize = PACKET_BYTES_MAX - TOPIC_BYTES_MAX - 64;
/// Answers that wait to be sent; more are dropped.
const OUTGOING_MAX: usize = 128;
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Asks and answers until `stop`; connects again whenever the broker is gone.
pub async fn serve(settings: Settings, doors: Arc<Doors>, stop: CancellationToken) {
    let door =
        Arc::new(Door { settings, doors, room: Arc::new(Semaphore::new(AT_WORK_MAX)), dropped: AtomicU64::new(0) });
    let mut attempt = 0;
    while !stop.is_cancelled() {
        let stood = tokio::select! {
            () = stop.cancelled() => return,
            stood = door.clone().one_connection() => stood,
        };
        attempt = if stood { 0 } else { attempt + 1 };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(delay_ms(attempt, jitter()))) => {}
        }
    }
}

struct Door {
    settings: Settings,
    doors: Arc<Doors>,
    room: Arc<Semaphore>,
    dropped: AtomicU64,
}

impl Door {
    /// Whether it ever stood.
    async fn one_connection(self: Arc<Self>) -> bool {
        let (client, mut events) = match self.client() {
            Ok(client) => client,
            Err(error) => {
                warn!(error = format!("{error:#}"), "cannot prepare the connection to the local broker");
                return false;
            }
        };
        let mut stood = false;
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    let filter = |route: &RawRoute| SubscribeFilter::new(route.input.clone(), QoS::AtLeastOnce);
                    if client.try_subscribe_many(self.settings.routes.iter().map(filter)).is_err() {
                        return stood;
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => {
                    let refused = |(route, code): (&RawRoute, &SubscribeReasonCode)| {
                        (*code == SubscribeReasonCode::Failure).then(|| route.input.clone())
                    };
                    for topic in self.settings.routes.iter().zip(&ack.return_codes).filter_map(refused) {
                        warn!(topic, "the local broker does not let this device read the topic");
                    }
                    let Settings { host, port, .. } = &self.settings;
                    info!(host, port, "connected to the local broker");
                    stood = true;
                }
                Ok(Event::Incoming(Packet::Publish(message))) => self.clone().hear(message, client.clone()),
                Ok(_) => {}
                Err(error) => {
                    warn!(%error, "the connection to the local broker is gone");
                    return stood;
                }
            }
        }
    }

    fn client(&self) -> anyhow::Result<(AsyncClient, EventLoop)> {
        let Settings { host, port, ca, login, .. } = &self.settings;
        let mut options = MqttOptions::new(client_id(&self.doors.device), host, *port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        if let Some((user, password)) = login {
            let password = password.as_ref().map(|file| {
                std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read local-mqtt.password-file {}", file.display()))
            });
            options.set_credentials(user, password.transpose()?.unwrap_or_default().trim_end());
        }
        if let Some(file) = ca {
            let pem = std::fs::read(file).with_context(|| format!("cannot read local-mqtt.ca {}", file.display()))?;
            let tls = muster_tls::client_of_pem(&pem).with_context(|| format!("local-mqtt.ca {}", file.display()))?;
            options.set_transport(Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls))));
        }
        Ok(mqtt::client(options, OUTGOING_MAX))
    }

    /// Asks beside whatever else is asked; the connection goes on meanwhile.
    fn hear(self: Arc<Self>, message: Publish, client: AsyncClient) {
        let Some(route) = self.settings.route(&message.topic).cloned() else { return };
        // What the broker kept was asked before, perhaps long ago.
        if message.retain {
            return;
        }
        let output = route.output_for(&message.topic);
        if output.len() + ERROR_SUFFIX.len() > TOPIC_BYTES_MAX {
            return self.drop_one("their answers' topics would be too long");
        }
        let Ok(place) = self.room.clone().try_acquire_owned() else { return self.drop_one("the models are busy") };
        tokio::spawn(async move {
            let (topic, payload) = match self.ask(&route, message.payload).await.and_then(fitting) {
                Ok(answer) => (output, answer),
                Err(reason) => {
                    let error = serde_json::json!({ "error": reason }).to_string();
                    (format!("{output}{ERROR_SUFFIX}"), error.into())
                }
            };
            if client.try_publish(topic, QoS::AtLeastOnce, false, payload).is_err() {
                self.drop_one("answers wait to be sent");
            }
            drop(place);
        });
    }

    fn drop_one(&self, why: &str) {
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        // Seldomer and seldomer: a flood must not fill the log.
        if dropped.is_power_of_two() {
            warn!(dropped, "messages of the local broker are dropped: {why}");
        }
    }

    async fn ask(&self, route: &RawRoute, payload: Bytes) -> Result<Bytes, String> {
        match route.payload {
            Payload::Json => {
                let version = route.version.map_or_else(String::new, |version| format!("/versions/{version}"));
                let path = format!("/v1/models/{}{version}:predict", route.model);
                let headers = HeaderMap::new();
                let ask = Ask { method: &Method::POST, path: &path, headers: &headers, body: &payload };
                let answer = self.doors.answer(ask).await;
                if answer.status == StatusCode::OK { Ok(answer.body) } else { Err(error_of(&answer.body)) }
            }
            Payload::Raw => self.ask_raw(route, payload).await,
        }
    }

    async fn ask_raw(&self, route: &RawRoute, payload: Bytes) -> Result<Bytes, String> {
        let choice = route.version.map_or(VersionChoice::Latest, VersionChoice::Version);
        let table = &self.doors.table;
        let served = table.find_started(route.model.as_str(), &choice).await;
        let served = served.map_err(|error| format!("{}: {error}", route.model))?;
        let ([input], [_]) = (&served.inputs[..], &served.outputs[..]) else {
            return Err(format!(
                "{} has {} inputs and {} outputs: raw payloads go with one of each, others as JSON",
                route.model,
                served.inputs.len(),
                served.outputs.len()
            ));
        };
        let shape = shape_of(input, payload.len())?;
        let input = Tensor::for_port(input, shape, payload).map_err(|error| error.to_string())?;
        let prediction = table.predict(&served, vec![input]).await.map_err(|error| error.to_string())?;
        let output = prediction.outputs.into_iter().next();
        Ok(output.map(|output| output.data).unwrap_or_default())
    }
}

/// The one free size follows from the number of bytes.
pub fn shape_of(port: &Port, bytes: usize) -> Result<Vec<usize>, String> {
    let size = port.dtype.size_bytes().ok_or("strings have no raw form of one size; send JSON")?;
    // A model's process says what its sizes are, and it is not believed.
    let known = port.shape.iter().flatten().try_fold(size, |bytes, size| bytes.checked_mul(*size as usize));
    let known = known.ok_or_else(|| format!("the model's sizes {:?} are beyond any memory", port.shape))?;
    let free = port.shape.iter().filter(|size| size.is_none()).count();
    let wrong = || format!("{bytes} bytes do not fill rows of {known} bytes each");
    let missing = match free {
        0 => 1,
        1 if known > 0 && bytes.is_multiple_of(known) => bytes / known,
        1 => return Err(wrong()),
        _ => return Err("the model has more than one free size; send JSON".to_owned()),
    };
    Ok(port.shape.iter().map(|size| size.map_or(missing, |size| size as usize)).collect())
}

/// One packet too large would end the connection.
fn fitting(answer: Bytes) -> Result<Bytes, String> {
    let bytes = answer.len();
    if bytes <= ANSWER_BYTES_MAX {
        Ok(answer)
    } else {
        Err(format!("the answer's {bytes} bytes are too many for MQTT"))
    }
}

fn error_of(body: &[u8]) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let text = parsed.and_then(|body| body.get("error")?.as_str().map(str::to_owned));
    text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

/// Not the device's id alone: the fleet's broker may be the same one.
fn client_id(device: &DeviceId) -> String {
    format!("{device}-local")
}

#[cfg(test)]
mod tests {
    use muster_shared::manifest::Dtype;

    use super::*;

    #[test]
    fn the_free_size_follows_from_the_bytes() {
        let shape = |shape: &[Option<u32>], bytes| {
            shape_of(&Port { name: "x".into(), dtype: Dtype::F32, shape: shape.to_vec() }, bytes).ok()
        };
        assert_eq!(shape(&[None, Some(3)], 24), Some(vec![2, 3]));
        assert_eq!(shape(&[None, Some(3)], 0), Some(vec![0, 3]));
        assert_eq!(shape(&[None, Some(3)], 25), None);
        assert_eq!(shape(&[None, None], 24), None);
        assert_eq!(shape(&[Some(2), Some(3)], 7), Some(vec![2, 3]), "its bytes are counted later");
        assert_eq!(shape(&[None, Some(0)], 7), None);
        assert_eq!(shape(&[], 4), Some(vec![]));
    }

    #[test]
    fn sizes_beyond_any_memory_are_an_error() {
        let port = Port { name: "x".into(), dtype: Dtype::F64, shape: vec![Some(u32::MAX); 8] };
        assert!(shape_of(&port, 8).unwrap_err().contains("beyond any memory"));
    }

    #[test]
    fn an_answer_and_the_longest_topic_fit_into_a_packet() {
        let largest = fitting(Bytes::from(vec![0; ANSWER_BYTES_MAX])).expect("an answer");
        let packet = Publish::new("t".repeat(TOPIC_BYTES_MAX), QoS::AtLeastOnce, largest);
        assert!(packet.size() <= PACKET_BYTES_MAX);
        assert!(fitting(Bytes::from(vec![0; ANSWER_BYTES_MAX + 1])).is_err());
    }
}
