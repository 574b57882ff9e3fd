//! Starting the agent as the machine's service, and seeing that it answers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// There while systemd runs this machine.
const SYSTEMD: &str = "/run/systemd/system";
/// The script of the package for machines without systemd.
const SCRIPT: &str = "/etc/init.d/muster-agent";
const UNIT: &str = "muster-agent.service";
/// How long the agent may take to answer: a slow card, an old processor.
const HEALTHY_WITHIN: Duration = Duration::from_secs(60);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A status line is shorter.
const LINE_BYTES_MAX: u64 = 256;

/// Starts the service now and at each start of the machine.
pub fn start(tell: &dyn Fn(&str)) -> anyhow::Result<()> {
    let mut start = if Path::new(SYSTEMD).is_dir() {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(["enable", "--now", UNIT]);
        systemctl
    } else {
        tell("systemd does not run this machine: starting the agent by /etc/init.d");
        let mut script = Command::new(SCRIPT);
        script.arg("start");
        script
    };
    let done = start.stdin(Stdio::null()).status().context("cannot start the agent's service")?;
    ensure!(done.success(), "it is enrolled, and its service did not start; {}", where_to_look());
    Ok(())
}

/// Waits until the agent answers on its door.
pub fn until_healthy(door: SocketAddr) -> anyhow::Result<()> {
    let until = Instant::now() + HEALTHY_WITHIN;
    loop {
        let Err(error) = healthy(door) else { return Ok(()) };
        if Instant::now() >= until {
            bail!("it was started, and does not answer on http://{door} ({error}); {}", where_to_look());
        }
        std::thread::sleep(ASK_EVERY);
    }
}

fn healthy(door: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&door, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(format!("GET /healthz HTTP/1.1\r\nHost: {door}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 200"), "it says {:?}", line.trim());
    Ok(())
}

fn where_to_look() -> &'static str {
    if Path::new(SYSTEMD).is_dir() {
        "`journalctl -u muster-agent` says why"
    } else {
        "/var/log/muster-agent.log says why"
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_answer_that_says_ok_is_health_and_nothing_else_is() {
        for (answer, good) in [
            ("HTTP/1.1 200 OK\r\n\r\nok", true),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
            ("", false),
            ("SSH-2.0-OpenSSH\r\n", false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
            let door = listener.local_addr().expect("an address");
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("accepts");
                let mut asked = [0; 16];
                let _ = stream.read(&mut asked);
                stream.write_all(answer.as_bytes()).expect("answers");
            });
            assert_eq!(healthy(door).is_ok(), good, "{answer:?}");
            server.join().expect("answers");
        }
        let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
        assert!(healthy(gone).is_err());
    }
}
