//! One round's look at one server: started, checked, weighed, loaded, stopped.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_load::{Load, ask, busy, drive, on_core};

use super::figures::{Figures, Memory, Visit, Workload};
use super::models::{Model, Models};
use super::process::{Served, free_address};
use super::request::Form;
use super::servers::Server;

/// How long one answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Each form of each model is asked for so long before memory is read.
const SETTLE_IN: Times = Times { warm_up: Duration::ZERO, duration: Duration::from_millis(400) };
/// Nothing is asked for so long before memory is read.
const IDLE: Duration = Duration::from_secs(2);

/// How long one kind of load is kept up.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Before anything counts.
    pub warm_up: Duration,
    /// What counts.
    pub duration: Duration,
}

/// What every look shares.
pub struct Bench {
    /// What is served.
    pub models: Models,
    /// The server's and the load's.
    pub cores: (usize, usize),
    /// For each kind of load.
    pub times: Times,
}

impl Bench {
    /// Looks at one server.
    pub fn visit(&self, server: &Server) -> anyhow::Result<Visit> {
        let mut visit = Visit::default();
        let folder = tempfile::tempdir().context("cannot make a folder for the server")?;
        let mut small_mib = None;
        if !server.kind.only_small() {
            let served = self.start(server, &Model::SMALL, folder.path())?;
            self.warm(server, &served, &Model::SMALL, &mut visit);
            small_mib = Some(at_rest_mib(&served)?);
        }
        let served = self.start(server, &Model::LOADED, folder.path())?;
        let right = self.warm(server, &served, &Model::LOADED, &mut visit);
        if let Some(small_mib) = small_mib {
            visit.memory = Some(Memory { small_mib, mixed_mib: at_rest_mib(&served)? });
        }
        for workload in Workload::all(server.kind).filter(|load| right.contains(&(load.model, load.form))) {
            match self.measure(&served, workload, self.times) {
                Ok(figures) => drop(visit.figures.insert(workload, figures)),
                Err(error) => visit.fail(workload.model, workload.form, &error),
            }
        }
        Ok(visit)
    }

    /// Starts a server on its core and waits until it answers rightly.
    fn start(&self, server: &Server, models: &[Model], folder: &Path) -> anyhow::Result<Served> {
        let (core, _) = self.cores;
        let mut served = on_core(core, || {
            let address = free_address()?;
            let mut command = server.command(&self.models, models, address)?;
            Served::start(server.kind.title(), command.current_dir(folder), address, folder.join("log"))
        })?;
        let form = server.kind.forms().next().context("a server takes at least one form")?;
        let address = served.address;
        for model in models {
            let answers = || self.check(address, *model, form);
            served.until(answers).with_context(|| format!("does not serve {}", model.name()))?;
        }
        Ok(served)
    }

    /// Asks for each model in each form; gives back what is answered rightly. The rest is not measured:
    /// errors are quick.
    fn warm(&self, server: &Server, served: &Served, models: &[Model], visit: &mut Visit) -> Vec<(Model, Form)> {
        let mut right = vec![];
        for model in models.iter().copied() {
            for form in server.kind.forms() {
                let load = Workload { model, form, connections: 1 };
                let warmed = self
                    .check(served.address, model, form)
                    .and_then(|()| self.measure(served, load, SETTLE_IN).map(drop));
                match warmed {
                    Ok(()) => right.push((model, form)),
                    Err(error) => visit.fail(model, form, &error),
                }
            }
        }
        right
    }

    fn check(&self, address: std::net::SocketAddr, model: Model, form: Form) -> anyhow::Result<()> {
        let sample = self.models.sample(model);
        sample.check(form, &ask(address, &sample.request(form, address)?, ANSWER_DEADLINE)?)
    }

    fn measure(&self, served: &Served, workload: Workload, times: Times) -> anyhow::Result<Figures> {
        let (server_core, load_core) = self.cores;
        let address = served.address;
        let request = self.models.sample(workload.model).request(workload.form, address)?;
        let (Times { warm_up, duration }, connections) = (times, workload.connections);
        let load = Load { address, request: &request, connections, warm_up, duration };
        let tree = served.tree()?;
        let (began, busy_before, cpu_before) = (Instant::now(), busy(server_core)?, tree.cpu()?);
        let measured = on_core(load_core, || drive(&load, &|| tree.cpu()))?;
        let taken = busy(server_core)?.saturating_sub(busy_before);
        let others = taken.saturating_sub(tree.cpu()?.saturating_sub(cpu_before)).div_duration_f64(began.elapsed());
        anyhow::ensure!(measured.refused == 0, "{} requests were refused", measured.refused);
        Ok(Figures::of(&measured, others))
    }
}

fn at_rest_mib(served: &Served) -> anyhow::Result<f64> {
    std::thread::sleep(IDLE);
    Ok(served.tree()?.pss_kib()? as f64 / 1024.0)
}
