//! A server under load: started on its core, asked until it answers, weighed, and gone afterwards with
//! everything that it started.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use muster_load::ticks_to_time;
use muster_world::{Process, Running, descendants, last_lines, until};
use rustix::process::{Pid, Signal, kill_process};

use crate::measure;

/// How long a server may take until it answers rightly: some import half of the Python world.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// A running server. Dropping it stops it.
pub struct Served {
    running: Option<Running>,
    /// Where it listens.
    pub address: SocketAddr,
    log: PathBuf,
}

impl Served {
    /// Starts it; its processes stay on the core that the calling thread is on.
    pub fn start(name: &str, command: &mut Command, address: SocketAddr, log: PathBuf) -> anyhow::Result<Self> {
        let running = Some(Running::start(name, command, log.clone())?);
        Ok(Self { running, address, log })
    }

    /// Waits until `ask` succeeds; if it never does, its last error says why.
    pub fn until(&mut self, ask: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut refused = None;
        let answered = until("a right answer", START_DEADLINE, || {
            if let Some(running) = &mut self.running {
                running.check()?;
            }
            match ask() {
                Ok(()) => Ok(Some(())),
                Err(error) => {
                    refused = Some(error);
                    Ok(None)
                }
            }
        });
        let ended = self.running.as_mut().is_some_and(|running| running.check().is_err());
        answered.map_err(|error| match refused {
            Some(refused) if !ended => error.context(format!("{refused:#}; its log:\n{}", last_lines(&self.log))),
            // That it ended, and its log, is what the error says.
            _ => error,
        })
    }

    /// Its process and all that came of it.
    pub fn tree(&self) -> anyhow::Result<Tree> {
        let main = self.running.as_ref().and_then(|running| Process::read(running.id())).context("it ended")?;
        let mut processes = descendants(main.id)?;
        processes.push(main);
        Ok(Tree { processes })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let tree = self.tree();
        // Closes its standard input, waits, and kills it if that is not enough.
        self.running = None;
        for left in tree.iter().flat_map(|tree| &tree.processes).filter(|process| process.lives()) {
            if let Some(id) = Pid::from_raw(left.id.cast_signed()) {
                let _ = kill_process(id, Signal::KILL);
            }
        }
    }
}

/// The processes of one server.
pub struct Tree {
    processes: Vec<Process>,
}

impl Tree {
    /// Processor time so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let each = self.processes.iter().map(|process| ticks(process.id));
        Ok(ticks_to_time(each.sum::<anyhow::Result<u64>>()?))
    }

    /// Proportional set size.
    pub fn pss_kib(&self) -> anyhow::Result<u64> {
        self.processes.iter().map(|process| measure::pss_kib(process.id)).sum()
    }
}

fn ticks(id: u32) -> anyhow::Result<u64> {
    let path = Path::new("/proc").join(id.to_string()).join("stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // The name stands in brackets and may hold anything; user and system time are the 12th and 13th
    // field after it.
    let fields = text.rsplit_once(')').context("no process")?.1.split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().context("no processor time")).sum()
}

/// A port that nothing listens on now.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
