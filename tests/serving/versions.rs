//! Versions that come and go under load.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use muster_tests::serving::{Client, is_times, request, row, times};
use muster_tests::{programs, tenth_or_whole};
use muster_world::{DEADLINE, Server, resident_bytes, until};

const CLIENTS: usize = 8;
const SWITCHES: usize = 100;
const ROUNDS: usize = 1000;
/// Rounds after which memory is looked at for the first time: by then what is kept for ever is there.
const ROUNDS_TO_SETTLE: usize = 20;
/// How much more memory there may be after all rounds.
const GROWTH_MAX: f64 = 1.05;

/// Version n multiplies by n.
fn put_version(folder: &Path, version: usize) -> Result<()> {
    let (coming, place) = (folder.join("coming"), folder.join(version.to_string()));
    std::fs::create_dir_all(&coming)?;
    std::fs::write(coming.join("model.onnx"), times(version as f32))?;
    Ok(std::fs::rename(coming, place)?)
}

/// Clients that ask as fast as they are answered, `pause` between. Returns how many were answered rightly.
fn ask_until(stop: &AtomicBool, door: &str, pause: Duration, failed: &Mutex<Vec<String>>, answered: &AtomicUsize) {
    let mut client = Client::new(door);
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        number = (number + 1) % 1_000_000;
        let row = row(number);
        let outcome = client.post("/v1/models/m:predict", request(&row).as_bytes()).and_then(|answer| {
            let version = answer.version.with_context(|| format!("status {}", answer.status))?;
            ensure!(answer.status == 200, "status {}: {}", answer.status, answer.json());
            ensure!(is_times(version as f32, &row, &answer.json()), "version {version} answered {}", answer.json());
            Ok(())
        });
        match outcome {
            Ok(()) => drop(answered.fetch_add(1, Ordering::SeqCst)),
            Err(error) => failed.lock().expect("the list").push(format!("{error:#}")),
        }
        std::thread::sleep(pause);
    }
}

#[test]
fn versions_switch_under_load_and_no_request_fails() -> Result<()> {
    let switches = tenth_or_whole(SWITCHES);
    let flags = ["--model_name", "m", "--model_base_path", "{}/m"];
    let server = Server::start(&programs()?, &flags, |folder| put_version(&folder.join("m"), 1))?;
    let (door, base) = (server.door().to_owned(), server.folder().join("m"));
    let run = |pause: Duration, meanwhile: &dyn Fn() -> Result<()>| -> Result<(f64, Vec<String>)> {
        let (stop, failed, answered) = (AtomicBool::new(false), Mutex::new(vec![]), AtomicUsize::new(0));
        let began = Instant::now();
        let done = std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| ask_until(&stop, &door, pause, &failed, &answered));
            }
            let done = meanwhile();
            stop.store(true, Ordering::SeqCst);
            done
        });
        done?;
        let rate = answered.load(Ordering::SeqCst) as f64 / began.elapsed().as_secs_f64();
        Ok((rate, failed.into_inner().expect("the list")))
    };
    let (saturation, failed) = run(Duration::ZERO, &|| {
        // Saturation is a rate over a time: there is no condition to wait for.
        std::thread::sleep(Duration::from_secs(2));
        Ok(())
    })?;
    assert_eq!(failed, Vec::<String>::new());
    let (rate, failed) = run(Duration::ZERO, &|| {
        let mut client = Client::new(&door);
        for version in 2..=switches + 1 {
            put_version(&base, version)?;
            until(&format!("version {version} to answer"), DEADLINE, || {
                let answer = client.post("/v1/models/m:predict", request(&row(1)).as_bytes())?;
                Ok((answer.version == Some(version as u64)).then_some(()))
            })?;
            std::fs::remove_dir_all(base.join((version - 1).to_string()))?;
        }
        Ok(())
    })?;
    println!(
        "{switches} switches at {rate:.0} requests/s, {:.0} % of what was answered without ({saturation:.0}/s); {} failed",
        100.0 * rate / saturation,
        failed.len()
    );
    assert_eq!(failed, Vec::<String>::new());
    Ok(())
}

#[test]
fn memory_comes_back_after_models_were_loaded_and_unloaded() -> Result<()> {
    let rounds = tenth_or_whole(ROUNDS);
    let flags = ["--model-repository", "{}/models", "--model-control", "explicit", "--model", "steady={}/steady.onnx"];
    let server = Server::start(&programs()?, &flags, |folder| {
        std::fs::write(folder.join("steady.onnx"), times(3.0))?;
        put_version(&folder.join("models/coming-and-going"), 2)
    })?;
    let mut client = Client::new(server.door());
    let (mut settled, mut last) = (0, 0);
    for round in 1..=rounds {
        let loaded = client.post("/v2/repository/models/coming-and-going/load", b"{}")?;
        ensure!(loaded.status == 200, "{}", loaded.json());
        let answer = client.post("/v1/models/coming-and-going:predict", request(&row(round)).as_bytes())?;
        ensure!(is_times(2.0, &row(round), &answer.json()), "{}", answer.json());
        let unloaded = client.post("/v2/repository/models/coming-and-going/unload", b"{}")?;
        ensure!(unloaded.status == 200, "{}", unloaded.json());
        if round == ROUNDS_TO_SETTLE || round == rounds {
            until("the worker to end", DEADLINE, || Ok((server.workers()?.len() == 1).then_some(())))?;
            let bytes = resident_bytes(server.id())?;
            if round == ROUNDS_TO_SETTLE {
                settled = bytes;
            }
            last = bytes;
        }
    }
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    println!("{:.2} MiB after {ROUNDS_TO_SETTLE} rounds, {:.2} MiB after {rounds}", mib(settled), mib(last));
    assert!(last as f64 <= settled as f64 * GROWTH_MAX);
    let answer = client.post("/v1/models/steady:predict", request(&row(1)).as_bytes())?;
    assert!(is_times(3.0, &row(1), &answer.json()));
    Ok(())
}
