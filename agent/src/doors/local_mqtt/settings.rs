//! `[local-mqtt]` of `agent.toml`: which topics ask which models, and where answers go.

use std::path::{Path, PathBuf};

use muster_shared::{DeploymentName, Version};
use serde::{Deserialize, Serialize};

use crate::mqtt::host_and_port;

/// Routes in one file.
const ROUTES_MAX: usize = 256;
/// Stands in `output` for the topic that the input came by.
pub const TOPIC: &str = "{topic}";
/// What is added to the output topic where there is an error instead of an answer.
pub const ERROR_SUFFIX: &str = "/error";

/// Topics are at most so long (MQTT 3.1.1, §1.5.3).
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// The table as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Raw {
    /// The broker, host:port; on this device or on its LAN.
    pub broker: String,
    /// The CA of a broker that speaks TLS, a PEM file; without it the connection is plain.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// The user to log in as.
    #[serde(default)]
    pub user: Option<String>,
    /// A file with that user's password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Which topics ask which models.
    #[serde(default, rename = "route")]
    pub routes: Vec<RawRoute>,
}

/// `[[local-mqtt.route]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawRoute {
    /// A topic, or a filter with `+` and `#`.
    pub input: String,
    /// Where answers are published; `{topic}` stands for the topic that the input came by.
    pub output: String,
    /// The model as doors name it.
    pub model: DeploymentName,
    /// One version of it; absent: the newest that answers.
    #[serde(default)]
    pub version: Option<Version>,
    /// What payloads are.
    #[serde(default)]
    pub payload: Payload,
}

/// What payloads are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// The JSON of TF Serving's `:predict`, either way.
    #[default]
    Json,
    /// The elements of the one input, row-major, little-endian; of the one output likewise.
    Raw,
}

/// Ready to use.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// The CA's file, where the broker speaks TLS.
    pub ca: Option<PathBuf>,
    /// User and password file.
    pub login: Option<(String, Option<PathBuf>)>,
    /// At least one.
    pub routes: Vec<RawRoute>,
}

/// Why the table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum BadSettings {
    #[error("local-mqtt.broker: {0:?} is no host:port")]
    Broker(String),
    #[error("local-mqtt: without a [[local-mqtt.route]] nothing is asked")]
    NoRoutes,
    #[error("local-mqtt: {0} routes, at most {ROUTES_MAX} go")]
    TooMany(usize),
    #[error("local-mqtt.route.input: {0:?} is no topic filter")]
    Input(String),
    #[error("local-mqtt.route.output: {0:?} is no topic to publish to")]
    Output(String),
    #[error(
        "local-mqtt.route.output: answers to {input:?} would go to {output:?}, which {by:?} reads: they would ask again, for ever"
    )]
    Loop { input: String, output: String, by: String },
    #[error("local-mqtt.password-file: without local-mqtt.user there is nobody to log in")]
    PasswordAlone,
}

impl Settings {
    /// Checks the table; paths are relative to `folder`.
    pub fn ready(raw: Raw, folder: &Path) -> Result<Self, BadSettings> {
        let (host, port) = host_and_port(&raw.broker).ok_or_else(|| BadSettings::Broker(raw.broker.clone()))?;
        match raw.routes.len() {
            0 => return Err(BadSettings::NoRoutes),
            count if count > ROUTES_MAX => return Err(BadSettings::TooMany(count)),
            _ => {}
        }
        for route in &raw.routes {
            if !is_filter(&route.input) {
                return Err(BadSettings::Input(route.input.clone()));
            }
            if !is_topic(&route.output.replace(TOPIC, "t")) {
                return Err(BadSettings::Output(route.output.clone()));
            }
            let reads = |reader: &&RawRoute| {
                // Whatever stands for `{topic}` is a topic that the input's filter matches.
                let output = route.output.replace(TOPIC, &route.input);
                overlap(&reader.input, &output) || overlap(&reader.input, &format!("{output}{ERROR_SUFFIX}"))
            };
            if let Some(by) = raw.routes.iter().find(reads) {
                let (input, output) = (route.input.clone(), route.output.clone());
                return Err(BadSettings::Loop { input, output, by: by.input.clone() });
            }
        }
        let password = raw.password_file.map(|file| folder.join(file));
        let login = match (raw.user, password) {
            (Some(user), password) => Some((user, password)),
            (None, Some(_)) => return Err(BadSettings::PasswordAlone),
            (None, None) => None,
        };
        Ok(Self { host, port, ca: raw.ca.map(|file| folder.join(file)), login, routes: raw.routes })
    }

    /// The route that a topic asks by: the first whose filter matches.
    pub fn route(&self, topic: &str) -> Option<&RawRoute> {
        self.routes.iter().find(|route| matches(&route.input, topic))
    }
}

impl RawRoute {
    /// Where the answer to what came by `topic` goes.
    pub fn output_for(&self, topic: &str) -> String {
        self.output.replace(TOPIC, topic)
    }
}

fn is_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    let level_ok = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at + 1 == levels.len(),
        level => !level.contains(['+', '#', '\0']),
    };
    !filter.is_empty() && filter.len() <= TOPIC_BYTES_MAX && levels.iter().enumerate().all(level_ok)
}

fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= TOPIC_BYTES_MAX && !topic.contains(['+', '#', '\0', '{', '}'])
}

/// Whether a topic is one that a filter asks for (MQTT 3.1.1, §4.7).
pub fn matches(filter: &str, topic: &str) -> bool {
    // A filter that begins with a wildcard does not match the broker's own topics.
    if topic.starts_with('$') && !filter.starts_with('$') {
        return false;
    }
    overlap(filter, topic)
}

/// Whether some topic is one that both filters ask for; a topic is a filter of its own.
fn overlap(one: &str, other: &str) -> bool {
    fn levels(one: &[&str], other: &[&str]) -> bool {
        match (one, other) {
            (["#", ..], _) | (_, ["#", ..]) => true,
            ([], []) => true,
            // `a/#` asks for `a`, too.
            ([], [next]) | ([next], []) => *next == "#",
            ([first, one @ ..], [second, other @ ..]) => {
                (first == second || *first == "+" || *second == "+") && levels(one, other)
            }
            _ => false,
        }
    }
    levels(&one.split('/').collect::<Vec<_>>(), &other.split('/').collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(input: &str, output: &str) -> String {
        format!("[[route]]\ninput = {input:?}\noutput = {output:?}\nmodel = \"digits\"\n")
    }

    fn ready(text: &str) -> Result<Settings, String> {
        let raw = toml::from_str(text).map_err(|error| error.to_string())?;
        Settings::ready(raw, Path::new("/etc/muster")).map_err(|error| error.to_string())
    }

    #[test]
    fn filters_match_as_mqtt_says() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a/b/c", false),
            ("a/+/c", "a/b/c", true),
            ("+", "a", true),
            ("+", "/a", false),
            ("+/+", "/a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "a", true),
            ("a/#", "b", false),
            ("#", "a/b", true),
            ("#", "$SYS/load", false),
            ("$SYS/#", "$SYS/load", true),
            ("a", "A", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn routes_that_would_ask_themselves_are_refused() {
        let with = |routes: &[(&str, &str)]| {
            let routes: String = routes.iter().map(|(input, output)| route(input, output)).collect();
            ready(&format!("broker = \"localhost:1883\"\n{routes}")).map(|settings| settings.routes.len())
        };
        assert_eq!(with(&[("in/+", "out/{topic}")]), Ok(1));
        assert_eq!(with(&[("in", "out"), ("in/2", "out/2")]), Ok(2));
        for routes in [
            &[("a", "a")][..],
            &[("#", "out")],
            &[("in/#", "in/out")],
            &[("+/+", "{topic}/answer"), ("a/b/answer", "z")],
            &[("a", "b"), ("b", "a")],
            &[("a/error", "b"), ("x", "a")],
        ] {
            assert!(with(routes).unwrap_err().contains("for ever"), "{routes:?}");
        }
    }

    #[test]
    fn mistakes_name_their_key() {
        let good = route("in", "out");
        assert!(
            ready(&format!("broker = \"localhost:1883\"\nca = \"ca.pem\"\n{good}"))
                .is_ok_and(|settings| settings.ca.as_deref() == Some(Path::new("/etc/muster/ca.pem")))
        );
        for (text, part) in [
            (format!("broker = \"localhost\"\n{good}"), "local-mqtt.broker"),
            ("broker = \"localhost:1883\"".to_owned(), "route"),
            (format!("broker = \"localhost:1883\"\n{}", route("a/#/b", "out")), "topic filter"),
            (format!("broker = \"localhost:1883\"\n{}", route("a+", "out")), "topic filter"),
            (format!("broker = \"localhost:1883\"\n{}", route("a", "out/+")), "publish"),
            (format!("broker = \"localhost:1883\"\n{}", route("a", "{what}")), "publish"),
            (format!("broker = \"localhost:1883\"\npassword-file = \"p\"\n{good}"), "local-mqtt.user"),
            (format!("broker = \"localhost:1883\"\n{}payload = \"xml\"", good), "payload"),
        ] {
            let error = ready(&text).expect_err(&text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
