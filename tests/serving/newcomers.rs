//! What the first users and reviewers of `muster-agent serve` stumbled over.

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use muster_tests::programs;
use muster_tests::serving::{Client, endless, is_times, request, row, times, together};
use muster_world::{DEADLINE, Process, Running, Server, signal, until};
use serde_json::{Value, json};

#[test]
fn labels_survive_an_unload() -> Result<()> {
    let flags = ["--model", "double={}/double.onnx", "--label", "double:stable=1", "--model-control", "explicit"];
    let server =
        Server::start(&programs()?, &flags, |folder| Ok(std::fs::write(folder.join("double.onnx"), times(2.0))?))?;
    let mut client = Client::new(server.door());
    for order in ["unload", "load"] {
        let done = client.post(&format!("/v2/repository/models/double/{order}"), b"{}")?;
        assert_eq!(done.status, 200, "{}", done.json());
    }
    let answer = client.post("/v1/models/double/labels/stable:predict", request(&row(1)).as_bytes())?;
    assert!(is_times(2.0, &row(1), &answer.json()), "{}", answer.json());
    Ok(())
}

#[test]
fn a_bare_name_for_the_ready_file_is_enough_and_tells_what_cannot_be_served() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("good.onnx"), times(2.0))?;
    std::fs::write(folder.path().join("broken.onnx"), b"no model at all")?;
    std::fs::create_dir(folder.path().join("empty"))?;
    let mut command = Command::new(programs()?.agent);
    command.current_dir(folder.path()).args(["serve", "--listen", "127.0.0.1:0", "--ready-file", "ready.json"]);
    command.args(["--model", "good=good.onnx", "--model", "broken=broken.onnx", "--model", "empty=empty"]);
    let mut server = Running::start("muster-agent serve", &mut command, folder.path().join("log"))?;
    let ready: Value = server.ready(&folder.path().join("ready.json"), DEADLINE)?;
    let failed: Vec<&String> = ready["failed"].as_object().map(|failed| failed.keys().collect()).unwrap_or_default();
    assert_eq!(failed, ["broken", "empty"], "{ready}");
    server.check()?;
    let mut client = Client::new(ready["door"].as_str().unwrap_or_default());
    assert!(is_times(2.0, &row(1), &client.post("/v1/models/good:predict", request(&row(1)).as_bytes())?.json()));
    for (model, why) in [("broken", "cannot load the model"), ("empty", "no folder whose name is a version")] {
        let answer = client.post(&format!("/v1/models/{model}:predict"), request(&row(1)).as_bytes())?;
        let text = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 503 && text.contains(why), "{}: {text}", answer.status);
    }
    let not_ready = client.get("/readyz")?;
    assert_eq!((not_ready.status, client.get("/healthz")?.status), (503, 200));
    Ok(())
}

#[test]
fn an_asker_may_say_how_long_it_waits() -> Result<()> {
    const SIZE: usize = 256;
    let server = Server::start(&programs()?, &["--model", "slow={}/slow.onnx"], |folder| {
        Ok(std::fs::write(folder.join("slow.onnx"), endless(SIZE, 200))?)
    })?;
    let body = json!({ "instances": vec![vec![1; SIZE]; 400] }).to_string();
    let mut client = Client::new(server.door());
    let mut ask = |deadline: &str| {
        let head = format!("Muster-Deadline-Ms: {deadline}\r\nContent-Length: {}\r\n", body.len());
        client.send(format!("POST /v1/models/slow:predict HTTP/1.1\r\nHost: localhost\r\n{head}\r\n{body}").as_bytes())
    };
    assert_eq!(ask("1")?.status, 504);
    assert_eq!(ask("soon")?.status, 400);
    assert_eq!(ask("60000")?.status, 200);
    Ok(())
}

#[test]
fn the_access_log_tells_of_strangers_too() -> Result<()> {
    let server = Server::start(&programs()?, &["--access-log", "--model", "double={}/double.onnx"], |folder| {
        Ok(std::fs::write(folder.join("double.onnx"), times(2.0))?)
    })?;
    let mut client = Client::new(server.door());
    let stranger = client.send(b"GET /v1/models/double HTTP/1.1\r\nHost: evil.example\r\n\r\n")?;
    assert_eq!(stranger.status, 403);
    until("the line in the log", DEADLINE, || {
        let log = std::fs::read_to_string(server.log())?;
        Ok(log.lines().any(|line| line.contains("/v1/models/double") && line.contains("403")).then_some(()))
    })
}

#[test]
fn the_old_version_serves_on_over_a_crash_while_the_new_one_is_broken() -> Result<()> {
    let flags = ["--model_name", "m", "--model_base_path", "{}/m"];
    let server = Server::start(&programs()?, &flags, |folder| {
        std::fs::create_dir_all(folder.join("m/2"))?;
        Ok(std::fs::write(folder.join("m/2/model.onnx"), times(2.0))?)
    })?;
    let worker = server.workers()?.pop().expect("a worker");
    let broken = server.folder().join("m/10");
    std::fs::create_dir(&broken)?;
    std::fs::write(broken.join("model.onnx"), b"no model at all")?;
    until("the new version to have failed", DEADLINE, || {
        Ok(std::fs::read_to_string(server.log())?.contains("a version cannot be loaded").then_some(()))
    })?;
    signal(worker.id, "-KILL")?;
    let mut client = Client::new(server.door());
    until("the old version to answer again", DEADLINE, || {
        let answer = client.post("/v1/models/m:predict", request(&row(1)).as_bytes())?;
        Ok((answer.status == 200 && answer.version == Some(2)).then_some(()))
    })
}

#[test]
fn who_never_reads_does_not_keep_the_server_from_ending() -> Result<()> {
    let mut server = Server::start(&programs()?, &["--model", "double={}/double.onnx"], |folder| {
        Ok(std::fs::write(folder.join("double.onnx"), times(2.0))?)
    })?;
    let address = server.door().trim_start_matches("http://").to_owned();
    let ask = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").repeat(2000);
    let mut deaf = std::net::TcpStream::connect(&address)?;
    deaf.set_write_timeout(Some(Duration::from_secs(1)))?;
    // It ends when neither side takes any more.
    let _ = deaf.write_all(ask.as_bytes());
    server.check()?;
    let process = Process::read(server.id()).expect("the server");
    signal(process.id, "-TERM")?;
    until("the server to end", DEADLINE, || Ok((!process.lives()).then_some(())))?;
    drop(deaf);
    Ok(())
}

#[test]
fn slow_models_run_together_too() -> Result<()> {
    const SIZE: usize = 384;
    let server = Server::start(&programs()?, &["--model", "slow={}/slow.onnx"], |folder| {
        Ok(std::fs::write(folder.join("slow.onnx"), endless(SIZE, 200))?)
    })?;
    let body = json!({ "instances": [vec![1; SIZE]] }).to_string();
    std::thread::scope(|scope| {
        let ask = || -> Result<()> {
            let mut client = Client::new(server.door());
            for _ in 0..10 {
                let answer = client.post("/v1/models/slow:predict", body.as_bytes())?;
                anyhow::ensure!(answer.status == 200, "{}", answer.json());
            }
            Ok(())
        };
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().try_for_each(|client| client.join().unwrap_or_else(|_| anyhow::bail!("a client panicked")))
    })?;
    let together = together(server.door(), "slow")?;
    println!("{together:.1} requests in a run of a slow model");
    assert!(together > 2.0);
    Ok(())
}
