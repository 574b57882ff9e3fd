//! `agent.toml`: what this device's owner decides. Read as typed, then made ready to use.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_shared::id::{Labels, ModelName};
use muster_shared::quantity::{Bytes, MilliCpu, Millis};
use serde::{Deserialize, Serialize};

use crate::doors::local_mqtt::settings as local_mqtt;
use crate::network::{self, RawNetwork};

/// The file as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawConfig {
    /// Where the agent keeps everything, relative to this file.
    pub data: PathBuf,
    /// Where models may be asked on this device.
    #[serde(default)]
    pub door: RawDoor,
    /// What models may use together; absent: three quarters of the memory, every core.
    #[serde(default)]
    pub limits: RawLimits,
    /// What this device's trust rests on beside its key.
    #[serde(default, skip_serializing_if = "is_default")]
    pub trust: RawTrust,
    /// How this device gets out to its control plane.
    #[serde(default, skip_serializing_if = "RawNetwork::is_default")]
    pub network: RawNetwork,
    /// How it shows how it stands.
    #[serde(default, skip_serializing_if = "is_default")]
    pub status: RawStatus,
    /// How often telemetry is sent.
    #[serde(default = "default_telemetry")]
    pub telemetry_every: Millis,
    /// What its owner calls this device.
    #[serde(default)]
    pub labels: Labels,
    /// The door for what speaks MQTT beside this device; absent: closed.
    #[serde(default, alias = "local_mqtt", skip_serializing_if = "Option::is_none")]
    pub local_mqtt: Option<local_mqtt::Raw>,
}

/// `[door]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawDoor {
    /// The address of the TF Serving door; loopback only.
    pub listen: SocketAddr,
}

impl Default for RawDoor {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8501)) }
    }
}

/// `[trust]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawTrust {
    /// A monotonic counter, as a program and its arguments: `counter = ["/path/program", "arg"]`. Run with
    /// `read`, or with `raise EPOCH NUMBER`, it prints the `EPOCH NUMBER` that it holds then (`0 0` at first)
    /// and exits with 0. It keeps old desired states out also where somebody puts an old disk back. While it
    /// fails, what runs goes on and nothing new is taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub counter: Vec<String>,
}

/// `[limits]`: what the control plane cannot loosen. What a director wants beyond them is kept out and
/// reported with the reason; what runs keeps its place first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawLimits {
    /// Memory for all models together; absent: three quarters of the machine's.
    pub memory: Option<Bytes>,
    /// Cores for all models together; absent: every one.
    pub cpu: Option<MilliCpu>,
    /// Bytes for the files of all models together; absent: any.
    pub disk: Option<Bytes>,
    /// How many models at a time; absent: 64.
    pub slots: Option<u32>,
    /// The only models that may run: `models = ["digits"]`; absent: any that a publisher signs.
    pub models: Option<Vec<ModelName>>,
    /// Whether predictions that come through the control plane are answered; the doors on this device are
    /// open either way.
    pub predictions_from_plane: bool,
    /// Whether the control plane may have this device empty itself and leave its fleet.
    pub decommission_from_plane: bool,
}

impl Default for RawLimits {
    fn default() -> Self {
        let (predictions_from_plane, decommission_from_plane) = (true, true);
        let (memory, cpu, disk, slots, models) = Default::default();
        Self { memory, cpu, disk, slots, models, predictions_from_plane, decommission_from_plane }
    }
}

/// `[status]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawStatus {
    /// A LED that shows how the connection stands: a folder of `/sys/class/leds`, or a plain file for a line of text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub led: Option<PathBuf>,
}

fn is_default<T: Default + PartialEq>(table: &T) -> bool {
    *table == T::default()
}

fn default_telemetry() -> Millis {
    Millis(10_000)
}

/// The shortest time between telemetry batches: flash wears, and so do links.
const TELEMETRY_EVERY_MIN: Duration = Duration::from_secs(1);

/// The configuration, ready to use.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the agent keeps everything.
    pub data: PathBuf,
    /// The address of the TF Serving door.
    pub listen: SocketAddr,
    /// Memory for all models together.
    pub memory_bytes: Option<u64>,
    /// Thousandths of cores for all models together.
    pub cpu_milli: Option<u32>,
    /// Bytes for the files of all models together.
    pub disk_bytes: Option<u64>,
    /// How many models at a time.
    pub slots: Option<u32>,
    /// The only models that may run.
    pub models: Option<Vec<ModelName>>,
    /// Whether predictions that come through the control plane are answered.
    pub predictions_from_plane: bool,
    /// Whether the control plane may have this device empty itself and leave its fleet.
    pub decommission_from_plane: bool,
    /// A monotonic counter's program and its arguments; empty: none.
    pub counter: Vec<String>,
    /// How this device gets out to its control plane.
    pub network: network::Settings,
    /// The same as it is typed.
    pub raw_network: RawNetwork,
    /// A LED that shows how the connection stands.
    pub led: Option<PathBuf>,
    /// How often telemetry is sent.
    pub telemetry_every: Duration,
    /// What its owner calls this device.
    pub labels: Labels,
    /// The door for what speaks MQTT beside this device.
    pub local_mqtt: Option<local_mqtt::Settings>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    #[error("cannot read {path}; `muster-agent enrol` writes it")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is not a configuration")]
    Parse {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("door.listen: {0} is not a loopback address; the door has no login yet, so it stays on this device")]
    NotLoopback(SocketAddr),
    #[error("telemetry-every: at least {TELEMETRY_EVERY_MIN:?}")]
    TelemetryTooOften,
    #[error(transparent)]
    Network(#[from] network::BadNetwork),
    #[error(transparent)]
    LocalMqtt(#[from] local_mqtt::BadSettings),
}

impl Config {
    /// Reads `agent.toml`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Reads the text of the file at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: RawConfig = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::ready(raw, folder)
    }

    fn ready(raw: RawConfig, folder: &Path) -> Result<Self, ConfigError> {
        if !raw.door.listen.ip().is_loopback() {
            return Err(ConfigError::NotLoopback(raw.door.listen));
        }
        let telemetry_every = Duration::from_millis(raw.telemetry_every.0);
        if telemetry_every < TELEMETRY_EVERY_MIN {
            return Err(ConfigError::TelemetryTooOften);
        }
        let network = network::Settings::ready(raw.network.clone(), folder)?;
        Ok(Self {
            data: folder.join(raw.data),
            listen: raw.door.listen,
            memory_bytes: raw.limits.memory.map(|memory| memory.0),
            cpu_milli: raw.limits.cpu.map(|cpu| cpu.0),
            disk_bytes: raw.limits.disk.map(|disk| disk.0),
            slots: raw.limits.slots,
            models: raw.limits.models,
            predictions_from_plane: raw.limits.predictions_from_plane,
            decommission_from_plane: raw.limits.decommission_from_plane,
            counter: raw.trust.counter,
            // It may be read again from elsewhere than this file's folder.
            raw_network: RawNetwork { proxy_ca: network.proxy_ca.clone(), ..raw.network },
            network,
            led: raw.status.led.map(|led| folder.join(led)),
            telemetry_every,
            labels: raw.labels,
            local_mqtt: raw.local_mqtt.map(|raw| local_mqtt::Settings::ready(raw, folder)).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let raw = toml::from_str(text).map_err(|error| error.to_string())?;
        Config::ready(raw, Path::new("/etc/muster")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_short_file_gets_the_defaults_and_paths_beside_it() {
        let config = read("data = \".\"").expect("a configuration");
        assert_eq!(config.data, Path::new("/etc/muster/."));
        assert_eq!(config.listen.port(), 8501);
    }

    #[test]
    fn limits_and_a_counter_are_read_and_predictions_from_the_plane_are_answered_unless_said() {
        let config = read("data = \".\"").expect("a configuration");
        assert!(config.predictions_from_plane && config.models.is_none() && config.counter.is_empty());
        let text = "data = \".\"\n[limits]\ndisk = \"2Gi\"\nslots = 3\nmodels = [\"digits\"]\n\
                    predictions-from-plane = false\n[trust]\ncounter = [\"/bin/counter\", \"x\"]";
        let config = read(text).expect("a configuration");
        assert_eq!((config.disk_bytes, config.slots), (Some(2 << 30), Some(3)));
        assert_eq!(config.models, Some(vec!["digits".parse().expect("a name")]));
        assert!(!config.predictions_from_plane && config.counter == ["/bin/counter", "x"]);
    }

    #[test]
    fn mistakes_name_their_key() {
        assert!(read("data = \".\"\ndor.listen = \"127.0.0.1:1\"").unwrap_err().contains("dor"));
        assert!(read("data = \".\"\ndoor.listen = \"0.0.0.0:1\"").unwrap_err().contains("door.listen"));
        assert!(read("data = \".\"\ntelemetry-every = \"10ms\"").unwrap_err().contains("telemetry-every"));
        assert!(read("data = \".\"\nlimits.memory = \"lots\"").unwrap_err().contains("memory"));
    }
}
