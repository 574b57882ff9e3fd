//! What a model notices of another one that misbehaves in the same server, on the same core: its 99th
//! percentile, beside a run in which the other does nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use muster_load::{Load, ask, drive, on_core};
use muster_world::handmade::{COLUMNS, endless, hungry, times};
use serde_json::json;

use super::figures::median;
use super::process::{Served, free_address};
use super::servers::Server;
use super::visit::{Bench, Times};
use crate::bench::{Goal, Row, compared};

/// How much the 99th percentile may grow.
const GROWTH_MAX: f64 = 2.0;
/// Connections that ask the model that is measured.
const CONNECTIONS: usize = 1;
/// The server's bounds for each model: the misbehaving ones run into them.
const FLAGS: [&str; 2] = ["--memory=64Mi", "--rest_api_timeout_in_ms=2000"];
/// How long the misbehaving one may take to be told that it failed.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Between two requests that the misbehaving one does not survive.
const PAUSE: Duration = Duration::from_millis(100);
/// Numbers in a row of the endless model.
const ENDLESS_COLUMNS: usize = 256;

/// What the other model does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    Nothing,
    NeverReturns,
    AllocatesWithoutEnd,
}

/// Measures so many rounds and compares their medians.
pub fn rows(bench: &Bench, server: &Server, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir().context("cannot make a folder for the server")?;
    let path = |name: &str| folder.path().join(format!("{name}.onnx"));
    std::fs::write(path("steady"), times(2.0))?;
    std::fs::write(path("endless"), endless(ENDLESS_COLUMNS, 400))?;
    std::fs::write(path("hungry"), hungry(256 << 10))?;
    let mut millis = [vec![], vec![], vec![]];
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}: a model beside one that misbehaves");
        for (other, measured) in
            [Other::Nothing, Other::NeverReturns, Other::AllocatesWithoutEnd].into_iter().zip(&mut millis)
        {
            measured.push(beside(bench, server, other, folder.path())?.as_secs_f64() * 1000.0);
        }
    }
    let [nothing, endless, hungry] = millis.map(|millis| median(millis.into_iter()).unwrap_or(f64::NAN));
    let row = |name: &str, ours: f64| {
        compared(name.to_owned(), Some(ours), Some(nothing), Goal::AtMost(GROWTH_MAX), String::new())
    };
    Ok(vec![
        row("p99 ms beside a model that never returns, vs beside an idle one", endless),
        row("p99 ms beside a model that allocates without end, vs beside an idle one", hungry),
    ])
}

fn beside(bench: &Bench, server: &Server, other: Other, folder: &Path) -> anyhow::Result<Duration> {
    let (server_core, load_core) = bench.cores;
    let mut served = on_core(server_core, || {
        let address = free_address()?;
        let models =
            ["steady", "endless", "hungry"].map(|name| format!("--model={name}={}/{name}.onnx", folder.display()));
        let mut command = server.plain_command(address);
        command.args(models).args(FLAGS);
        Served::start("muster-agent serve", &mut command, address, folder.join("log"))
    })?;
    let address = served.address;
    let steady = request(address, "steady", &json!([vec![1; COLUMNS]]));
    let answers = |request: &[u8]| -> anyhow::Result<()> {
        let answer = ask(address, request, ANSWER_DEADLINE)?;
        anyhow::ensure!(answer.status == 200, "answered {}", answer.status);
        Ok(())
    };
    for model in [&steady, &request(address, "endless", &json!([vec![1; ENDLESS_COLUMNS]]))] {
        served.until(|| answers(model))?;
    }
    let misbehave = match other {
        Other::Nothing => None,
        Other::NeverReturns => Some(request(address, "endless", &json!(vec![vec![1; ENDLESS_COLUMNS]; 8000]))),
        Other::AllocatesWithoutEnd => Some(request(address, "hungry", &json!(vec![vec![1; COLUMNS]; 1000]))),
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if let Some(misbehave) = &misbehave {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // It fails, that is what it is for.
                    let _ = ask(address, misbehave, ANSWER_DEADLINE);
                    std::thread::sleep(PAUSE);
                }
            });
        }
        let Times { warm_up, duration } = bench.times;
        let load = Load { address, request: &steady, connections: CONNECTIONS, warm_up, duration };
        let measured = on_core(load_core, || drive(&load, &|| Ok(Duration::ZERO)));
        stop.store(true, Ordering::Relaxed);
        let measured = measured?;
        anyhow::ensure!(measured.refused == 0, "{} requests were refused", measured.refused);
        Ok(measured.percentile(0.99))
    })
}

fn request(address: SocketAddr, model: &str, instances: &serde_json::Value) -> Vec<u8> {
    let body = json!({ "instances": instances }).to_string();
    let length = body.len();
    format!("POST /v1/models/{model}:predict HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into()
}
