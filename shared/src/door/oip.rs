//! The paths of the Open Inference Protocol, version 2, and of Triton's extensions to it
//! (github.com/triton-inference-server/server, `docs/protocol` and `src/http_server.cc`).

use super::VersionChoice;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Does the server run?
    Live,
    /// Can it answer for everything that it shall serve?
    Ready,
    /// What it is, and which extensions it knows.
    ServerMetadata,
    /// Does the model answer?
    ModelReady(Model<'a>),
    /// What the model takes and gives.
    ModelMetadata(Model<'a>),
    /// The same, as Triton's configuration files tell it.
    ModelConfig(Model<'a>),
    /// Run the model.
    Infer(Model<'a>),
    /// What was counted of the model, or of all. [`VersionChoice::Latest`] means every version here.
    Statistics(Option<Model<'a>>),
    /// Which models there are.
    Index,
    /// Load a model.
    Load(&'a str),
    /// Unload a model.
    Unload(&'a str),
    /// The regions of memory that are shared with callers: there never are any.
    SharedMemoryStatus,
    /// What Triton has and we do not, in its own words.
    Absent(&'static str),
}

/// A model, as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model<'a> {
    /// Its name.
    pub name: &'a str,
    /// Which version.
    pub version: VersionChoice,
}

/// Why a path asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It is no path of the protocol's.
    #[error("the Open Inference Protocol has no path {0}")]
    Unknown(String),
    /// It is one, but not with this method.
    #[error("{path} takes {allowed}")]
    Method {
        /// The path.
        path: String,
        /// What it takes.
        allowed: &'static str,
    },
    /// A version that is no number.
    #[error("{0:?} is no version: use a positive 64-bit integer")]
    Version(String),
}

/// Of a path that is not understood, so much is told.
const PATH_CHARS_MAX: usize = 120;

/// Whether a path belongs to the protocol at all.
pub fn is_ours(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// Reads the method and the path of a request.
pub fn parse<'a>(method: &str, path: &'a str) -> Result<Request<'a>, BadPath> {
    let unknown = || BadPath::Unknown(shortened(path));
    let rest = path.strip_prefix("/v2").ok_or_else(unknown)?;
    // Triton's clients ask for `/v2/`, too.
    let rest = if rest == "/" { "" } else { rest };
    let parts: Vec<&str> = rest.split('/').collect();
    if !parts[0].is_empty() {
        return Err(unknown());
    }
    let (request, allowed) = match parts[1..] {
        [] => (Request::ServerMetadata, GET),
        ["health", "live"] => (Request::Live, GET),
        ["health", "ready"] => (Request::Ready, GET),
        ["models", "stats"] => (Request::Statistics(None), GET),
        ["models", "", ..] => return Err(unknown()),
        ["models", name] => (Request::ModelMetadata(Model::latest(name)), GET),
        ["models", name, "versions", version] => (Request::ModelMetadata(Model::of(name, version)?), GET),
        ["models", name, "versions", version, kind] => of_model(Model::of(name, version)?, kind).ok_or_else(unknown)?,
        ["models", name, kind] => of_model(Model::latest(name), kind).ok_or_else(unknown)?,
        ["repository", "index"] | ["repository", _, "index"] => (Request::Index, POST),
        ["repository", "models", name, action] | ["repository", _, "models", name, action] if !name.is_empty() => {
            match action {
                "load" => (Request::Load(name), POST),
                "unload" => (Request::Unload(name), POST),
                _ => return Err(unknown()),
            }
        }
        ["systemsharedmemory" | "cudasharedmemory", .., "status"] => (Request::SharedMemoryStatus, GET),
        ["systemsharedmemory" | "cudasharedmemory", .., "register" | "unregister"] => {
            (Request::Absent("shared memory"), ANY)
        }
        ["trace", "setting"] | ["models", _, "trace", "setting"] => (Request::Absent("trace settings"), ANY),
        ["logging"] => (Request::Absent("log settings"), ANY),
        _ => return Err(unknown()),
    };
    let fits = match allowed {
        GET => matches!(method, "GET" | "HEAD"),
        POST => method == "POST",
        _ => true,
    };
    if fits { Ok(request) } else { Err(BadPath::Method { path: shortened(path), allowed }) }
}

const GET: &str = "GET";
const POST: &str = "POST";
const ANY: &str = "GET or POST";

fn of_model<'a>(model: Model<'a>, kind: &str) -> Option<(Request<'a>, &'static str)> {
    Some(match kind {
        "infer" => (Request::Infer(model), POST),
        "ready" => (Request::ModelReady(model), GET),
        "config" => (Request::ModelConfig(model), GET),
        "stats" => (Request::Statistics(Some(model)), GET),
        "generate" | "generate_stream" => (Request::Absent("text generation"), ANY),
        _ => return None,
    })
}

fn shortened(path: &str) -> String {
    path.chars().take(PATH_CHARS_MAX).collect()
}

impl<'a> Model<'a> {
    /// The highest version that answers.
    pub fn latest(name: &'a str) -> Self {
        Self { name, version: VersionChoice::Latest }
    }

    /// A version as it is written; an empty one means the highest.
    pub fn of(name: &'a str, version: &str) -> Result<Self, BadPath> {
        if version.is_empty() {
            return Ok(Self::latest(name));
        }
        let version = version.parse().map_err(|_| BadPath::Version(shortened(version)))?;
        Ok(Self { name, version: VersionChoice::Version(version) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Version;

    fn m() -> Model<'static> {
        Model::latest("m")
    }

    fn m3() -> Model<'static> {
        let version = Version::new(3).expect("positive");
        Model { name: "m", version: VersionChoice::Version(version) }
    }

    #[test]
    fn every_path_of_the_protocol_is_understood() {
        let get = [
            ("/v2", Request::ServerMetadata),
            ("/v2/", Request::ServerMetadata),
            ("/v2/health/live", Request::Live),
            ("/v2/health/ready", Request::Ready),
            ("/v2/models/m", Request::ModelMetadata(m())),
            ("/v2/models/m/ready", Request::ModelReady(m())),
            ("/v2/models/m/config", Request::ModelConfig(m())),
            ("/v2/models/m/stats", Request::Statistics(Some(m()))),
            ("/v2/models/stats", Request::Statistics(None)),
            ("/v2/models/m/versions/3", Request::ModelMetadata(m3())),
            ("/v2/models/m/versions/3/ready", Request::ModelReady(m3())),
            ("/v2/models/m/versions/3/config", Request::ModelConfig(m3())),
            ("/v2/models/m/versions/3/stats", Request::Statistics(Some(m3()))),
            ("/v2/systemsharedmemory/status", Request::SharedMemoryStatus),
            ("/v2/cudasharedmemory/region/r/status", Request::SharedMemoryStatus),
        ];
        for (path, request) in get {
            assert_eq!(parse("GET", path), Ok(request.clone()), "{path}");
            assert_eq!(parse("HEAD", path), Ok(request), "{path}");
            assert!(matches!(parse("POST", path), Err(BadPath::Method { allowed: "GET", .. })), "{path}");
        }
        let post = [
            ("/v2/models/m/infer", Request::Infer(m())),
            ("/v2/models/m/versions/3/infer", Request::Infer(m3())),
            ("/v2/models/stats/infer", Request::Infer(Model::latest("stats"))),
            ("/v2/repository/index", Request::Index),
            ("/v2/repository/any/index", Request::Index),
            ("/v2/repository/models/m/load", Request::Load("m")),
            ("/v2/repository/models/m/unload", Request::Unload("m")),
            ("/v2/repository/any/models/m/load", Request::Load("m")),
        ];
        for (path, request) in post {
            assert_eq!(parse("POST", path), Ok(request), "{path}");
            assert!(matches!(parse("GET", path), Err(BadPath::Method { allowed: "POST", .. })), "{path}");
        }
        let absent = [
            "/v2/logging",
            "/v2/trace/setting",
            "/v2/models/m/trace/setting",
            "/v2/models/m/generate",
            "/v2/cudasharedmemory/region/r/register",
            "/v2/systemsharedmemory/unregister",
        ];
        for path in absent {
            assert!(matches!(parse("POST", path), Ok(Request::Absent(_))), "{path}");
        }
    }

    #[test]
    fn other_paths_are_not() {
        for path in [
            "/",
            "",
            "/v1/models/m",
            "/v2x",
            "/v2/models",
            "/v2/models/",
            "/v2/models//infer",
            "/v2/models/m/",
            "/v2/models/m/other",
            "/v2/models/m/versions",
            "/v2/models/m/infer/more",
            "/v2/health",
            "/v2/repository/models//load",
            "/v2/repository/models/m/reload",
        ] {
            assert!(matches!(parse("GET", path), Err(BadPath::Unknown(_))), "{path}: {:?}", parse("GET", path));
        }
        for version in ["0", "-1", "latest", "99999999999999999999"] {
            let path = format!("/v2/models/m/versions/{version}/infer");
            assert_eq!(parse("POST", &path), Err(BadPath::Version(version.into())));
        }
        assert!(is_ours("/v2") && is_ours("/v2/x") && !is_ours("/v2x") && !is_ours("/v1/models"));
    }
}
