//! Server and load on a core each, so that neither takes the other's time.

use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The kernel tells processor time in hundredths of a second.
pub fn ticks_to_time(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(10))
}

/// The first two cores that this process may use.
pub fn two_cores() -> anyhow::Result<(usize, usize)> {
    let allowed = sched_getaffinity(None).context("cannot learn which cores may be used")?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let first = cores.next().context("no core may be used")?;
    let second = cores.next().context("server and load need a core each, and there is only one")?;
    Ok((first, second))
}

/// Time that a core has been busy since the machine started, whoever kept it busy.
pub fn busy(core: usize) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let name = format!("cpu{core}");
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name.as_str()));
    let fields = line.context("the kernel tells nothing of that core")?.split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().context("no times of a core")?;
    // user, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen by the host
    let [user, nice, system, _, _, interrupts, soft, stolen, ..] = ticks[..] else { bail!("too few times of a core") };
    Ok(ticks_to_time(user + nice + system + interrupts + soft + stolen))
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
