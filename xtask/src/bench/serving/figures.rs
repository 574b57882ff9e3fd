//! What is measured of each server, and the medians of it.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_load::Measured;

use super::models::Model;
use super::request::Form;
use super::servers::Kind;

/// Connections for the small model; the last is where latencies are compared.
pub const CONNECTIONS: [usize; 3] = [1, 4, 16];
/// Where latencies and processor time are compared.
pub const CROWD: usize = 16;

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    pub model: Model,
    pub form: Form,
    pub connections: usize,
}

impl Workload {
    /// Everything that a server knows: the small model at each number of connections, the large one
    /// at one.
    pub fn all(kind: Kind) -> impl Iterator<Item = Self> {
        kind.forms().flat_map(move |form| {
            let small = CONNECTIONS.map(|connections| Self { model: Model::Linreg, form, connections });
            let large = Self { model: Model::Squeezenet, form, connections: 1 };
            small.into_iter().chain((!kind.only_small()).then_some(large))
        })
    }
}

/// What one kind of load showed.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Requests per second.
    pub rate: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Processor time of all the server's processes for one request.
    pub cpu_ms: f64,
    /// Share of the server's core that was not the server's: other programs', the host's.
    pub others: f64,
}

impl Figures {
    /// What a load showed.
    pub fn of(measured: &Measured, others: f64) -> Self {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        Self {
            rate: measured.rate(),
            p50_ms: ms(measured.percentile(0.50)),
            p99_ms: ms(measured.percentile(0.99)),
            cpu_ms: ms(measured.cpu) / measured.answered() as f64,
            others,
        }
    }
}

/// Memory of all of a server's processes at rest, its models loaded and warm.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// With two small models.
    pub small_mib: f64,
    /// With a small and a large one.
    pub mixed_mib: f64,
}

/// One round's look at one server.
#[derive(Debug, Default)]
pub struct Visit {
    pub memory: Option<Memory>,
    pub figures: BTreeMap<Workload, Figures>,
    pub failures: BTreeMap<(Model, Form), String>,
}

impl Visit {
    /// Remembers why something could not be measured.
    pub fn fail(&mut self, model: Model, form: Form, error: &anyhow::Error) {
        eprintln!("{} as {form}: {error:#}", model.name());
        self.failures.insert((model, form), format!("{error:#}"));
    }
}

/// The medians over all rounds, each figure for itself.
#[derive(Debug)]
pub struct Medians {
    pub memory: Option<Memory>,
    pub figures: BTreeMap<Workload, Figures>,
    pub failures: BTreeMap<(Model, Form), String>,
}

impl Medians {
    /// Of at least one visit.
    pub fn of(visits: &[Visit]) -> Option<Self> {
        if visits.is_empty() {
            return None;
        }
        let memory =
            |part: fn(&Memory) -> f64| median(visits.iter().filter_map(|visit| visit.memory.as_ref()).map(part));
        let memory = memory(|memory| memory.small_mib).zip(memory(|memory| memory.mixed_mib));
        let memory = memory.map(|(small_mib, mixed_mib)| Memory { small_mib, mixed_mib });
        let mut found: BTreeMap<Workload, Vec<Figures>> = BTreeMap::new();
        for (workload, figures) in visits.iter().flat_map(|visit| &visit.figures) {
            found.entry(*workload).or_default().push(*figures);
        }
        let figures = found.into_iter().filter_map(|(workload, each)| {
            let median = |part: fn(&Figures) -> f64| median(each.iter().map(part));
            let figures = Figures {
                rate: median(|figures| figures.rate)?,
                p50_ms: median(|figures| figures.p50_ms)?,
                p99_ms: median(|figures| figures.p99_ms)?,
                cpu_ms: median(|figures| figures.cpu_ms)?,
                others: median(|figures| figures.others)?,
            };
            Some((workload, figures))
        });
        let figures = figures.collect();
        let failures = visits.iter().flat_map(|visit| visit.failures.clone()).collect();
        Some(Self { memory, figures, failures })
    }
}

/// The middle one; of an even number the upper of the two.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([5.0, 1.0, 3.0].into_iter()), Some(3.0));
        assert_eq!(median([2.0, 1.0].into_iter()), Some(2.0));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn only_forms_that_a_server_knows_are_measured() {
        let workloads = |kind| Workload::all(kind).count();
        assert_eq!(workloads(Kind::Fastapi), 4, "three times the small model, once the large one");
        assert_eq!(workloads(Kind::Muster), 12, "in three forms");
        assert_eq!(workloads(Kind::PytritonBatching), 6, "in two forms, without the large one");
    }
}
