//! The processor: its cores by kind, and what engines can make use of.

use std::collections::{BTreeMap, BTreeSet};

use muster_shared::hardware::CoreKind;
use muster_shared::limits::{CORE_KINDS_MAX, CPU_FEATURES_MAX};

use super::roots::{Roots, listed, number, table, text};

/// Features that matter to engines: as the kernel spells them, and as they are reported.
const FEATURES: [(&str, &str); 32] = [
    ("neon", "neon"),
    ("asimd", "neon"),
    ("vfpv4", "vfpv4"),
    ("asimdhp", "fp16"),
    ("asimddp", "dotprod"),
    ("i8mm", "i8mm"),
    ("bf16", "bf16"),
    ("sve", "sve"),
    ("sve2", "sve2"),
    ("svei8mm", "svei8mm"),
    ("svebf16", "svebf16"),
    ("sme", "sme"),
    ("sme2", "sme2"),
    ("sse4_2", "sse4.2"),
    ("f16c", "f16c"),
    ("fma", "fma"),
    ("avx", "avx"),
    ("avx2", "avx2"),
    ("avx_vnni", "avx-vnni"),
    ("avx512f", "avx512f"),
    ("avx512bw", "avx512bw"),
    ("avx512vl", "avx512vl"),
    ("avx512_vnni", "avx512-vnni"),
    ("avx512_bf16", "avx512-bf16"),
    ("avx512_fp16", "avx512-fp16"),
    ("amx_tile", "amx-tile"),
    ("amx_int8", "amx-int8"),
    ("amx_bf16", "amx-bf16"),
    ("v", "rvv"),
    ("lsx", "lsx"),
    ("lasx", "lasx"),
    ("msa", "msa"),
];

/// Cores by the maker's number and theirs.
const PARTS: [(u32, u32, &str); 29] = [
    (0x41, 0xb76, "ARM1176"),
    (0x41, 0xc05, "Cortex-A5"),
    (0x41, 0xc07, "Cortex-A7"),
    (0x41, 0xc08, "Cortex-A8"),
    (0x41, 0xc09, "Cortex-A9"),
    (0x41, 0xc0e, "Cortex-A17"),
    (0x41, 0xc0f, "Cortex-A15"),
    (0x41, 0xd01, "Cortex-A32"),
    (0x41, 0xd03, "Cortex-A53"),
    (0x41, 0xd04, "Cortex-A35"),
    (0x41, 0xd05, "Cortex-A55"),
    (0x41, 0xd07, "Cortex-A57"),
    (0x41, 0xd08, "Cortex-A72"),
    (0x41, 0xd09, "Cortex-A73"),
    (0x41, 0xd0a, "Cortex-A75"),
    (0x41, 0xd0b, "Cortex-A76"),
    (0x41, 0xd0c, "Neoverse-N1"),
    (0x41, 0xd0d, "Cortex-A77"),
    (0x41, 0xd40, "Neoverse-V1"),
    (0x41, 0xd41, "Cortex-A78"),
    (0x41, 0xd42, "Cortex-A78AE"),
    (0x41, 0xd44, "Cortex-X1"),
    (0x41, 0xd46, "Cortex-A510"),
    (0x41, 0xd47, "Cortex-A710"),
    (0x41, 0xd49, "Neoverse-N2"),
    (0x41, 0xd4b, "Cortex-A78C"),
    (0x41, 0xd80, "Cortex-A520"),
    (0x4e, 0x003, "Denver 2"),
    (0x4e, 0x004, "Carmel"),
];

/// What `/proc/cpuinfo` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CpuInfo {
    /// What every core can do, as it is reported.
    pub features: Vec<String>,
    /// Each processor's maker and part, where they are told.
    pub parts: BTreeMap<u32, (u32, u32)>,
    /// Processors that are listed.
    pub processors: BTreeSet<u32>,
}

/// Reads `/proc/cpuinfo`.
pub fn parse(table: &str) -> CpuInfo {
    let mut info = CpuInfo::default();
    let mut common: Option<BTreeSet<&str>> = None;
    let (mut processor, mut implementer) = (None, None);
    for line in table.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key.trim() {
            "processor" => {
                processor = value.parse::<u32>().ok();
                info.processors.extend(processor);
            }
            "Features" | "flags" => {
                let has: BTreeSet<&str> = value.split_whitespace().collect();
                common = Some(match common {
                    Some(common) => common.intersection(&has).copied().collect(),
                    None => has,
                });
            }
            "CPU implementer" => implementer = hexadecimal(value),
            "CPU part" => {
                if let (Some(processor), Some(implementer), Some(part)) = (processor, implementer, hexadecimal(value)) {
                    info.parts.insert(processor, (implementer, part));
                }
            }
            _ => {}
        }
    }
    let common = common.unwrap_or_default();
    for (kernels, ours) in FEATURES {
        let is_new = !info.features.iter().any(|known| known == ours);
        if is_new && info.features.len() < CPU_FEATURES_MAX && common.contains(kernels) {
            info.features.push(ours.to_owned());
        }
    }
    info
}

fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// What `/proc/cpuinfo` says of this machine.
pub fn info(roots: &Roots) -> CpuInfo {
    parse(&table(&roots.proc.join("cpuinfo")).unwrap_or_default())
}

/// Its cores by kind, the strongest first.
pub fn cores(roots: &Roots, info: &CpuInfo) -> Vec<CoreKind> {
    let folder = roots.sys.join("devices/system/cpu");
    let online = text(&folder.join("online")).map(|list| listed(&list)).filter(|online| !online.is_empty());
    let online = online.unwrap_or_else(|| info.processors.iter().copied().collect());
    // Processors of x86 with two kinds of cores have two counters of events.
    let hybrid = |kind: &str| text(&roots.sys.join("devices").join(kind).join("cpus")).map(|list| listed(&list));
    let hybrid = hybrid("cpu_core").zip(hybrid("cpu_atom"));
    let mut kinds: BTreeMap<(Option<u32>, Option<String>), CoreKind> = BTreeMap::new();
    for number_of in online {
        let cpu = folder.join(format!("cpu{number_of}"));
        let capacity: Option<u32> = number(&cpu.join("cpu_capacity"));
        let part = info.parts.get(&number_of);
        let known = part.and_then(|part| PARTS.iter().find(|(maker, number, _)| (*maker, *number) == *part));
        let name = known.map(|(_, _, name)| *name).or_else(|| match &hybrid {
            Some((strong, _)) if strong.contains(&number_of) => Some("performance"),
            Some((_, weak)) if weak.contains(&number_of) => Some("efficient"),
            _ => None,
        });
        let name = name.map(str::to_owned);
        let kind = kinds.entry((capacity, name.clone())).or_insert(CoreKind { name, capacity, ..CoreKind::default() });
        kind.count += 1;
        kind.khz_max = kind.khz_max.max(number(&cpu.join("cpufreq/cpuinfo_max_freq")));
    }
    let mut kinds: Vec<_> = kinds.into_values().collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse((kind.capacity, kind.khz_max)));
    kinds.truncate(CORE_KINDS_MAX);
    kinds
}
