//! `cargo xtask bench serving`: the same models behind each server, each server alone on one core, the
//! load on another, in rounds so that a slow minute of the machine hits all of them.

mod figures;
mod models;
mod process;
mod report;
mod request;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use muster_load::{Load, ask, drive, on_core, two_cores};

use figures::{Figures, Visit, Workload};
use models::{Model, Models};
use process::{Served, free_address};
use servers::{Kind, Server};

/// How long one answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Each form of each model is asked for so long before memory is read.
const SETTLE_IN: Duration = Duration::from_millis(400);
/// Nothing is asked for so long before memory is read.
const IDLE: Duration = Duration::from_secs(2);

/// How thoroughly.
#[derive(Debug, Args)]
pub struct Options {
    /// Measure for less time, in fewer rounds
    #[arg(long)]
    short: bool,
    /// Only these servers; rows of the others stay empty
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
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

#[derive(Clone, Copy)]
struct Times {
    warm_up: Duration,
    duration: Duration,
}

/// Measures and tells; an error if ours, or every peer, could not be measured.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let cores = two_cores()?;
    let models = Models::prepare()?;
    let mut results: BTreeMap<Kind, Vec<Visit>> = BTreeMap::new();
    let mut failures: BTreeMap<Kind, String> = BTreeMap::new();
    let mut servers = vec![];
    for kind in options.kinds() {
        match Server::prepare(kind) {
            Ok(server) => servers.push(server),
            Err(error) => tell_failure(&mut failures, kind, &error.context("cannot be installed")),
        }
    }
    eprintln!("{}", report::machine(cores));
    for round in 1..=options.rounds() {
        for server in &servers {
            // What failed once is not waited for again.
            if failures.contains_key(&server.kind) {
                continue;
            }
            eprintln!("round {round} of {}: {}", options.rounds(), server.kind.title());
            match visit(server, &models, cores, options.times()) {
                Ok(visit) => results.entry(server.kind).or_default().push(visit),
                Err(error) => tell_failure(&mut failures, server.kind, &error),
            }
        }
    }
    report::tell(&results, &failures)?;
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

/// Starts a server, measures everything that it knows, and stops it.
fn visit(server: &Server, models: &Models, cores: (usize, usize), times: Times) -> anyhow::Result<Visit> {
    let (server_core, load_core) = cores;
    let folder = tempfile::tempdir().context("cannot make a folder for the server")?;
    let mut served = on_core(server_core, || start(server, models, folder.path()))?;
    let first = server.kind.forms().next().context("a form")?;
    let answers = |address, model, form| {
        let sample = models.sample(model);
        sample.check(form, &ask(address, &sample.request(form, address)?, ANSWER_DEADLINE)?)
    };
    let address = served.address;
    for model in Model::ALL {
        served.until(|| answers(address, model, first)).context("does not serve")?;
    }
    let mut visit = Visit::default();
    // A form that is answered wrongly is not measured: errors are quick.
    let mut right = BTreeSet::new();
    for (model, form) in Model::ALL.into_iter().flat_map(|model| server.kind.forms().map(move |form| (model, form))) {
        match answers(address, model, form).and_then(|()| {
            let load = Workload { model, form, connections: 1 };
            on_core(load_core, || {
                measure(&served, models, load, Times { warm_up: Duration::ZERO, duration: SETTLE_IN })
            })
        }) {
            Ok(_) => drop(right.insert((model, form))),
            Err(error) => visit.fail(model, form, &error),
        }
    }
    std::thread::sleep(IDLE);
    visit.pss_kib = served.tree()?.pss_kib()?;
    for workload in Workload::all(server.kind).filter(|workload| right.contains(&(workload.model, workload.form))) {
        match on_core(load_core, || measure(&served, models, workload, times)) {
            Ok(figures) => drop(visit.figures.insert(workload, figures)),
            Err(error) => visit.fail(workload.model, workload.form, &error),
        }
    }
    Ok(visit)
}

fn start(server: &Server, models: &Models, folder: &Path) -> anyhow::Result<Served> {
    let address = free_address()?;
    let mut command = server.command(&models.folder, &Model::ALL.map(Model::name), address)?;
    Served::start(server.kind.title(), command.current_dir(folder), address, folder.join("log"))
}

fn measure(served: &Served, models: &Models, workload: Workload, times: Times) -> anyhow::Result<Figures> {
    let request = models.sample(workload.model).request(workload.form, served.address)?;
    let Times { warm_up, duration } = times;
    let load =
        Load { address: served.address, request: &request, connections: workload.connections, warm_up, duration };
    let tree = served.tree()?;
    let measured = drive(&load, &|| tree.cpu())?;
    anyhow::ensure!(measured.refused == 0, "{} requests were refused", measured.refused);
    Ok(Figures::from(&measured))
}
