//! What this machine is and how it fares, as far as its kernel tells.

use std::path::{Path, PathBuf};

use muster_shared::reported::Facts;
use muster_shared::telemetry::HostSample;
use sysinfo::{Components, CpuRefreshKind, Disks, MemoryRefreshKind, RefreshKind, System};

use crate::config::Config;
use crate::{engine, worker};

/// Of a machine's memory, what models may use where its owner says nothing: three quarters.
pub fn for_models(total_bytes: u64) -> u64 {
    total_bytes / 4 * 3
}

/// The machine under watch.
pub struct Machine {
    system: System,
    components: Components,
    disks: Disks,
    data: PathBuf,
}

impl Machine {
    /// Begins to watch. `data` says which disk counts.
    pub fn new(data: &Path) -> Result<Self, sysinfo::Error> {
        let kinds = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
        let (system, disks) = (System::new_with_specifics(kinds)?, Disks::new_with_refreshed_list()?);
        Ok(Self { system, components: Components::new_with_refreshed_list()?, disks, data })
    }

    /// What this machine is.
    pub fn facts(&self, config: &Config) -> Facts {
        let cores = self.system.cpus().len().max(1) as u32;
        let os = [System::name(), System::os_version()].into_iter().flatten().collect::<Vec<_>>().join(" ");
        let cpu_model = self.system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
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
            labels: config.labels.clone(),
        }
    }

    /// How it fares now.
    pub fn sample(&mut self) -> HostSample {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.components.refresh(false);
        self.disks.refresh(false);
        let hottest = self.components.iter().filter_map(sysinfo::Component::temperature).reduce(f32::max);
        HostSample {
            cpu_permille: (self.system.global_cpu_usage() * 10.0).clamp(0.0, 1000.0) as u32,
            memory_used_bytes: self.system.used_memory(),
            memory_bytes: self.system.total_memory(),
            disk_free_bytes: self.disk().map(sysinfo::Disk::available_space),
            disk_bytes: self.disk().map(sysinfo::Disk::total_space),
            temperature_millicelsius: hottest.map(|celsius| (celsius * 1000.0) as i32),
        }
    }

    /// The disk that holds the data: the one with the longest mount point above it.
    fn disk(&self) -> Option<&sysinfo::Disk> {
        let holds = |disk: &&sysinfo::Disk| self.data.starts_with(disk.mount_point());
        self.disks.iter().filter(holds).max_by_key(|disk| disk.mount_point().as_os_str().len())
    }
}
