//! What a machine is made of, and how its hardware fares. Everything here is what a kernel tells; what it does
//! not tell is absent. Lists and texts are bounded where they are read ([`crate::limits`]).

use serde::{Deserialize, Serialize};

/// What a machine is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Hardware {
    /// The board or the machine.
    pub board: Option<Board>,
    /// The system on a chip: `brcm,bcm2711`, `NVIDIA Tegra234`.
    pub soc: Option<String>,
    /// Its processor's cores by kind, the strongest kind first; at most [`crate::limits::CORE_KINDS_MAX`].
    pub cores: Vec<CoreKind>,
    /// What the processor can do that engines make use of: `neon`, `dotprod`, `fp16`, `avx2`, `fma`, …; at
    /// most [`crate::limits::CPU_FEATURES_MAX`].
    pub cpu_features: Vec<String>,
    /// All of its memory.
    pub memory_bytes: Option<u64>,
    /// Room for what does not fit into memory; 0: there is none.
    pub swap_bytes: Option<u64>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The C library that this agent was built for: `glibc`, `musl`.
    pub libc: Option<String>,
    /// What could compute beside the processor; at most [`crate::limits::ACCELERATORS_MAX`].
    pub accelerators: Vec<Accelerator>,
}

/// A board or a machine, by its own name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Board {
    /// `Raspberry Pi 4 Model B Rev 1.4`, `ThinkPad X1 Carbon Gen 9`.
    pub model: String,
    /// Who made it, where the firmware says so apart from the model.
    pub vendor: Option<String>,
    /// The device tree's names for it, the most exact one first.
    pub compatible: Vec<String>,
}

/// Cores of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CoreKind {
    /// How many there are.
    pub count: u32,
    /// `Cortex-A76`; `performance` and `efficient` where a processor has both and tells no more.
    pub name: Option<String>,
    /// What one of them can do: 1024 is the strongest core of this machine.
    pub capacity: Option<u32>,
    /// The highest frequency that the hardware has.
    pub khz_max: Option<u64>,
}

/// Something that could compute beside the processor. That it is here does not mean that an engine uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Accelerator {
    /// What it is for.
    pub kind: AcceleratorKind,
    /// `NVIDIA Orin`, `Coral USB Accelerator`; the driver's name where nothing better is told.
    pub name: String,
    /// The kernel's driver.
    pub driver: Option<String>,
    /// Where it is opened.
    pub node: Option<String>,
    /// Whether the agent may open it; absent: there is nothing to open.
    pub may_open: Option<bool>,
}

/// What an accelerator is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum AcceleratorKind {
    /// Graphics, and what else many small cores do.
    Gpu,
    /// Networks, and nothing else.
    Npu,
}

impl AcceleratorKind {
    /// As a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Gpu => "GPU",
            Self::Npu => "NPU",
        }
    }
}

/// How a machine's hardware fares, at the time of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct Health {
    /// Its sensors, the hottest first; at most [`crate::limits::SENSORS_MAX`].
    pub temperatures: Vec<Temperature>,
    /// What slows it down now.
    pub strains: Vec<Strain>,
    /// What slowed it down since it was started, as far as its firmware remembers.
    pub strains_since_boot: Vec<Strain>,
    /// The highest frequency that is allowed now, where that is less than the hardware has.
    pub khz_allowed: Option<u64>,
    /// What it is fed by; at most [`crate::limits::POWER_SOURCES_MAX`].
    pub power: Vec<PowerSource>,
    /// Where the agent keeps its data.
    pub storage: Option<Storage>,
    /// Mount points of file systems that are meant to be written and may only be read; at most
    /// [`crate::limits::MOUNTS_MAX`].
    pub read_only: Vec<String>,
}

/// One sensor's reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Temperature {
    /// `cpu-thermal`, `nvme Composite`.
    pub sensor: String,
    /// In thousandths of a degree Celsius.
    pub millicelsius: i32,
    /// Where the machine saves itself by stopping.
    pub critical_millicelsius: Option<i32>,
}

/// What makes a machine slower than it is built to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Strain {
    /// Its supply gives too little voltage.
    UnderVoltage,
    /// Its processor may not run as fast as it could.
    FrequencyCapped,
    /// Its firmware or its hardware slows the processor down.
    Throttled,
    /// It is near the temperature at which it is slowed down.
    SoftTemperatureLimit,
    /// The kernel slows the processor or the accelerator down to cool it.
    CoolingDown,
}

impl Strain {
    /// As a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            Self::UnderVoltage => "under-voltage",
            Self::FrequencyCapped => "frequency capped",
            Self::Throttled => "throttled",
            Self::SoftTemperatureLimit => "near its temperature limit",
            Self::CoolingDown => "slowed down to cool",
        }
    }
}

/// What a machine is fed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PowerSource {
    /// The kernel's name for it: `AC`, `BAT0`.
    pub name: String,
    /// What it is.
    pub kind: PowerKind,
    /// Whether it gives power now; of mains.
    pub online: Option<bool>,
    /// How full it is; of a battery.
    pub percent: Option<u8>,
    /// What it does; of a battery.
    pub state: Option<BatteryState>,
}

/// Kinds of power sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum PowerKind {
    /// A battery, or an uninterruptible supply's.
    Battery,
    /// A supply, by whatever plug.
    Mains,
}

/// What a battery does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum BatteryState {
    /// It is being filled.
    Charging,
    /// It feeds the machine.
    Discharging,
    /// It does neither.
    Idle,
}

impl BatteryState {
    /// As a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Charging => "charging",
            Self::Discharging => "discharging",
            Self::Idle => "idle",
        }
    }
}

/// What holds the agent's data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// The whole disk: `mmcblk0`, `nvme0n1`; absent for what is no disk.
    pub device: Option<String>,
    /// What it is.
    pub medium: Option<Medium>,
    /// The file system on it.
    pub filesystem: Option<String>,
    /// Whether it may only be read.
    pub read_only: bool,
    /// How much of its life is used at most, in percent; more than 100: beyond what it was built for.
    pub wear_percent: Option<u8>,
    /// How much of its reserve is used, as it says itself.
    pub reserve: Option<Reserve>,
}

/// What a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Medium {
    /// Flash soldered to the board.
    Emmc,
    /// A card.
    SdCard,
    /// Flash on PCI Express.
    Nvme,
    /// A disk on a SATA or SCSI bus without moving parts.
    Ssd,
    /// A disk with moving parts.
    HardDisk,
    /// Whatever hangs on USB.
    Usb,
    /// A hypervisor's.
    Virtual,
    /// Bare flash.
    Flash,
    /// The machine's memory: gone after a restart.
    Memory,
}

impl Medium {
    /// As a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Emmc => "eMMC",
            Self::SdCard => "SD card",
            Self::Nvme => "NVMe",
            Self::Ssd => "SSD",
            Self::HardDisk => "hard disk",
            Self::Usb => "USB disk",
            Self::Virtual => "virtual disk",
            Self::Flash => "bare flash",
            Self::Memory => "memory",
        }
    }
}

/// How much of an eMMC's spare blocks is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Reserve {
    /// Enough are left.
    Normal,
    /// Four fifths are used.
    Warning,
    /// Nine tenths are used.
    Urgent,
}

impl Reserve {
    /// As a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Warning => "80 % used",
            Self::Urgent => "90 % used",
        }
    }
}
