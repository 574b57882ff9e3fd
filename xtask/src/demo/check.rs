//! The demo as a user meets it: the printed line works as printed, and nothing is left behind,
//! neither after Ctrl-C nor after `kill -9`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use muster_world::{descendants, output, until};

use crate::{setup, shell};

/// How long the demo's processes may take to end.
const END_DEADLINE: Duration = Duration::from_secs(15);

/// Runs the demo as a program and checks what it promises.
pub fn check() -> anyhow::Result<()> {
    setup::program("curl", "curl")?;
    let mut once = Command::new(shell::this_program()?);
    let printed = output(once.args(["demo", "--once", "--yes"]))?;
    let last = printed.lines().last().context("demo --once printed nothing")?;
    let summary: Value = serde_json::from_str(last).with_context(|| format!("not JSON: {last}"))?;
    println!("demo --once: {} s", summary["seconds"]);

    let mut demo = Demo::start()?;
    demo.printed_line_works()?;
    demo.errors_are_tf_servings()?;
    demo.end("-INT")?;
    println!("demo: the printed curl line works; nothing is left after Ctrl-C");

    let mut demo = Demo::start()?;
    demo.wait_until_told()?;
    demo.end("-KILL")?;
    println!("demo: nothing is left after kill -9");
    Ok(())
}

struct Demo {
    child: Child,
    stdout: BufReader<ChildStdout>,
    curl: String,
}

impl Demo {
    fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(shell::this_program()?);
        command.args(["demo", "--yes"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("the demo has no standard output")?;
        Ok(Self { child, stdout: BufReader::new(stdout), curl: String::new() })
    }

    /// Reads until the first `curl` line. The demo tells it once everything serves.
    fn wait_until_told(&mut self) -> anyhow::Result<()> {
        while self.curl.is_empty() {
            let mut line = String::new();
            if self.stdout.read_line(&mut line)? == 0 {
                bail!("the demo ended before it printed a curl line");
            }
            if line.trim_start().starts_with("curl ") {
                line.trim().clone_into(&mut self.curl);
            }
        }
        Ok(())
    }

    fn printed_line_works(&mut self) -> anyhow::Result<()> {
        self.wait_until_told()?;
        let answer = output(Command::new("sh").args(["-c", &self.curl]).stderr(Stdio::null()))?;
        let answer: Value =
            serde_json::from_str(&answer).with_context(|| format!("{} answered {answer}", self.curl))?;
        if !answer["predictions"].is_array() {
            bail!("{} answered {answer}", self.curl);
        }
        Ok(())
    }

    fn errors_are_tf_servings(&self) -> anyhow::Result<()> {
        let url = self.curl.split_whitespace().last().context("the curl line has no URL")?;
        let unknown = url.replace("linear_regression", "nobody");
        for (url, body, status) in [(unknown.as_str(), "{\"instances\": [1]}", "404"), (url, "{not json", "400")] {
            let mut curl = Command::new("curl");
            let answer = output(curl.args(["-s", "-w", "\n%{http_code}", "-d", body, url]))?;
            let (body, got) = answer.rsplit_once('\n').context("curl printed no status")?;
            let error = serde_json::from_str::<Value>(body).ok().filter(|body| body["error"].is_string());
            if got != status || error.is_none() {
                bail!("{url} answered {got} {body}, not {status} with an error");
            }
        }
        Ok(())
    }

    /// Ends the demo and waits until no process of it is left.
    fn end(&mut self, signal: &str) -> anyhow::Result<()> {
        let id = self.child.id();
        let started = descendants(id)?;
        if started.len() < 9 {
            bail!("the demo has {} processes; a plane, three agents and five workers were expected", started.len());
        }
        shell::run(Command::new("kill").args([signal, &id.to_string()]))?;
        self.child.wait()?;
        until(&format!("the demo's processes to end after kill {signal}"), END_DEADLINE, || {
            Ok(started.iter().all(|process| !process.lives()).then_some(()))
        })
    }
}
