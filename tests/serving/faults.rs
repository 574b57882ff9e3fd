//! Workers that die, take all memory, or never return; and what the others notice of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use muster_tests::programs;
use muster_tests::serving::{Client, endless, hungry, is_times, request, row, times};
use muster_world::{DEADLINE, Server, signal, until};
use serde_json::json;

/// Times that a worker is killed; the time to serve again is the median.
const KILLS: usize = 5;
/// Must show: serving again within a second. A deadline here, ten times as long; the median is printed.
const SERVING_AGAIN_MAX: Duration = Duration::from_secs(10);

/// Asks a model all the time, as fast as it answers, and notes every answer that is not right.
fn watch(stop: &AtomicBool, door: &str, model: &str, factor: f32, wrong: &Mutex<Vec<(u16, String)>>) -> Result<usize> {
    let (mut client, mut number) = (Client::new(door), 0);
    while !stop.load(Ordering::SeqCst) {
        number = (number + 1) % 1_000_000;
        let answer = client.post(&format!("/v1/models/{model}:predict"), request(&row(number)).as_bytes())?;
        let body = answer.json();
        if !is_times(factor, &row(number), &body) {
            wrong.lock().expect("the list").push((answer.status, body.to_string()));
        }
    }
    Ok(number)
}

#[test]
fn a_killed_worker_costs_only_its_models_requests_under_way() -> Result<()> {
    let flags = ["--model", "double={}/double.onnx", "--model", "triple={}/triple.onnx"];
    let server = Server::start(&programs()?, &flags, |folder| {
        std::fs::write(folder.join("double.onnx"), times(2.0))?;
        Ok(std::fs::write(folder.join("triple.onnx"), times(3.0))?)
    })?;
    let (stop, doubles, triples) = (AtomicBool::new(false), Mutex::new(vec![]), Mutex::new(vec![]));
    let (door, mut took) = (server.door(), vec![]);
    std::thread::scope(|scope| -> Result<()> {
        let mut clients = vec![];
        for _ in 0..4 {
            clients.push(scope.spawn(|| watch(&stop, door, "double", 2.0, &doubles)));
            clients.push(scope.spawn(|| watch(&stop, door, "triple", 3.0, &triples)));
        }
        let killed = (|| {
            for kill in 0..KILLS {
                // A worker that has served for a while, as most have.
                let victim = worker_of(&server, "double")?;
                let killed_at = Instant::now();
                signal(victim, "-KILL")?;
                let mut client = Client::new(door);
                until("the model to answer again", SERVING_AGAIN_MAX, || {
                    let again = worker_of(&server, "double").is_ok_and(|worker| worker != victim);
                    let answer = client.post("/v1/models/double:predict", request(&row(kill)).as_bytes())?;
                    Ok((again && answer.status == 200).then_some(()))
                })?;
                took.push(killed_at.elapsed());
                // So that the next end is not one of a worker that has only just begun, which is started
                // again later and later.
                std::thread::sleep(if kill + 1 < KILLS { Duration::from_secs(11) } else { Duration::ZERO });
            }
            Ok(())
        })();
        stop.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().unwrap_or_else(|_| anyhow::bail!("a client panicked"))?;
        }
        killed
    })?;
    took.sort_unstable();
    println!("serving again after kill -9: {took:?}, median {:?}", took[KILLS / 2]);
    let (doubles, triples) = (doubles.into_inner()?, triples.into_inner()?);
    println!("{} requests of the killed model failed, {} of the other", doubles.len(), triples.len());
    assert_eq!(triples, []);
    // Each of the four clients has one request under way at most.
    assert!(doubles.len() <= 4 * KILLS, "{doubles:?}");
    let not_503: Vec<_> = doubles.iter().filter(|(status, _)| *status != 503).collect();
    assert!(not_503.is_empty(), "{not_503:?}");
    Ok(())
}

/// The process that holds a model: the only one whose memory the metrics name so. Told by what it reads.
fn worker_of(server: &Server, model: &str) -> Result<u32> {
    let log = std::fs::read_to_string(server.log())?;
    let worker = log.lines().rev().find(|line| line.contains("a version answers") && line.contains(model));
    let worker = worker.and_then(|line| line.split("process=").nth(1)).context("no worker is told in the log")?;
    Ok(worker.chars().take_while(char::is_ascii_digit).collect::<String>().parse()?)
}

#[test]
fn a_model_that_allocates_without_end_is_stopped_at_its_limit() -> Result<()> {
    const ROW_BYTES: usize = 256 << 10;
    let flags = ["--memory", "256Mi", "--model", "hungry={}/hungry.onnx", "--model", "double={}/double.onnx"];
    let server = Server::start(&programs()?, &flags, |folder| {
        std::fs::write(folder.join("double.onnx"), times(2.0))?;
        Ok(std::fs::write(folder.join("hungry.onnx"), hungry(ROW_BYTES))?)
    })?;
    let mut client = Client::new(server.door());
    let few = client.post("/v1/models/hungry:predict", request(&[1.0, 0.0, 0.0, 0.0]).as_bytes())?;
    assert_eq!(few.status, 200, "{}", few.json());
    let many = json!({ "instances": vec![row(1); 3000] }).to_string();
    let answer = client.post("/v1/models/hungry:predict", many.as_bytes())?;
    assert_eq!(answer.status, 500, "{}", answer.json());
    let other = client.post("/v1/models/double:predict", request(&row(7)).as_bytes())?;
    assert!(is_times(2.0, &row(7), &other.json()));
    until("the model to answer again", DEADLINE, || {
        let answer = client.post("/v1/models/hungry:predict", request(&[1.0, 0.0, 0.0, 0.0]).as_bytes())?;
        Ok((answer.status == 200).then_some(()))
    })?;
    let log = std::fs::read_to_string(server.log())?;
    assert!(log.contains("needs more than the 256Mi of memory"), "{log}");
    Ok(())
}

/// The allocator once kept pieces of earlier runs, until a model of large tensors broke its limit.
#[test]
fn what_a_run_takes_for_a_moment_comes_back() -> Result<()> {
    const ROW_BYTES: usize = 256 << 10;
    let flags = ["--memory", "64Mi", "--model", "hungry={}/hungry.onnx"];
    let server = Server::start(&programs()?, &flags, |folder| {
        Ok(std::fs::write(folder.join("hungry.onnx"), hungry(ROW_BYTES))?)
    })?;
    let mut client = Client::new(server.door());
    let rows = json!({ "instances": vec![row(1); 8] }).to_string();
    for number in 0..100 {
        let answer = client.post("/v1/models/hungry:predict", rows.as_bytes())?;
        assert_eq!(answer.status, 200, "request {number}: {}", answer.json());
    }
    Ok(())
}

#[test]
fn a_model_that_never_returns_is_stopped_at_its_deadline() -> Result<()> {
    const SIZE: usize = 256;
    let flags =
        ["--rest_api_timeout_in_ms=1000", "--model", "endless={}/endless.onnx", "--model", "double={}/double.onnx"];
    let server = Server::start(&programs()?, &flags, |folder| {
        std::fs::write(folder.join("double.onnx"), times(2.0))?;
        Ok(std::fs::write(folder.join("endless.onnx"), endless(SIZE, 400))?)
    })?;
    // So many rows would take minutes.
    let many = json!({ "instances": vec![vec![1; SIZE]; 8000] }).to_string();
    let began = Instant::now();
    let (stuck, others) = std::thread::scope(|scope| {
        let stuck = scope.spawn(|| Client::new(server.door()).post("/v1/models/endless:predict", many.as_bytes()));
        let mut client = Client::new(server.door());
        let mut others = vec![];
        while !stuck.is_finished() {
            let answer = client.post("/v1/models/double:predict", request(&row(others.len())).as_bytes());
            others.push(answer.is_ok_and(|answer| is_times(2.0, &row(others.len()), &answer.json())));
        }
        (stuck.join(), others)
    });
    let stuck = stuck.map_err(|_| anyhow::anyhow!("the client panicked"))??;
    assert_eq!(stuck.status, 504, "{}", stuck.json());
    println!("stopped after {:?}; meanwhile {} answers of another model", began.elapsed(), others.len());
    assert!(others.len() > 1 && others.iter().all(|right| *right));
    let mut client = Client::new(server.door());
    let one = json!({ "instances": [vec![1; SIZE]] }).to_string();
    until("the model to answer again", DEADLINE, || {
        let answer = client.post("/v1/models/endless:predict", one.as_bytes())?;
        Ok((answer.status == 200).then_some(()))
    })
}
