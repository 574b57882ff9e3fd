//! Figures as a table, comparisons as rows with their goals.

use std::collections::BTreeMap;

use super::figures::{CONNECTIONS, CROWD, Figures, Medians, Memory, Visit, Workload};
use super::models::Model;
use super::request::Form;
use super::servers::Kind;
use crate::bench::{self, Goal, Row, compared};

/// Share of the server's core that others may take before a row says so. The load's own packets take
/// some.
const OTHERS_MAX: f64 = 0.1;

/// Tells everything.
pub fn tell(results: &BTreeMap<Kind, Vec<Visit>>, failures: &BTreeMap<Kind, String>, more: Vec<Row>) {
    let medians = results.iter().filter_map(|(kind, visits)| Some((*kind, Medians::of(visits)?))).collect();
    table(&medians);
    let mut rows = Outcome { medians, failures }.rows();
    rows.extend(more);
    bench::tell("bench serving", &rows);
}

/// What the figures were measured on.
pub fn machine((server, load): (usize, usize)) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (cpus, busy) = (read("/proc/cpuinfo"), read("/proc/loadavg"));
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let model = model.trim_start_matches([' ', '\t', ':']);
    let busy = busy.split_whitespace().next().unwrap_or("unknown");
    format!("processor: {model}; server on core {server}, load on core {load}; load of the machine before: {busy}")
}

fn table(medians: &BTreeMap<Kind, Medians>) {
    println!(
        "\n{:<24}{:<11}{:>8}{:>8}{:>8}{:>9}{:>9}{:>9}{:>14}{:>11}{:>11}",
        "medians",
        "form",
        "c=1 /s",
        "c=4 /s",
        "c=16 /s",
        "p50 ms",
        "p99 ms",
        "CPU ms",
        "SqueezeNet /s",
        "small MiB",
        "mixed MiB"
    );
    for (kind, medians) in medians {
        let memory = medians.memory.map(|memory| [memory.small_mib, memory.mixed_mib].map(|mib| format!("{mib:.0}")));
        let mut memory = memory.unwrap_or_else(|| ["–".to_owned(), "–".to_owned()]);
        for form in kind.forms() {
            let figure = |model, connections, part: fn(&Figures) -> f64, digits: usize| {
                let found = medians.figures.get(&Workload { model, form, connections });
                found.map_or_else(|| "–".to_owned(), |figures| format!("{:.digits$}", part(figures)))
            };
            let [one, four, crowd] = CONNECTIONS.map(|many| figure(Model::Linreg, many, |figures| figures.rate, 0));
            println!(
                "{:<24}{form:<11}{one:>8}{four:>8}{crowd:>8}{:>9}{:>9}{:>9}{:>14}{:>11}{:>11}",
                kind.title(),
                figure(Model::Linreg, CROWD, |figures| figures.p50_ms, 2),
                figure(Model::Linreg, CROWD, |figures| figures.p99_ms, 2),
                figure(Model::Linreg, CROWD, |figures| figures.cpu_ms, 3),
                figure(Model::Squeezenet, 1, |figures| figures.rate, 1),
                memory[0],
                memory[1],
            );
            // Told once for a server.
            memory = [String::new(), String::new()];
        }
    }
}

struct Outcome<'a> {
    medians: BTreeMap<Kind, Medians>,
    failures: &'a BTreeMap<Kind, String>,
}

impl Outcome<'_> {
    /// Every comparison; goals are those of the project's figures.
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![];
        for peer in Kind::PEERS {
            let Some(json) = peer.json().first().copied() else { continue };
            self.small(&mut rows, peer, json, |connections| match (peer, connections) {
                (Kind::Fastapi, CROWD) => Goal::AtLeast(3.0),
                (Kind::Mlserver, CROWD) => Goal::AtLeast(10.0),
                (Kind::Pytriton, CROWD) => Goal::AtLeast(30.0),
                _ => Goal::None,
            });
            self.latencies(&mut rows, peer, json, Goal::None);
            let large = if peer == Kind::Mlserver { Goal::AtLeast(0.65) } else { Goal::None };
            if !peer.only_small() {
                self.large(&mut rows, peer, json, large);
            }
            if peer.forms().any(|form| form == Form::OipBinary) {
                self.small(&mut rows, peer, Form::OipBinary, |_| Goal::None);
                let p99 = if peer == Kind::Kserve { Goal::AtMost(0.1) } else { Goal::None };
                self.latencies(&mut rows, peer, Form::OipBinary, p99);
                let large = if peer == Kind::Pytriton { Goal::AtLeast(0.6) } else { Goal::None };
                if !peer.only_small() {
                    self.large(&mut rows, peer, Form::OipBinary, large);
                }
            }
            if !peer.only_small() {
                let goal = if peer == Kind::Fastapi { Goal::AtMost(0.25) } else { Goal::None };
                rows.push(self.memory("two small models", peer, |memory| memory.small_mib, goal));
                rows.push(self.memory("linreg and squeezenet", peer, |memory| memory.mixed_mib, Goal::None));
            }
        }
        rows
    }

    fn memory(&self, what: &str, peer: Kind, part: fn(&Memory) -> f64, goal: Goal) -> Row {
        let of = |kind| self.medians.get(&kind)?.memory.as_ref().map(part);
        let name = format!("idle memory with {what}, PSS in MiB, vs {}", peer.title());
        compared(name, of(Kind::Muster), of(peer), goal, self.note(peer, None))
    }

    fn small(&self, rows: &mut Vec<Row>, peer: Kind, form: Form, goal: impl Fn(usize) -> Goal) {
        for connections in CONNECTIONS {
            let workload = Workload { model: Model::Linreg, form, connections };
            rows.push(self.row("requests/s", peer, workload, |figures| figures.rate, goal(connections)));
        }
    }

    fn latencies(&self, rows: &mut Vec<Row>, peer: Kind, form: Form, p99: Goal) {
        let workload = Workload { model: Model::Linreg, form, connections: CROWD };
        rows.push(self.row("p50 ms", peer, workload, |figures| figures.p50_ms, Goal::None));
        rows.push(self.row("p99 ms", peer, workload, |figures| figures.p99_ms, p99));
        rows.push(self.row("CPU ms/request", peer, workload, |figures| figures.cpu_ms, Goal::None));
    }

    fn large(&self, rows: &mut Vec<Row>, peer: Kind, form: Form, goal: Goal) {
        let workload = Workload { model: Model::Squeezenet, form, connections: 1 };
        rows.push(self.row("requests/s", peer, workload, |figures| figures.rate, goal));
    }

    fn row(&self, unit: &str, peer: Kind, workload: Workload, part: fn(&Figures) -> f64, goal: Goal) -> Row {
        let Workload { model, form, connections } = workload;
        let of = |kind| self.medians.get(&kind)?.figures.get(&workload).map(part);
        let name = format!("{} {form} c={connections}, {unit}, vs {}", model.name(), peer.title());
        compared(name, of(Kind::Muster), of(peer), goal, self.note(peer, Some(workload)))
    }

    /// What to know about the figures: why one is missing, or is worth less.
    fn note(&self, peer: Kind, workload: Option<Workload>) -> String {
        let of = |kind: Kind| {
            let medians = self.medians.get(&kind);
            let part = workload.zip(medians);
            let failed = part.and_then(|(load, medians)| medians.failures.get(&(load.model, load.form)).cloned());
            let others = part.and_then(|(load, medians)| medians.figures.get(&load)).map(|figures| figures.others);
            let busy = others.filter(|others| *others > OTHERS_MAX);
            let busy = busy.map(|others| format!("others took {:.0} % of the server's core", others * 100.0));
            let notes = [self.failures.get(&kind).cloned(), failed, busy].into_iter().flatten();
            notes.map(|note| format!("{}: {note}", kind.title())).collect::<Vec<_>>()
        };
        [of(Kind::Muster), of(peer)].concat().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medians(rate: f64, small_mib: f64) -> Medians {
        let figures = Figures { rate, p50_ms: 1.0, p99_ms: 2.0, cpu_ms: 0.1, others: 0.0 };
        let figures = Workload::all(Kind::Muster).map(|workload| (workload, figures)).collect();
        let memory = Some(Memory { small_mib, mixed_mib: small_mib });
        Medians { memory, figures, failures: BTreeMap::new() }
    }

    #[test]
    fn goals_are_judged_and_the_unmeasured_is_not_met() {
        let failures = BTreeMap::from([(Kind::Mlserver, "cannot be installed".to_owned())]);
        let medians = BTreeMap::from([(Kind::Muster, medians(400.0, 20.0)), (Kind::Fastapi, medians(100.0, 90.0))]);
        let rows = Outcome { medians, failures: &failures }.rows();
        let row = |start: &str, end: &str| {
            let row = rows.iter().find(|row| row.name.starts_with(start) && row.name.ends_with(end));
            row.expect("a row")
        };
        let fastapi = row("linreg TFS JSON c=16, requests/s", "FastAPI + ONNX Runtime");
        assert_eq!((fastapi.ok, fastapi.ratio, fastapi.goal.as_str()), (true, Some(4.0), "≥ 3×"));
        assert!(row("idle memory", "FastAPI + ONNX Runtime").ok);
        let mlserver = row("linreg OIP JSON c=16, requests/s", "MLServer");
        assert_eq!((mlserver.ok, mlserver.ratio), (false, None));
        assert_eq!(mlserver.note, "MLServer: cannot be installed");
    }
}
