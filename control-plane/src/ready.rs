//! Word that everything listens: a file for scripts, a few lines for people.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use muster_shared::Digest;
use serde::Serialize;

use crate::files;

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// The HTTPS API.
    pub http: String,
    /// The API as plain HTTP.
    pub plain_http: Option<String>,
    /// The broker's address.
    pub mqtt: SocketAddr,
    /// The listener for devices.
    pub devices: Option<String>,
    /// The gateway.
    pub gateway: Option<String>,
    /// What clients pin.
    pub ca_fingerprint: Digest,
    /// The one-time code, where nobody has logged in yet.
    pub admin_code: Option<String>,
    /// The password of the user `admin`, where it was drawn at this start.
    pub admin_password: Option<String>,
    /// Whether the gateway asks for no token.
    #[serde(skip)]
    pub gateway_is_open: bool,
}

impl Ready {
    /// Writes it as JSON; the file is there as a whole or not at all.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        // It may hold the admin code and the password.
        files::write_private(path, &json)
    }
}

/// The address with a host that can be typed: nobody connects to 0.0.0.0.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(it) if it.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], it.port())),
        SocketAddr::V6(it) if it.ip().is_unspecified() => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, it.port())),
        other => other,
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Muster's control plane listens:")?;
        writeln!(f, "  API      {}", self.http)?;
        if let Some(plain) = &self.plain_http {
            writeln!(f, "  API      {plain} (plain HTTP, this machine only)")?;
        }
        writeln!(f, "  MQTT     {}", self.mqtt)?;
        if let Some(devices) = &self.devices {
            writeln!(f, "  devices  {devices} (enrolment, and MQTT over WebSocket)")?;
        }
        if let Some(gateway) = &self.gateway {
            let open = if self.gateway_is_open { " (open: no token, this machine only)" } else { "" };
            writeln!(f, "  gateway  {gateway}{open}")?;
        }
        writeln!(f, "  CA       {}", self.ca_fingerprint)?;
        if let Some(password) = &self.admin_password {
            let page = self.plain_http.as_ref().unwrap_or(&self.http);
            writeln!(f, "\nThe dashboard is at {page}. Log in as admin with the password")?;
            writeln!(f, "  {password}\nwhich is shown this once.")?;
        }
        if let Some(code) = &self.admin_code {
            writeln!(f, "\nThe one-time admin code is {code}. To log in, type:")?;
            writeln!(f, "  muster login {} --ca-fingerprint {} --code {code}", self.http, self.ca_fingerprint)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_scripts_learn_the_same() {
        let ready = Ready {
            http: "https://127.0.0.1:8443".into(),
            plain_http: None,
            mqtt: reachable("0.0.0.0:8883".parse().expect("an address")),
            devices: Some("https://127.0.0.1:8444".into()),
            gateway: Some("http://127.0.0.1:8501".into()),
            ca_fingerprint: Digest::of("ca"),
            admin_code: Some("abcde-fghij-kmnpq-rstuv".into()),
            admin_password: Some("vwxyz-23456-789ab-cdefg".into()),
            gateway_is_open: true,
        };
        let text = ready.to_string();
        assert!(text.contains("muster login https://127.0.0.1:8443 --ca-fingerprint"), "{text}");
        assert!(text.contains("https://127.0.0.1:8443. Log in as admin") && text.contains("vwxyz-23456"), "{text}");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ready.json");
        ready.write(&path).expect("writes");
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON");
        assert_eq!(json["mqtt"], "127.0.0.1:8883");
        assert_eq!(json["devices"], "https://127.0.0.1:8444");
        assert_eq!(json["gateway"], "http://127.0.0.1:8501");
        assert_eq!(json["adminCode"], "abcde-fghij-kmnpq-rstuv");
        assert_eq!(json["adminPassword"], "vwxyz-23456-789ab-cdefg");
        assert_eq!(json["caFingerprint"], Digest::of("ca").to_string());
        assert!(json["plainHttp"].is_null());
    }
}
