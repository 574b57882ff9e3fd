//! How this device reaches its control plane, whatever stands between: blocked ports, proxies, resolvers that
//! are dead or lie, networks of one family.
//!
//! In the order of a connection: which way next ([`route`], pure); a name's addresses ([`resolve`]), the first
//! that answers ([`dial`]), the proxy ([`proxy`]), TLS ([`connector`]); then a question to the API ([`post`]), or a
//! line to the broker ([`line`], [`tunnel`]), whose near end only this process may use ([`local`]). What goes wrong is a
//! [`fault`].

pub mod fault;
pub mod route;

pub mod target;

pub mod dial;
pub mod proxy;
pub mod resolve;

pub mod connector;
pub mod line;
pub mod local;
pub mod post;
pub mod tunnel;

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_shared::quantity::Millis;
use serde::{Deserialize, Serialize};

use self::proxy::{BadProxy, ENVIRONMENT, Proxy};
use self::route::Mode;
use self::target::Target;

/// How often the direct way is tried while the tunnel stands.
const TRY_DIRECT_EVERY: Duration = Duration::from_secs(600);
/// The shortest time between such tries.
const TRY_DIRECT_EVERY_MIN: Duration = Duration::from_secs(1);

/// `[network]`: how this device gets out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawNetwork {
    /// MQTT through a WebSocket: `auto` where the broker's port is blocked, `always`, or `never`.
    pub tunnel: Mode,
    /// An HTTP proxy for enrolment, renewal and the tunnel: `http://HOST:PORT`, with `NAME:PASSWORD@` where it asks
    /// for them; `environment`: what `HTTPS_PROXY` and `NO_PROXY` say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// The CA of a proxy that ends TLS, as a PEM file. Such a proxy sees and can change predictions and hints, as
    /// the owner of a broker can; it is believed nothing else.
    #[serde(alias = "proxy_ca", skip_serializing_if = "Option::is_none")]
    pub proxy_ca: Option<PathBuf>,
    /// How often the direct way is tried while the tunnel stands; absent: 10 minutes.
    #[serde(alias = "try_direct_every", skip_serializing_if = "Option::is_none")]
    pub try_direct_every: Option<Millis>,
}

impl RawNetwork {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// That, ready to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// When the tunnel is used.
    pub tunnel: Mode,
    /// The proxy.
    pub proxy: ProxySetting,
    /// The CA of a proxy that ends TLS.
    pub proxy_ca: Option<PathBuf>,
    /// How often the direct way is tried while the tunnel stands.
    pub try_direct_every: Duration,
}

/// Which proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ProxySetting {
    /// None.
    #[default]
    None,
    /// This one.
    Named(Proxy),
    /// What the environment says.
    Environment,
}

/// What is wrong with `[network]`.
#[derive(Debug, thiserror::Error)]
pub enum BadNetwork {
    /// The proxy.
    #[error("network.proxy")]
    Proxy(#[from] BadProxy),
    /// The time between tries.
    #[error("network.try-direct-every: at least {TRY_DIRECT_EVERY_MIN:?}")]
    TooOften,
}

impl Settings {
    /// Makes it ready; files lie in `folder`.
    pub fn ready(raw: RawNetwork, folder: &Path) -> Result<Self, BadNetwork> {
        let try_direct_every = raw.try_direct_every.map_or(TRY_DIRECT_EVERY, |every| Duration::from_millis(every.0));
        if try_direct_every < TRY_DIRECT_EVERY_MIN {
            return Err(BadNetwork::TooOften);
        }
        let proxy = match raw.proxy.as_deref() {
            None => ProxySetting::None,
            Some(ENVIRONMENT) => ProxySetting::Environment,
            Some(text) => ProxySetting::Named(text.parse()?),
        };
        let proxy_ca = raw.proxy_ca.map(|path| folder.join(path));
        Ok(Self { tunnel: raw.tunnel, proxy, proxy_ca, try_direct_every })
    }
}

impl ProxySetting {
    /// The proxy for this target.
    pub fn for_target(&self, target: &Target) -> Result<Option<Proxy>, BadProxy> {
        match self {
            Self::None => Ok(None),
            Self::Named(proxy) => Ok(Some(proxy.clone())),
            Self::Environment => proxy::of_environment(&target.host, |name| std::env::var(name).ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_made_ready_and_mistakes_name_their_key() {
        let ready = |text: &str| {
            let raw: RawNetwork = toml::from_str(text).map_err(|error| error.to_string())?;
            Settings::ready(raw, Path::new("/etc/muster")).map_err(|error| error.to_string())
        };
        let settings = ready("").expect("defaults");
        assert_eq!((settings.tunnel, settings.proxy), (Mode::Auto, ProxySetting::None));
        let text =
            "tunnel = \"always\"\nproxy = \"http://proxy:3128\"\nproxy-ca = \"ca.pem\"\ntry-direct-every = \"5s\"";
        let settings = ready(text).expect("settings");
        assert_eq!((settings.tunnel, settings.try_direct_every), (Mode::Always, Duration::from_secs(5)));
        assert_eq!(settings.proxy_ca.as_deref(), Some(Path::new("/etc/muster/ca.pem")));
        assert_eq!(
            ready("proxy = \"environment\"\nproxy_ca = \"/x\"").expect("settings").proxy,
            ProxySetting::Environment
        );
        for (bad, key) in [
            ("proxy = \"proxy:3128\"", "network.proxy"),
            ("tunnel = \"sometimes\"", "tunnel"),
            ("try-direct-every = \"1ms\"", "try-direct-every"),
            ("tunel = \"auto\"", "tunel"),
        ] {
            assert!(ready(bad).expect_err(bad).contains(key), "{bad}");
        }
    }
}
