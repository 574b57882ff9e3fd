//! The dashboard in a real browser, against a real control plane and three real agents. The browser's
//! tests (web/tests) ask this process, over loopback, for what happens to the fleet meanwhile.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use muster_world::{Bundle, World, fixtures};

use crate::{build, demo, setup, shell, web};

/// How often it is seen whether the tests want something, or are over.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// How long a test's request may take to arrive whole.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// The tier of `cargo xtask test`.
pub fn check() -> anyhow::Result<()> {
    browse(&["--grep-invert", "screenshots"])
}

/// Takes the pictures that the README shows.
pub fn screenshots() -> anyhow::Result<()> {
    browse(&["--grep", "screenshots"])
}

fn browse(selection: &[&str]) -> anyhow::Result<()> {
    setup::program("chromium", "chromium")?;
    web::install()?;
    let mut world = demo::bring_up(build::programs()?)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let mut tests = start(selection, &world, &listener)?;
    let status = loop {
        if let Some(status) = tests.try_wait()? {
            break status;
        }
        match listener.accept() {
            Ok((stream, _)) => serve(&mut world, stream)?,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(POLL_EVERY),
            Err(error) => return Err(error).context("cannot hear the browser's tests"),
        }
    };
    if !status.success() {
        bail!("the browser's tests failed ({status}); pictures and traces are in web/test-results");
    }
    Ok(())
}

fn start(selection: &[&str], world: &World, listener: &TcpListener) -> anyhow::Result<Child> {
    let mut tests = Command::new("npx");
    tests.args(["playwright", "test"]).args(selection).current_dir(web::folder()).stdin(Stdio::null());
    tests.env("MUSTER_PAGE", &world.plane().plain_http);
    tests.env("MUSTER_PASSWORD", world.plane().admin_password.as_deref().unwrap_or_default());
    tests.env("MUSTER_FLEET", format!("http://{}", listener.local_addr()?));
    tests.env("MUSTER_SCREENSHOTS", shell::project().join("docs/screenshots"));
    tests.spawn().context("cannot start the browser's tests")
}

/// One request: `POST /word/argument`. Answered with 200 when it is done, with 500 and the reason if it
/// could not be.
fn serve(world: &mut World, stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(REQUEST_TIME))?;
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    // The rest of the head says nothing that matters.
    let mut rest = String::new();
    while reader.read_line(&mut rest).is_ok_and(|read| read > 2) {
        rest.clear();
    }
    let (status, text) = match happen(world, path.trim_start_matches('/')) {
        Ok(()) => ("200 OK", String::new()),
        Err(error) => ("500 Internal Server Error", format!("{error:#}")),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
    let mut writer = &stream;
    // A test that went away meanwhile needs no answer.
    let _ = writer.write_all(format!("{head}{text}").as_bytes());
    Ok(())
}

fn happen(world: &mut World, path: &str) -> anyhow::Result<()> {
    let (word, argument) = path.split_once('/').unwrap_or((path, ""));
    match word {
        "kill" => world.kill_agent(argument),
        "start" => world.start_agent(argument),
        "push" => world.publish(&Bundle::fixture("digits", argument.parse()?)).map(drop),
        // The next version with the answers of the first: signed, whole, and wrong.
        "push-bad" => {
            let golden = Some(fixtures::folder("digits", 1).join("golden.json"));
            let version = argument.parse()?;
            world.publish(&Bundle { version, golden, ..Bundle::fixture("digits", 2) }).map(drop)
        }
        "restart-plane" => {
            world.kill_plane()?;
            world.start_plane()
        }
        // As after a backup was put back.
        "restore" => {
            world.stop_plane();
            world.set_plane_arguments(&["--restored"]);
            let started = world.start_plane();
            world.set_plane_arguments(&[]);
            started
        }
        "muster" => world.muster(&argument.split('+').collect::<Vec<_>>()).map(drop),
        other => bail!("the fleet knows no {other:?}"),
    }
}
