//! Server and load on a core each, so that neither takes the other's time.

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The first two cores that this process may use.
pub fn two_cores() -> anyhow::Result<(usize, usize)> {
    let allowed = sched_getaffinity(None).context("cannot learn which cores may be used")?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let first = cores.next().context("no core may be used")?;
    let second = cores.next().context("server and load need a core each, and there is only one")?;
    Ok((first, second))
}

/// Does something on a thread that stays on `core`; processes that it starts stay there too.
pub fn on_core<T: Send>(core: usize, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let pinned = move || {
        let mut only = CpuSet::new();
        only.set(core);
        sched_setaffinity(None, &only).with_context(|| format!("cannot stay on core {core}"))?;
        work()
    };
    std::thread::scope(|scope| match scope.spawn(pinned).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
