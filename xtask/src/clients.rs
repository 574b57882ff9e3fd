//! The clients that people have: Triton's own in Python, and what TF Serving's do, against
//! `muster-agent serve`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use muster_world::{Programs, Server};

use crate::{build, setup, shell};

/// Asks with every client.
pub fn check() -> anyhow::Result<()> {
    let clients = shell::project().join("tests/clients");
    let python = setup::environment("clients", &clients.join("requirements.txt"))?;
    let programs = build::programs()?;
    triton(&programs, &python, &clients)?;
    tf_serving(&programs, &python, &clients)
}

fn triton(programs: &Programs, python: &Path, clients: &Path) -> anyhow::Result<()> {
    let shapes = shell::project().join("tests/models/shapes");
    let mut models: BTreeMap<String, [&str; 1]> = BTreeMap::new();
    let mut flags = vec!["--grpc=127.0.0.1:0".to_owned(), "--model-control=explicit".to_owned()];
    for entry in std::fs::read_dir(&shapes)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).context("a model's name")?.to_owned();
        if path.extension().is_some_and(|extension| extension == "onnx") {
            flags.push(format!("--model={name}={}", path.display()));
            models.insert(name, ["1"]);
        }
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Server::start(programs, &flags, |_| Ok(()))?;
    let told = serde_json::json!({ "models": models, "control": true, "loadable": "fixed" });
    let models = server.folder().join("models.json");
    std::fs::write(&models, told.to_string())?;
    let mut command = Command::new(python);
    command.arg(clients.join("triton.py")).arg("--models").arg(models);
    command.args(["--http", server.door().trim_start_matches("http://")]);
    command.args(["--grpc", server.grpc().context("the gRPC door is closed")?]);
    shell::run(&mut command).context("tritonclient found something")
}

fn tf_serving(programs: &Programs, python: &Path, clients: &Path) -> anyhow::Result<()> {
    let models = shell::project().join("tests/models");
    let of = |name: &str, version: u32| {
        format!("--model={name}={}/{name}/v{version}/model.onnx@{version}", models.display())
    };
    let flags = [of("linear_regression", 1), of("linear_regression", 2), of("digits", 1)];
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["--label=linear_regression:stable=1", "--label=linear_regression:canary=2"]);
    let server = Server::start(programs, &flags, |_| Ok(()))?;
    let mut command = Command::new(python);
    command.arg(clients.join("tf_serving.py")).arg(server.door());
    command.args(["--label", "stable=1", "--label", "canary=2"]);
    shell::run(&mut command).context("a client of TF Serving's found something")
}
