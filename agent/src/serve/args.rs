//! `muster-agent serve`: its flags, TF Serving's names for them among them, and what they mean together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use muster_shared::quantity::Bytes;
use muster_shared::{ModelName, Version};

/// What can be said on the command line.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// A model: NAME=PATH[@VERSION], of an ONNX file or of a folder with versions in it (1/, 2/, …);
    /// may be given several times, also for versions of one name
    #[arg(long = "model", value_name = "NAME=PATH[@VERSION]")]
    models: Vec<ModelArg>,
    /// A label for a version, NAME:LABEL=VERSION; may be given several times
    #[arg(long = "label", value_name = "NAME:LABEL=VERSION")]
    labels: Vec<LabelArg>,
    /// A folder of models, each with its versions in it, that may be loaded and unloaded while serving
    #[arg(long)]
    model_repository: Option<PathBuf>,
    /// Who may load and unload models while serving: nobody, or whoever reaches the doors
    #[arg(long, value_enum, default_value_t = Control::None)]
    model_control: Control,
    /// What executes models
    #[arg(long, value_enum, default_value_t = Engine::Auto)]
    engine: Engine,
    /// Memory for each model; default: three quarters of the machine's
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// Processor time for each model in thousandths of a core, 500 or 500m; default: one core
    #[arg(long, value_name = "MILLI", value_parser = milli)]
    cpu: Option<u32>,
    /// Where to open the HTTP doors; on a loopback address
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Where to open the gRPC door; on a loopback address
    #[arg(long, value_name = "ADDR:PORT")]
    grpc: Option<SocketAddr>,
    /// Write a JSON file here once every model answers, or failed to
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Write a line for each request
    #[arg(long)]
    access_log: bool,
    /// Stop when standard input closes, so that a supervisor that dies takes this process along
    #[arg(long)]
    pub stop_with_stdin: bool,

    /// TF Serving's name for the port of --listen
    #[arg(long = "rest_api_port", value_name = "PORT", hide_short_help = true)]
    rest_api_port: Option<u16>,
    /// TF Serving's name for the port of --grpc
    #[arg(long = "port", value_name = "PORT", hide_short_help = true)]
    port: Option<u16>,
    /// TF Serving's name for the model's name
    #[arg(long = "model_name", value_name = "NAME", hide_short_help = true)]
    model_name: Option<ModelName>,
    /// TF Serving's name for the folder with versions
    #[arg(long = "model_base_path", value_name = "DIR", hide_short_help = true)]
    model_base_path: Option<PathBuf>,
    /// TF Serving's: how often to look for new versions; 0: once
    #[arg(long = "file_system_poll_wait_seconds", value_name = "SECONDS", default_value_t = 1, hide_short_help = true)]
    poll_seconds: i64,
    /// TF Serving's: how long a request may take
    #[arg(long = "rest_api_timeout_in_ms", value_name = "MS", hide_short_help = true)]
    timeout_ms: Option<u64>,
    /// How long a model may take to be loaded
    #[arg(long, value_name = "MS", default_value_t = LOAD_TIMEOUT_MS)]
    load_timeout_ms: u64,
    /// TF Serving's: whether requests may run together; here they do where that changes no answer
    #[arg(long = "enable_batching", value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true",
        action = clap::ArgAction::Set, hide_short_help = true)]
    enable_batching: bool,
    #[command(flatten)]
    ignored: Ignored,
    #[command(flatten)]
    refused: Refused,
}

/// How long a model may take to be loaded, where nothing is said.
const LOAD_TIMEOUT_MS: u64 = 120_000;

/// Flags of TF Serving's that mean nothing here: start scripts carry them along.
#[derive(Debug, Clone, Args)]
struct Ignored {
    #[arg(long = "batching_parameters_file", hide = true)]
    batching_parameters_file: Option<String>,
    #[arg(long = "enable_model_warmup", num_args = 0..=1, default_missing_value = "true", hide = true)]
    enable_model_warmup: Option<String>,
    #[arg(long = "rest_api_num_threads", hide = true)]
    rest_api_num_threads: Option<String>,
    #[arg(long = "num_load_threads", hide = true)]
    num_load_threads: Option<String>,
    #[arg(long = "max_num_load_retries", hide = true)]
    max_num_load_retries: Option<String>,
    #[arg(long = "load_retry_interval_micros", hide = true)]
    load_retry_interval_micros: Option<String>,
    #[arg(long = "tensorflow_session_parallelism", hide = true)]
    tensorflow_session_parallelism: Option<String>,
    #[arg(long = "tensorflow_intra_op_parallelism", hide = true)]
    tensorflow_intra_op_parallelism: Option<String>,
    #[arg(long = "tensorflow_inter_op_parallelism", hide = true)]
    tensorflow_inter_op_parallelism: Option<String>,
    #[arg(long = "per_process_gpu_memory_fraction", hide = true)]
    per_process_gpu_memory_fraction: Option<String>,
    #[arg(long = "monitoring_config_file", hide = true)]
    monitoring_config_file: Option<String>,
    #[arg(long = "allow_version_labels_for_unavailable_models", num_args = 0..=1, default_missing_value = "true", hide = true)]
    allow_version_labels_for_unavailable_models: Option<String>,
}

impl Ignored {
    fn given(&self) -> Vec<&'static str> {
        let flags = [
            ("batching_parameters_file", &self.batching_parameters_file),
            ("enable_model_warmup", &self.enable_model_warmup),
            ("rest_api_num_threads", &self.rest_api_num_threads),
            ("num_load_threads", &self.num_load_threads),
            ("max_num_load_retries", &self.max_num_load_retries),
            ("load_retry_interval_micros", &self.load_retry_interval_micros),
            ("tensorflow_session_parallelism", &self.tensorflow_session_parallelism),
            ("tensorflow_intra_op_parallelism", &self.tensorflow_intra_op_parallelism),
            ("tensorflow_inter_op_parallelism", &self.tensorflow_inter_op_parallelism),
            ("per_process_gpu_memory_fraction", &self.per_process_gpu_memory_fraction),
            ("monitoring_config_file", &self.monitoring_config_file),
            ("allow_version_labels_for_unavailable_models", &self.allow_version_labels_for_unavailable_models),
        ];
        flags.into_iter().filter(|(_, given)| given.is_some()).map(|(name, _)| name).collect()
    }
}

/// Flags of TF Serving's that mean something that is done otherwise here.
#[derive(Debug, Clone, Args)]
struct Refused {
    #[arg(long = "model_config_file", hide = true)]
    model_config_file: Option<String>,
    #[arg(long = "ssl_config_file", hide = true)]
    ssl_config_file: Option<String>,
}

impl Refused {
    fn next_move(&self) -> Option<&'static str> {
        if self.model_config_file.is_some() {
            return Some("--model_config_file is not read here; give --model NAME=DIR once for each model of it");
        }
        self.ssl_config_file
            .as_ref()
            .map(|_| "--ssl_config_file is not read here; put a proxy that speaks TLS before the doors")
    }
}

/// Thousandths of a core, also as Kubernetes writes them.
fn milli(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('m').unwrap_or(text);
    let milli = number.parse::<u32>().ok().filter(|milli| (CPU_MILLI_MIN..=CPU_MILLI_MAX).contains(milli));
    milli.ok_or_else(|| format!("write thousandths of a core, {CPU_MILLI_MIN} to {CPU_MILLI_MAX}: 500 is half a core"))
}

/// Less than this holds no model.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Less than this is no time to answer in.
const CPU_MILLI_MIN: u32 = 10;
/// More cores than any machine of a fleet of small ones has.
const CPU_MILLI_MAX: u32 = 1_024_000;

/// Who may load and unload models while serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Control {
    /// Nobody.
    None,
    /// Whoever reaches the doors.
    Explicit,
}

/// What executes models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    /// The best that this machine has.
    Auto,
    /// tract.
    Tract,
}

/// `NAME=PATH[@VERSION]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelArg {
    name: ModelName,
    path: PathBuf,
    version: Option<Version>,
}

impl FromStr for ModelArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("write it as NAME=PATH or NAME=PATH@VERSION")?;
        let name = name.parse().map_err(|error| format!("{name:?}: {error}"))?;
        // A path may have an @ of its own; a version is a number.
        let (path, version) = match rest.rsplit_once('@') {
            Some((path, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => {
                (path, Some(version.parse().map_err(|error| format!("version {version:?}: {error}"))?))
            }
            _ => (rest, None),
        };
        if path.is_empty() {
            return Err("the path is missing".to_owned());
        }
        Ok(Self { name, path: path.into(), version })
    }
}

/// `NAME:LABEL=VERSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LabelArg {
    name: ModelName,
    label: String,
    version: Version,
}

impl FromStr for LabelArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(name, rest)| Some((name, rest.split_once('=')?)));
        let (name, (label, version)) = parts.ok_or("write it as NAME:LABEL=VERSION")?;
        let name = name.parse().map_err(|error| format!("{name:?}: {error}"))?;
        let version = version.parse().map_err(|error| format!("version {version:?}: {error}"))?;
        if label.is_empty() || label.contains(['/', ':']) {
            return Err(format!("{label:?} is no label"));
        }
        Ok(Self { name, label: label.to_owned(), version })
    }
}

/// What to serve and how, ready to use.
#[derive(Debug, Clone)]
pub struct Config {
    /// Models by name.
    pub models: BTreeMap<ModelName, Place>,
    /// Labels of their versions.
    pub labels: BTreeMap<ModelName, BTreeMap<String, Version>>,
    /// A folder of models to load on demand.
    pub repository: Option<PathBuf>,
    /// Who may load and unload.
    pub control: Control,
    /// Memory for each model.
    pub memory_bytes: Option<u64>,
    /// Processor time for each model, in thousandths of a core.
    pub cpu_milli: Option<u32>,
    /// Where the HTTP doors open.
    pub listen: SocketAddr,
    /// Where the gRPC door opens.
    pub grpc: Option<SocketAddr>,
    /// Where to say that all is ready.
    pub ready_file: Option<PathBuf>,
    /// Write a line for each request.
    pub access_log: bool,
    /// How often to look for new versions; none: once.
    pub poll: Option<Duration>,
    /// How long an answer may take.
    pub deadline: Option<Duration>,
    /// How long a model may take to be loaded.
    pub load_deadline: Duration,
    /// Whether requests may run together.
    pub batching: bool,
    /// Flags that were given and mean nothing.
    pub ignored: Vec<&'static str>,
}

/// Where the versions of a model come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// These files.
    Files(BTreeMap<Version, PathBuf>),
    /// A folder with a folder for each version; the highest is served.
    Folder(PathBuf),
}

impl Serve {
    /// Puts the flags together.
    pub fn config(self) -> anyhow::Result<Config> {
        // One engine so far: both names mean it.
        let (Engine::Auto | Engine::Tract) = self.engine;
        let mut models: BTreeMap<ModelName, Place> = BTreeMap::new();
        let base_path = self.model_base_path.clone();
        let base = match (self.model_name, self.model_base_path) {
            (name, Some(path)) => {
                // TF Serving's own default name.
                let name = name.map_or_else(|| "default".parse().context("a name"), Ok)?;
                Some(ModelArg { name, path, version: None })
            }
            (Some(name), None) => bail!("--model_name {name} names no folder; add --model_base_path DIR"),
            (None, None) => None,
        };
        for ModelArg { name, path, version } in self.models.into_iter().chain(base) {
            // TF Serving waits for a base path that is not there yet.
            if path.is_dir() || base_path.as_ref() == Some(&path) {
                if let Some(version) = version {
                    bail!("{}: a folder has versions of its own; leave @{version} out", path.display());
                }
                if models.insert(name.clone(), Place::Folder(path)).is_some() {
                    bail!("model {name} is given twice");
                }
                continue;
            }
            if !path.exists() && base_path.as_ref() != Some(&path) {
                // `@` behind a path is a version only where a number follows.
                bail!("--model {name}: there is no file or folder {}; write PATH or PATH@VERSION", path.display());
            }
            let version = version.or(Version::new(1)).context("1 is a version")?;
            match models.entry(name.clone()).or_insert_with(|| Place::Files(BTreeMap::new())) {
                Place::Files(files) if !files.contains_key(&version) => drop(files.insert(version, path)),
                _ => bail!("model {name} is given twice in version {version}"),
            }
        }
        if let Some(other) = self.refused.next_move() {
            bail!("{other}");
        }
        if models.is_empty() && self.model_repository.is_none() {
            bail!("nothing to serve; add --model NAME=PATH, or --model_name NAME --model_base_path DIR");
        }
        if self.model_repository.is_some() && self.model_control == Control::None {
            bail!("--model-repository is loaded on demand; add --model-control explicit");
        }
        if let Some(memory) = self.memory.filter(|memory| memory.0 < MEMORY_BYTES_MIN) {
            bail!("--memory {memory}: no model runs in so little; give at least {}", Bytes(MEMORY_BYTES_MIN));
        }
        let mut labels: BTreeMap<ModelName, BTreeMap<String, Version>> = BTreeMap::new();
        for LabelArg { name, label, version } in self.labels {
            match models.get(&name) {
                None => bail!("--label {name}:{label}={version}: there is no model {name}"),
                Some(Place::Files(files)) if !files.contains_key(&version) => {
                    bail!("--label {name}:{label}={version}: model {name} is not given in version {version}")
                }
                Some(_) => {}
            }
            labels.entry(name).or_default().insert(label, version);
        }
        let listen = address("--listen", self.listen, "--rest_api_port", self.rest_api_port)?;
        Ok(Config {
            models,
            labels,
            repository: self.model_repository,
            control: self.model_control,
            memory_bytes: self.memory.map(|memory| memory.0),
            cpu_milli: self.cpu,
            listen: listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8501))),
            grpc: address("--grpc", self.grpc, "--port", self.port)?,
            ready_file: self.ready_file,
            access_log: self.access_log,
            poll: u64::try_from(self.poll_seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs),
            deadline: self.timeout_ms.filter(|ms| *ms > 0).map(Duration::from_millis),
            load_deadline: Duration::from_millis(self.load_timeout_ms.max(1)),
            batching: self.enable_batching,
            ignored: self.ignored.given(),
        })
    }
}

fn address(
    flag: &str,
    given: Option<SocketAddr>,
    port_flag: &str,
    port: Option<u16>,
) -> anyhow::Result<Option<SocketAddr>> {
    let address = match (given, port) {
        (Some(_), Some(_)) => bail!("{flag} and {port_flag} say the same; leave one out"),
        // TF Serving listens everywhere. Nobody is asked who they are here, so it stays on this machine.
        // TF Serving's 0 means that the door stays closed.
        (None, port) => port.filter(|port| *port != 0).map(|port| SocketAddr::from(([127, 0, 0, 1], port))),
        (given, None) => given,
    };
    if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
        bail!("{flag} {address}: the doors have no login, so they stay on a loopback address; put a proxy before them");
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: Serve,
    }

    fn config(line: &str) -> Result<Config, String> {
        let line = Line::try_parse_from(std::iter::once("serve").chain(line.split_whitespace()));
        line.map_err(|error| error.to_string())?.serve.config().map_err(|error| format!("{error:#}"))
    }

    fn version(number: u64) -> Version {
        Version::new(number).expect("positive")
    }

    #[test]
    fn a_start_script_of_tf_serving_works_with_the_programs_name_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().display();
        let line = format!(
            "--port=8500 --rest_api_port=8501 --model_name=half_plus_two --model_base_path={path} \
             --enable_batching=true --enable_batching --tensorflow_intra_op_parallelism=2"
        );
        // A flag that is given twice is an error of clap's own; TF Serving takes the last.
        let line = line.replace(" --enable_batching ", " ");
        let config = config(&line).expect("a configuration");
        assert_eq!(config.listen, SocketAddr::from(([127, 0, 0, 1], 8501)));
        assert_eq!(config.grpc, Some(SocketAddr::from(([127, 0, 0, 1], 8500))));
        let name: ModelName = "half_plus_two".parse().expect("a name");
        assert_eq!(config.models[&name], Place::Folder(folder.path().to_owned()));
        assert_eq!((config.batching, &config.ignored[..]), (true, &["tensorflow_intra_op_parallelism"][..]));
    }

    #[test]
    fn models_versions_and_labels_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, two] = ["a@b.onnx", "c.onnx"].map(|file| folder.path().join(file));
        for file in [&one, &two] {
            std::fs::write(file, b"x").expect("a file");
        }
        let line = format!("--model m={} --model m={}@2 --label m:stable=1 --cpu 250", one.display(), two.display());
        let config = config(&line).expect("a configuration");
        assert_eq!(config.cpu_milli, Some(250));
        let name: ModelName = "m".parse().expect("a name");
        let files = BTreeMap::from([(version(1), one), (version(2), two)]);
        assert_eq!(config.models[&name], Place::Files(files));
        assert_eq!(config.labels[&name], BTreeMap::from([("stable".to_owned(), version(1))]));
    }

    #[test]
    fn mistakes_are_told_with_the_next_move() {
        for (line, part) in [
            ("", "--model NAME=PATH"),
            ("--model m", "NAME=PATH"),
            ("--model m=", "the path is missing"),
            ("--model m/n=a", "m/n"),
            ("--model m=/dev/null --model m=/dev/null", "twice in version 1"),
            ("--model m=/dev/null@x", "PATH@VERSION"),
            ("--model m=/dev/null --model_config_file x", "--model NAME=DIR"),
            ("--model m=/dev/null --label m:x=9", "not given in version 9"),
            ("--model m=/dev/null --memory 1Ki", "at least 1Mi"),
            ("--model m=/dev/null --cpu 0", "thousandths"),
            ("--model m=/dev/null --cpu 0.5", "thousandths"),
            ("--model m=a@0", "version"),
            ("--model m=/dev/null --label n:x=1", "no model n"),
            ("--model m=/dev/null --label m:=1", "no label"),
            ("--model m=/dev/null --listen 0.0.0.0:1", "loopback"),
            ("--model m=/dev/null --listen 127.0.0.1:1 --rest_api_port 1", "leave one out"),
            ("--model_name m", "--model_base_path"),
            ("--model-repository x", "--model-control explicit"),
            ("--model m=/dev/null --memory lots", "lots"),
        ] {
            let error = config(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
