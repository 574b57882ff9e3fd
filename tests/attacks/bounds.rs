//! Bounds that somebody set: the protocol's, the device's owner's, and those of this machine's loopback.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use muster_shared::checks::Check;
use muster_tests::hostile::slot;

use crate::stage::{Ending, MODEL, OTHER, Stage};
use crate::{Attack, Play};

/// All of these.
pub const ATTACKS: &[Attack] = &[
    Attack { name: "two slots of one name", checks: &[Check::Slots], play: Play::Device(two_slots_of_one_name) },
    Attack {
        name: "more memory than the device's owner allows",
        checks: &[Check::OwnerLimits],
        play: Play::Device(more_memory_than_allowed),
    },
    Attack {
        name: "a page in a browser that reaches a loopback door",
        checks: &[Check::Origin],
        play: Play::Device(page_in_a_browser),
    },
    Attack {
        name: "a page whose own name was pointed at a loopback door",
        checks: &[Check::Origin],
        play: Play::Device(rebound_name),
    },
];

fn two_slots_of_one_name(stage: &mut Stage<'_>) -> Result<Ending> {
    let desired = stage.next(vec![stage.slot(1)?, stage.slot(1)?])?;
    stage.send(&desired)?;
    stage.ending(
        |stage| {
            let applied = stage.plane.reported().and_then(|reported| reported.applied);
            Ok(applied.filter(|applied| *applied == desired.generation).map(|applied| format!("it holds {applied}")))
        },
        |stage| Ok(stage.desired_refused()),
    )
}

fn more_memory_than_allowed(stage: &mut Stage<'_>) -> Result<Ending> {
    stage.restart(|data| {
        let file = data.join("agent.toml");
        let mut config: toml::Table = std::fs::read_to_string(&file)?.parse()?;
        let limits: toml::Table = toml::Table::from_iter([("memory".to_owned(), "100Mi".into())]);
        config.insert("limits".to_owned(), limits.into());
        Ok(std::fs::write(&file, config.to_string())?)
    })?;
    // 64 MiB each.
    let other = slot(OTHER, 1, &stage.template.bundle(OTHER, 1).envelope)?;
    let desired = stage.next(vec![stage.slot(1)?, other])?;
    stage.send(&desired)?;
    stage.ending(
        |stage| Ok(stage.answer_of(OTHER)?.map(|_| "both run, with 128 MiB of the 100 that are allowed".to_owned())),
        |stage| Ok(stage.slot_refused().filter(|_| stage.answer().is_ok_and(|answer| answer.is_some()))),
    )
}

/// Requests to the model that were let in, as the device counts them.
fn asked(stage: &Stage<'_>) -> Result<u64> {
    let metrics = muster_world::text(&format!("{}/metrics", stage.door()))?;
    let counted = metrics.lines().filter(|line| line.starts_with("muster_requests_total{"));
    Ok(counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
}

/// A page of somebody else's in a real browser asks the door, by a name that leads to this machine.
fn page_in_a_browser(stage: &mut Stage<'_>) -> Result<Ending> {
    let before = asked(stage)?;
    let port = stage.door().rsplit(':').next().unwrap_or_default().to_owned();
    let page = format!(
        "<script>fetch('http://door.example:{port}/v1/models/{MODEL}:predict', {{method: 'POST', mode: 'no-cors', \
         body: '{{\"instances\": [[1, 1, 1, 1]]}}'}}).then(() => document.title = 'asked', \
         error => document.title = 'not asked: ' + error)</script>"
    );
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let served = format!("http://page.example:{}/", listener.local_addr()?.port());
    // It ends with the process: a browser asks for more than the page, and nobody knows how often.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = serve_page(stream, &page);
        }
    });
    let profile = tempfile::tempdir()?;
    let mut browser = Command::new("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]);
    browser.args(["--host-resolver-rules=MAP *.example 127.0.0.1", "--virtual-time-budget=10000"]);
    browser.arg(format!("--user-data-dir={}", profile.path().display())).args(["--dump-dom", &served]);
    let shown = muster_world::output(&mut browser)?;
    anyhow::ensure!(shown.contains("asked</title>"), "the page could not ask: {shown}");
    let reached = asked(stage)? - before;
    Ok(match reached {
        0 => Ending::Held("the page's request came to no model".to_owned()),
        _ => Ending::Harm(format!("the page had the model run, {reached} times")),
    })
}

fn serve_page(mut stream: TcpStream, page: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut request = [0; 4096];
    let _ = stream.read(&mut request)?;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n";
    write!(stream, "{head}content-length: {}\r\n\r\n{page}", page.len())
}

/// The same where the name of the page's own place was pointed at this machine meanwhile.
fn rebound_name(stage: &mut Stage<'_>) -> Result<Ending> {
    let address = stage.door().trim_start_matches("http://").to_owned();
    let port = address.rsplit(':').next().unwrap_or_default();
    let body = r#"{"instances": [[1, 1, 1, 1]]}"#;
    let mut stream = TcpStream::connect(&address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "POST /v1/models/{MODEL}:predict HTTP/1.1\r\nhost: evil.example:{port}\r\norigin: http://evil.example:{port}\r\n\
         content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let first = answer.lines().next().unwrap_or_default().to_owned();
    Ok(match first.contains(" 200 ") {
        true => Ending::Harm(format!("{first}: the page reads what the model answers")),
        false => Ending::Held(first),
    })
}
