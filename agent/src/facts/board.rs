//! The board, its chip, its kernel and its memory.

use muster_shared::hardware::Board;
use muster_shared::limits::COMPATIBLE_MAX;

use super::roots::{Roots, number, table, text, texts};

/// What makers leave in their firmware where a name should be.
const NO_NAMES: [&str; 9] = [
    "to be filled by o.e.m.",
    "default string",
    "system product name",
    "system manufacturer",
    "not specified",
    "not applicable",
    "undefined",
    "none",
    "o.e.m.",
];

/// The board: by its device tree, else by its firmware.
pub fn board(roots: &Roots) -> Option<Board> {
    let trees = [roots.sys.join("firmware/devicetree/base"), roots.proc.join("device-tree")];
    let tree = trees.iter().find(|tree| tree.join("compatible").exists());
    if let Some(tree) = tree {
        let mut compatible = texts(&tree.join("compatible"));
        compatible.truncate(COMPATIBLE_MAX);
        let model = text(&tree.join("model")).or_else(|| compatible.first().cloned())?;
        return Some(Board { model, vendor: None, compatible });
    }
    let told = |file: &str| {
        let name = text(&roots.sys.join("class/dmi/id").join(file))?;
        (!NO_NAMES.contains(&name.to_ascii_lowercase().as_str())).then_some(name)
    };
    let model = told("product_name").or_else(|| told("board_name"))?;
    Some(Board { model, vendor: told("sys_vendor").or_else(|| told("board_vendor")), compatible: vec![] })
}

/// The chip: the device tree names it last, after the boards; else what its driver says.
pub fn soc(roots: &Roots, board: Option<&Board>) -> Option<String> {
    let compatible = board.map_or(&[][..], |board| &board.compatible);
    if let [_, .., chip] = compatible {
        return Some(chip.clone());
    }
    let says = |file: &str| text(&roots.sys.join("devices/soc0").join(file));
    let words: Vec<String> = [says("family"), says("soc_id")].into_iter().flatten().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The kernel's release.
pub fn kernel(roots: &Roots) -> Option<String> {
    text(&roots.proc.join("sys/kernel/osrelease"))
}

/// The C library that this program was built for.
pub fn libc() -> Option<String> {
    let name = match () {
        () if cfg!(target_env = "gnu") => "glibc",
        () if cfg!(target_env = "musl") => "musl",
        () => return None,
    };
    Some(name.to_owned())
}

/// Bytes of memory and of swap.
pub fn memory(roots: &Roots) -> (Option<u64>, Option<u64>) {
    let table = table(&roots.proc.join("meminfo")).unwrap_or_default();
    (kilobytes(&table, "MemTotal"), kilobytes(&table, "SwapTotal"))
}

/// A line of `meminfo`, in bytes.
pub fn kilobytes(table: &str, key: &str) -> Option<u64> {
    let value = table.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether a file of a number says something else than zero.
pub(super) fn is_set(path: &std::path::Path) -> bool {
    number::<u64>(path).is_some_and(|value| value != 0)
}
