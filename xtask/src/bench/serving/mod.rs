//! `cargo xtask bench serving`: the same models behind each server, each server alone on one core, the
//! load on another, in rounds so that a slow minute of the machine hits all of them.

mod figures;
mod isolation;
mod models;
mod process;
mod report;
mod request;
mod servers;
mod visit;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use muster_load::two_cores;

use figures::Visit;
use models::Models;
use servers::{Kind, Server};
use visit::{Bench, Times};

/// How thoroughly.
#[derive(Debug, Args)]
pub struct Options {
    /// Measure for less time, in fewer rounds
    #[arg(long)]
    short: bool,
    /// Only these servers; rows of the others stay empty
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// This agent instead of one built for users
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Say yes to installing what is missing
    #[arg(long)]
    yes: bool,
}

impl Options {
    fn rounds(&self) -> usize {
        if self.short { 3 } else { 5 }
    }

    fn times(&self) -> Times {
        let (warm_up_ms, duration_ms) = if self.short { (200, 1000) } else { (500, 3000) };
        Times { warm_up: Duration::from_millis(warm_up_ms), duration: Duration::from_millis(duration_ms) }
    }

    fn kinds(&self) -> BTreeSet<Kind> {
        let all = std::iter::once(Kind::Muster).chain(Kind::PEERS);
        all.filter(|kind| self.only.is_empty() || self.only.contains(kind)).collect()
    }
}

/// Measures and tells; an error if ours, or every peer, could not be measured.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let bench = Bench { cores: two_cores()?, models: Models::prepare()?, times: options.times() };
    let mut results: BTreeMap<Kind, Vec<Visit>> = BTreeMap::new();
    let mut failures: BTreeMap<Kind, String> = BTreeMap::new();
    let mut servers = vec![];
    for kind in options.kinds() {
        match Server::prepare(kind, options.agent.as_deref()) {
            Ok(server) => servers.push(server),
            Err(error) => tell_failure(&mut failures, kind, &error.context("cannot be installed")),
        }
    }
    eprintln!("{}", report::machine(bench.cores));
    for round in 1..=options.rounds() {
        for server in &servers {
            // What failed once is not waited for again.
            if failures.contains_key(&server.kind) {
                continue;
            }
            eprintln!("round {round} of {}: {}", options.rounds(), server.kind.title());
            match bench.visit(server) {
                Ok(visit) => results.entry(server.kind).or_default().push(visit),
                Err(error) => tell_failure(&mut failures, server.kind, &error),
            }
        }
    }
    let ours = servers.iter().find(|server| server.kind == Kind::Muster && !failures.contains_key(&Kind::Muster));
    let beside = match ours {
        Some(server) => isolation::rows(&bench, server, options.rounds())?,
        None => vec![],
    };
    report::tell(&results, &failures, beside);
    for kind in options.kinds() {
        if kind == Kind::Muster && !results.contains_key(&kind) {
            bail!("{} could not be measured: {}", kind.title(), failures.get(&kind).map_or("", String::as_str));
        }
    }
    let measured = results.keys().any(|kind| *kind != Kind::Muster);
    anyhow::ensure!(measured || options.only == [Kind::Muster], "no peer could be measured");
    Ok(())
}

fn tell_failure(failures: &mut BTreeMap<Kind, String>, kind: Kind, error: &anyhow::Error) {
    eprintln!("{}: {error:#}", kind.title());
    failures.insert(kind, format!("{error:#}"));
}
