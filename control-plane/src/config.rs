//! What was typed, on the command line or in a file, becomes what the plane works with: once, with
//! the key at fault named.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use muster_shared::quantity::Millis;
use serde::Deserialize;

use crate::trust::ca;

/// A configuration file is far shorter.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Extra names in the server's certificate.
const NAMES_MAX: usize = 64;

/// Certificates are made to the second.
const DEVICE_CERTIFICATE_LIFE_MIN: Duration = Duration::from_secs(2);
/// One that lives longer outlives too much.
const DEVICE_CERTIFICATE_LIFE_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Muster's control plane: API, broker, planner and gateway in one process.
#[derive(Debug, Clone, Default, Parser)]
#[command(name = "muster-control-plane", version)]
pub struct Args {
    /// The folder that holds everything this plane must not lose
    #[arg(long, value_name = "DIR", env = "MUSTER_DATA")]
    pub data: Option<PathBuf>,
    /// A TOML file with the same keys; the command line wins
    #[arg(long, value_name = "FILE", env = "MUSTER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where the HTTPS API listens [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Serve the API as plain HTTP too, on a loopback address
    #[arg(long, value_name = "LOOPBACK")]
    pub plain_http: Option<SocketAddr>,
    /// Where the MQTT broker listens [default: 127.0.0.1:8883]
    #[arg(long, value_name = "ADDR")]
    pub mqtt: Option<SocketAddr>,
    /// Where devices that only get out by HTTPS come in: enrolment, renewal, and MQTT over WebSocket. Meant for
    /// port 443 of a name or an address of its own
    #[arg(long, value_name = "ADDR")]
    pub devices: Option<SocketAddr>,
    /// Where predictions are asked for by deployment name; the API's address answers them too
    #[arg(long, value_name = "ADDR")]
    pub gateway: Option<SocketAddr>,
    /// Serve the gateway as plain HTTP without a token; on a loopback address only
    #[arg(long)]
    pub open_gateway: bool,
    /// A further DNS name or IP address for the server's certificate; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// The broker's address as devices are told it [default: the API's host and the broker's port]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_mqtt: Option<String>,
    /// The address of the listener for devices as they are told it [default: the host that they enrol at and
    /// that listener's port]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise_devices: Option<String>,
    /// How long a device's certificate lives, such as 14d; devices renew it at two thirds. For tests
    #[arg(long, value_name = "TIME", hide = true)]
    pub device_certificate_life: Option<Millis>,
    /// Write the addresses, the CA's fingerprint and the admin code as JSON once everything listens
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Stop when standard input ends: a supervisor that dies takes this process with it
    #[arg(long)]
    pub stop_with_stdin: bool,
    /// Where the list of revoked keys lies, and beside it the ledger: apart from what a backup of DIR puts
    /// back [default: DIR/revocations]
    #[arg(long, value_name = "FILE")]
    pub revocations: Option<PathBuf>,
    /// The database was put back from a backup: open claims are void, and nothing changes until approved
    #[arg(long)]
    pub restored: bool,
    /// Draw a new password for the user admin of the dashboard; its sessions end
    #[arg(long)]
    pub new_admin_password: bool,
    /// Draw a new one-time admin code although one was used: for an operator who lost the token
    #[arg(long)]
    pub new_admin_code: bool,
}

/// The configuration file as typed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RawConfig {
    data: Option<PathBuf>,
    http: Option<SocketAddr>,
    plain_http: Option<SocketAddr>,
    mqtt: Option<SocketAddr>,
    devices: Option<SocketAddr>,
    gateway: Option<SocketAddr>,
    open_gateway: Option<bool>,
    #[serde(default)]
    names: Vec<String>,
    advertise_mqtt: Option<String>,
    advertise_devices: Option<String>,
    device_certificate_life: Option<Millis>,
    revocations: Option<PathBuf>,
}

/// Ready to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Holds the databases, the blobs and the keys.
    pub data: PathBuf,
    /// The HTTPS API.
    pub http: SocketAddr,
    /// The API as plain HTTP; a loopback address.
    pub plain_http: Option<SocketAddr>,
    /// The broker.
    pub mqtt: SocketAddr,
    /// The listener for devices: part of the API, and MQTT over WebSocket.
    pub devices: Option<SocketAddr>,
    /// The gateway's own listener.
    pub gateway: Option<Gateway>,
    /// Further names in the server's certificate.
    pub names: Vec<String>,
    /// The broker's `host:port` as devices are told it.
    pub advertise_mqtt: Option<String>,
    /// The `host:port` of the listener for devices, as they are told it.
    pub advertise_devices: Option<String>,
    /// How long a device's certificate lives.
    pub device_certificate_life: Duration,
    /// Where to write [`crate::ready::Ready`].
    pub ready_file: Option<PathBuf>,
    /// Where the list of revoked keys lies, if not in the data folder.
    pub revocations: Option<PathBuf>,
    /// Whether the database was put back from a backup, as the operator says.
    pub restored: bool,
    /// Whether to draw a new password for the user `admin`.
    pub new_admin_password: bool,
    /// Whether to draw a new admin code although one was used.
    pub new_admin_code: bool,
}

/// The gateway's own listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it speaks plain HTTP and asks for no token; then `address` is a loopback address.
    pub open: bool,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no configuration.
    #[error("the configuration {path} is not understood: {message}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// One key is wrong.
    #[error("{key}: {why}")]
    Key {
        /// As it is spelled on the command line.
        key: &'static str,
        /// Why it is refused.
        why: String,
    },
}

impl Args {
    /// Reads the file, lets the command line win, and checks everything.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            Some(path) => RawConfig::read(path)?,
            None => RawConfig::default(),
        };
        Config::try_from((self, file))
    }

    /// As [`Self::into_config`], with the text of the file at `path`.
    pub fn with_text(self, text: &str, path: &Path) -> Result<Config, ConfigError> {
        Config::try_from((self, RawConfig::parse(text, path)?))
    }
}

impl RawConfig {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > CONFIG_BYTES_MAX {
            let message = format!("it has more than {CONFIG_BYTES_MAX} bytes");
            return Err(ConfigError::Malformed { path: path.to_owned(), message });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(failed)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text)
            .map_err(|error| ConfigError::Malformed { path: path.to_owned(), message: error.to_string() })
    }
}

impl TryFrom<(Args, RawConfig)> for Config {
    type Error = ConfigError;

    fn try_from((args, file): (Args, RawConfig)) -> Result<Self, ConfigError> {
        let wrong = |key, why: &str| ConfigError::Key { key, why: why.to_owned() };
        let data = args.data.or(file.data).ok_or_else(|| wrong("--data", "name the folder that holds the state"))?;
        let plain_http = args.plain_http.or(file.plain_http);
        if plain_http.is_some_and(|address| !address.ip().is_loopback()) {
            return Err(wrong(
                "--plain-http",
                "plain HTTP is only served on a loopback address such as 127.0.0.1:8080",
            ));
        }
        let open = args.open_gateway || file.open_gateway.unwrap_or(false);
        let gateway = args.gateway.or(file.gateway).map(|address| Gateway { address, open });
        if open && gateway.is_none() {
            return Err(wrong("--open-gateway", "say where with --gateway 127.0.0.1:8501"));
        }
        if gateway.is_some_and(|gateway| gateway.open && !gateway.address.ip().is_loopback()) {
            return Err(wrong("--open-gateway", "a gateway without a token may only listen on a loopback address"));
        }
        let names = [file.names, args.names].concat();
        if names.len() > NAMES_MAX || names.iter().any(|name| !is_server_name(name)) {
            return Err(wrong("--name", "write DNS names or IP addresses, such as plane.example.org"));
        }
        let advertise_mqtt = args.advertise_mqtt.or(file.advertise_mqtt);
        if advertise_mqtt.as_ref().is_some_and(|text| !is_host_and_port(text)) {
            return Err(wrong("--advertise-mqtt", "write it as HOST:PORT"));
        }
        let advertise_devices = args.advertise_devices.or(file.advertise_devices);
        if advertise_devices.as_ref().is_some_and(|text| !is_host_and_port(text)) {
            return Err(wrong("--advertise-devices", "write it as HOST:PORT"));
        }
        let devices = args.devices.or(file.devices);
        if advertise_devices.is_some() && devices.is_none() {
            return Err(wrong("--advertise-devices", "say where it listens with --devices 0.0.0.0:443"));
        }
        let life = args.device_certificate_life.or(file.device_certificate_life);
        let device_certificate_life = life.map_or(ca::DEVICE_LIFE, |life| Duration::from_millis(life.0));
        if !(DEVICE_CERTIFICATE_LIFE_MIN..=DEVICE_CERTIFICATE_LIFE_MAX).contains(&device_certificate_life) {
            return Err(wrong("--device-certificate-life", "write 2s to 365d"));
        }
        Ok(Self {
            data,
            http: args.http.or(file.http).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8443))),
            plain_http,
            mqtt: args.mqtt.or(file.mqtt).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8883))),
            devices,
            gateway,
            names,
            advertise_mqtt,
            advertise_devices,
            device_certificate_life,
            ready_file: args.ready_file,
            revocations: args.revocations.or(file.revocations),
            restored: args.restored,
            new_admin_password: args.new_admin_password,
            new_admin_code: args.new_admin_code,
        })
    }
}

fn is_server_name(name: &str) -> bool {
    rustls::pki_types::ServerName::try_from(name).is_ok()
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: &str, file: &str) -> Result<Config, String> {
        let args = Args::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        let file = toml::from_str(file).map_err(|error| error.to_string())?;
        Config::try_from((args, file)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_the_defaults() {
        let file = "data = '/a'\nhttp = '127.0.0.1:1'\nmqtt = '127.0.0.1:2'\nnames = ['plane.example.org']";
        let config = config("plane --http 127.0.0.1:3 --name 10.0.0.1", file).expect("a configuration");
        assert_eq!((config.http.port(), config.mqtt.port()), (3, 2));
        assert_eq!(config.names, ["plane.example.org", "10.0.0.1"]);
        assert_eq!(config.data, Path::new("/a"));
    }

    #[test]
    fn an_unsafe_or_misspelt_key_is_named() {
        for (line, file, needle) in [
            ("plane", "", "--data"),
            ("plane --data d --plain-http 0.0.0.0:80", "", "--plain-http"),
            ("plane --data d --open-gateway", "", "--open-gateway"),
            ("plane --data d --gateway 0.0.0.0:1 --open-gateway", "", "--open-gateway"),
            ("plane --data d --gateway 0.0.0.0:1", "open-gateway = true", "--open-gateway"),
            ("plane --data d --name a_b/c", "", "--name"),
            ("plane --data d --advertise-mqtt host", "", "--advertise-mqtt"),
            ("plane --data d --devices 127.0.0.1:1 --advertise-devices host", "", "--advertise-devices"),
            ("plane --data d", "advertise-devices = 'plane.example.org:443'", "--devices"),
            ("plane --data d --device-certificate-life 1s", "", "--device-certificate-life"),
            ("plane --data d", "device-certificate-life = '400d'", "--device-certificate-life"),
            ("plane --data d", "htp = '127.0.0.1:1'", "htp"),
        ] {
            let error = config(line, file).expect_err(line);
            assert!(error.contains(needle), "{line}: {error}");
        }
    }
}
