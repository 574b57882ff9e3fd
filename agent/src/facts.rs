//! What this machine is and how it fares, as far as its kernel tells. What it does not tell is absent.
//!
//! One file for each kind of thing: the [`board`] and its kernel, the [`cpu`], [`accelerators`], [`sensors`], what slows it
//! down ([`throttling`]), [`power`], [`storage`]. Each reads below [`roots`], of which tests make up their own.
//! [`watch`] says when a change is worth an event.

pub mod accelerators;
pub mod board;
pub mod cpu;
pub mod power;
pub mod roots;
pub mod sensors;
pub mod storage;
pub mod throttling;
pub mod watch;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use muster_shared::hardware::{Hardware, Health};
use muster_shared::reported::Facts;
use muster_shared::telemetry::HostSample;
use sysinfo::{CpuRefreshKind, Disks, MemoryRefreshKind, RefreshKind, System};

use self::roots::Roots;
use crate::config::Config;
use crate::{engine, worker};

/// What is plugged in and out is looked for no more often.
const HARDWARE_EVERY: Duration = Duration::from_secs(60);

/// Of a machine's memory, what models may use where its owner says nothing: three quarters.
pub fn for_models(total_bytes: u64) -> u64 {
    total_bytes / 4 * 3
}

/// What a machine is made of.
pub fn hardware(roots: &Roots) -> Hardware {
    let info = cpu::info(roots);
    let board = board::board(roots);
    let (memory_bytes, swap_bytes) = board::memory(roots);
    Hardware {
        soc: board::soc(roots, board.as_ref()),
        board,
        cores: cpu::cores(roots, &info),
        cpu_features: info.features,
        memory_bytes,
        swap_bytes,
        kernel: board::kernel(roots),
        libc: board::libc(),
        accelerators: accelerators::accelerators(roots),
    }
}

/// How a machine's hardware fares. `data` is a path without links.
pub fn health(roots: &Roots, data: &Path) -> Health {
    let throttling = throttling::throttling(roots);
    let mounts = storage::read_mounts(roots);
    Health {
        temperatures: sensors::temperatures(roots),
        strains: throttling.now.into_iter().collect(),
        strains_since_boot: throttling.since_boot.into_iter().collect(),
        khz_allowed: throttling.khz_allowed,
        power: power::sources(roots),
        storage: storage::storage(roots, &mounts, data),
        read_only: storage::read_only(&mounts),
    }
}

/// The machine under watch.
pub struct Machine {
    roots: Roots,
    system: System,
    disks: Disks,
    data: PathBuf,
    hardware: (Instant, Hardware),
}

impl Machine {
    /// Begins to watch. `data` says which disk counts.
    pub fn new(data: &Path) -> Result<Self, sysinfo::Error> {
        let kinds = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        let (system, disks) = (System::new_with_specifics(kinds)?, Disks::new_with_refreshed_list()?);
        let roots = Roots::default();
        let hardware = (Instant::now(), hardware(&roots));
        Ok(Self { roots, system, disks, data, hardware })
    }

    /// What this machine is.
    pub fn facts(&mut self, config: &Config) -> Facts {
        let cores = self.system.cpus().len().max(1) as u32;
        let os = [System::name(), System::os_version()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let cpu_model = self.system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
        let (read_at, hardware) = &mut self.hardware;
        if read_at.elapsed() >= HARDWARE_EVERY {
            (*read_at, *hardware) = (Instant::now(), self::hardware(&self.roots));
        }
        Facts {
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            os,
            cpu_model: cpu_model.filter(|model| !model.is_empty()),
            cpu_milli: config.cpu_milli.unwrap_or(cores * 1000),
            memory_bytes: config.memory_bytes.unwrap_or(for_models(self.system.total_memory())),
            disk_free_bytes: self.disk().map(sysinfo::Disk::available_space),
            engines: engine::NAMES.map(str::to_owned).to_vec(),
            isolation: worker::isolation().holds,
            hardware: self.hardware.1.clone(),
            labels: config.labels.clone(),
        }
    }

    /// How its hardware fares now.
    pub fn health(&self) -> Health {
        health(&self.roots, &self.data)
    }

    /// How it fares now.
    pub fn sample(&mut self) -> HostSample {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.disks.refresh(false);
        let power = power::sources(&self.roots);
        HostSample {
            cpu_permille: (self.system.global_cpu_usage() * 10.0).clamp(0.0, 1000.0) as u32,
            memory_used_bytes: self.system.used_memory(),
            memory_bytes: self.system.total_memory(),
            disk_free_bytes: self.disk().map(sysinfo::Disk::available_space),
            disk_bytes: self.disk().map(sysinfo::Disk::total_space),
            temperature_millicelsius: sensors::temperatures(&self.roots).first().map(|hottest| hottest.millicelsius),
            strains: throttling::throttling(&self.roots).now.into_iter().collect(),
            on_mains: power::on_mains(&power),
            battery_percent: power::battery_percent(&power),
        }
    }

    /// The disk that holds the data: the one with the longest mount point above it.
    fn disk(&self) -> Option<&sysinfo::Disk> {
        let holds = |disk: &&sysinfo::Disk| self.data.starts_with(disk.mount_point());
        self.disks.iter().filter(holds).max_by_key(|disk| disk.mount_point().as_os_str().len())
    }
}

#[cfg(test)]
mod boards;
