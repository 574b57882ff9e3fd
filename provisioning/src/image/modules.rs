//! Which of a kernel's modules an image takes along, and the lists by which the device finds one for a piece of
//! hardware. The modules themselves say what they need and what they drive; `depmod` is not asked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::sync::Arc;

use crate::disk::cpio::{Node, Tree};

/// What every device needs: file systems, and the variables of the firmware.
const ALWAYS: [&str; 6] = ["ext4", "vfat", "nls_cp437", "nls_ascii", "nls_utf8", "efivarfs"];
/// Folders of a kernel's drivers that boards, small PCs and virtual machines need to start, to reach a wired
/// network and to be watched. Not here: graphics, sound, cameras, wireless (whose firmware Debian has apart).
const FOLDERS: [&str; 37] = [
    "drivers/ata/",
    "drivers/block/virtio_blk",
    "drivers/bus/",
    "drivers/char/hw_random/",
    "drivers/char/tpm/",
    "drivers/clk/",
    "drivers/cpufreq/",
    "drivers/dma/",
    "drivers/extcon/",
    "drivers/firmware/",
    "drivers/gpio/",
    "drivers/hwmon/",
    "drivers/i2c/busses/",
    "drivers/mailbox/",
    "drivers/mfd/",
    "drivers/mmc/",
    "drivers/net/ethernet/",
    "drivers/net/mdio/",
    "drivers/net/phy/",
    "drivers/net/usb/",
    "drivers/net/virtio_net",
    "drivers/nvme/host/",
    "drivers/nvmem/",
    "drivers/pci/",
    "drivers/phy/",
    "drivers/pinctrl/",
    "drivers/pwm/",
    "drivers/regulator/",
    "drivers/reset/",
    "drivers/rtc/",
    "drivers/scsi/s",
    "drivers/scsi/virtio_scsi",
    "drivers/soc/",
    "drivers/thermal/",
    "drivers/usb/",
    "drivers/virtio/",
    "drivers/watchdog/",
];
/// Of those, what only data centres have, or what makes a device something else.
const NOT: [&str; 22] = [
    "drivers/net/ethernet/broadcom/bnx2x/",
    "drivers/net/ethernet/brocade/",
    "drivers/net/ethernet/cavium/",
    "drivers/net/ethernet/chelsio/",
    "drivers/net/ethernet/cisco/",
    "drivers/net/ethernet/fungible/",
    "drivers/net/ethernet/hisilicon/",
    "drivers/net/ethernet/huawei/",
    "drivers/net/ethernet/mellanox/",
    "drivers/net/ethernet/netronome/",
    "drivers/net/ethernet/pensando/",
    "drivers/net/ethernet/qlogic/",
    "drivers/net/ethernet/sfc/",
    "drivers/nvme/host/nvme-f",
    "drivers/nvme/host/nvme-rdma",
    "drivers/nvme/host/nvme-tcp",
    "drivers/scsi/snic/",
    "drivers/usb/gadget/",
    "drivers/usb/serial/",
    "drivers/usb/usbip/",
    "drivers/usb/image/",
    "drivers/watchdog/softdog",
];

/// What a module says of itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Told {
    depends: Vec<String>,
    before: Vec<String>,
    aliases: Vec<String>,
}

/// A kernel's module.
#[derive(Debug)]
struct Module {
    /// Below `/usr/lib/modules/VERSION/`, without what it is packed with.
    place: String,
    bytes: Arc<[u8]>,
    told: Told,
}

/// Why there are no modules.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ModuleError {
    #[error("the kernel's package has no folder usr/lib/modules/VERSION")]
    NoKernel,
    #[error("the module {name} cannot be unpacked")]
    Unpack {
        name: String,
        #[source]
        source: std::io::Error,
    },
}

/// The version of the kernel that an unpacked package holds.
pub fn version(kernel: &Tree) -> Result<String, ModuleError> {
    let folder = kernel.iter().find_map(|(path, _)| path.strip_prefix("usr/lib/modules/")?.split('/').next());
    folder.map(str::to_owned).ok_or(ModuleError::NoKernel)
}

/// Takes the modules that devices need from an unpacked kernel's package, with the lists for `modprobe`.
pub fn take(kernel: &Tree, system: &mut Tree) -> Result<(), ModuleError> {
    let version = version(kernel)?;
    let folder = format!("usr/lib/modules/{version}/");
    let all = read(kernel, &folder)?;
    let chosen = choose(&all);
    for name in &chosen {
        let module = &all[name];
        system.put(&format!("{folder}{}", module.place), Node::File(module.bytes.clone(), false));
    }
    let (dependencies, aliases) = lists(&all, &chosen);
    system.text(&format!("{folder}modules.dep"), &dependencies);
    system.text(&format!("{folder}modules.alias"), &aliases);
    // `modprobe` asks for it, and has it from the modules already.
    system.text(&format!("{folder}modules.symbols"), "");
    for name in ["modules.builtin", "modules.order"] {
        if let Some(node) = kernel.get(&format!("{folder}{name}")) {
            system.put(&format!("{folder}{name}"), node.clone());
        }
    }
    Ok(())
}

fn read(kernel: &Tree, folder: &str) -> Result<BTreeMap<String, Module>, ModuleError> {
    let mut all = BTreeMap::new();
    for (path, node) in kernel.iter() {
        let (Some(place), Node::File(packed, _)) = (path.strip_prefix(folder), node) else { continue };
        let (place, bytes) = if let Some(place) = place.strip_suffix(".xz") {
            (place, unpack(place, liblzma::read::XzDecoder::new(&packed[..]))?)
        } else if let Some(place) = place.strip_suffix(".zst") {
            let unpacker = zstd::stream::read::Decoder::new(&packed[..]);
            (place, unpack(place, unpacker.map_err(|source| ModuleError::Unpack { name: place.to_owned(), source })?)?)
        } else {
            (place, packed.clone())
        };
        let Some(name) = place.rsplit('/').next().and_then(|name| name.strip_suffix(".ko")) else { continue };
        let told = told(&bytes).unwrap_or_default();
        all.insert(plain(name), Module { place: place.to_owned(), bytes, told });
    }
    Ok(all)
}

fn unpack(name: &str, from: impl std::io::Read) -> Result<Arc<[u8]>, ModuleError> {
    /// The largest is a tenth of that.
    const BYTES_MAX: u64 = 256 << 20;
    let mut bytes = vec![];
    from.take(BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|source| ModuleError::Unpack { name: name.to_owned(), source })?;
    Ok(bytes.into())
}

/// Names are written with `-` and `_`, and mean the same.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// What is wanted, and all that it needs.
fn choose(all: &BTreeMap<String, Module>) -> BTreeSet<String> {
    let wanted = |place: &str| {
        let place = place.strip_prefix("kernel/").unwrap_or(place);
        let in_one = |folders: &[&str]| folders.iter().any(|folder| place.starts_with(folder));
        in_one(&FOLDERS) && !in_one(&NOT)
    };
    let named = ALWAYS.iter().map(|name| (*name).to_owned());
    let driving = all.iter().filter(|(_, module)| wanted(&module.place)).map(|(name, _)| name.clone());
    let mut open: Vec<String> = named.chain(driving).collect();
    let mut chosen = BTreeSet::new();
    while let Some(name) = open.pop() {
        for name in meant(all, &name) {
            if chosen.insert(name.clone()) {
                open.extend(all[name].told.depends.iter().chain(&all[name].told.before).cloned());
            }
        }
    }
    chosen
}

/// The modules that a name means: its own, or all that do what it stands for, `crypto-crc32c` for one. What is
/// built into this kernel has none.
fn meant<'a>(all: &'a BTreeMap<String, Module>, name: &str) -> Vec<&'a String> {
    if let Some((name, _)) = all.get_key_value(name) {
        return vec![name];
    }
    let asked = [name.to_owned(), format!("crypto_{name}")];
    let is = |module: &Module| module.told.aliases.iter().any(|alias| asked.contains(&plain(alias)));
    all.iter().filter(|(_, module)| is(module)).map(|(name, _)| name).collect()
}

/// `modules.dep` and `modules.alias`.
fn lists(all: &BTreeMap<String, Module>, chosen: &BTreeSet<String>) -> (String, String) {
    let (mut dependencies, mut aliases) = (String::new(), String::new());
    for name in chosen {
        let mut needed = vec![];
        gather(all, name, &mut BTreeSet::from([name.as_str()]), &mut needed);
        // `modprobe` loads what stands last first.
        let places: Vec<&str> = needed.iter().rev().map(|name| all[*name].place.as_str()).collect();
        dependencies.push_str(&format!(
            "{}:{}\n",
            all[name].place,
            places.iter().map(|p| format!(" {p}")).collect::<String>()
        ));
        for alias in &all[name].told.aliases {
            aliases.push_str(&format!("alias {alias} {name}\n"));
        }
    }
    (dependencies, aliases)
}

/// Of what a name means, what every processor can load. One that does the same faster on some is left to the kernel,
/// which asks for it by itself: here a module that cannot be loaded keeps those back that name it.
fn sure<'a>(all: &'a BTreeMap<String, Module>, name: &str) -> Vec<&'a String> {
    let meant = meant(all, name);
    if all.contains_key(name) { meant } else { meant.into_iter().filter(|name| name.ends_with("_generic")).collect() }
}

/// All that a module needs, each behind what it needs itself.
fn gather<'a>(all: &'a BTreeMap<String, Module>, name: &str, seen: &mut BTreeSet<&'a str>, needed: &mut Vec<&'a str>) {
    let told = &all[name].told;
    let hard = told.depends.iter().flat_map(|next| meant(all, next));
    for next in hard.chain(told.before.iter().flat_map(|next| sure(all, next))) {
        if next != name && seen.insert(next) {
            gather(all, next, seen, needed);
            needed.push(next);
        }
    }
}

/// Reads the part `.modinfo` of a module; none: it has none.
fn told(bytes: &[u8]) -> Option<Told> {
    let short = |at: usize| Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)));
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    let long = |at: usize| usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok();
    let (table, size, count, names) = (long(0x28)?, short(0x3a)?, short(0x3c)?, short(0x3e)?);
    let at = |number: usize| table.checked_add(number.checked_mul(size)?);
    let names = long(at(names)?.checked_add(24)?)?;
    let mut found = Told::default();
    for number in 0..count {
        let section = at(number)?;
        let name = names.checked_add(word(section)?)?;
        if bytes.get(name..)?.starts_with(b".modinfo\0") {
            let (start, length) = (long(section.checked_add(24)?)?, long(section.checked_add(32)?)?);
            let text = bytes.get(start..start.checked_add(length)?)?;
            for line in text.split(|byte| *byte == 0) {
                note(&String::from_utf8_lossy(line), &mut found);
            }
        }
    }
    Some(found)
}

fn note(line: &str, found: &mut Told) {
    let Some((key, value)) = line.split_once('=') else { return };
    match key {
        "alias" => found.aliases.push(value.to_owned()),
        "depends" => found.depends.extend(value.split(',').filter(|name| !name.is_empty()).map(plain)),
        "softdep" => {
            let first = value.split("post:").next().unwrap_or_default();
            if let Some((_, names)) = first.split_once("pre:") {
                found.before.extend(names.split_whitespace().map(plain));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(place: &str, depends: &[&str], before: &[&str]) -> (String, Module) {
        let name = place.rsplit('/').next().and_then(|name| name.strip_suffix(".ko")).expect("a name");
        let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let told = Told { depends: own(depends), before: own(before), aliases: vec![format!("of:{name}")] };
        (plain(name), Module { place: place.to_owned(), bytes: Arc::from(*b"ko"), told })
    }

    #[test]
    fn what_is_taken_brings_what_it_needs_and_no_more() {
        let (_, mut crc32c) = module("kernel/crypto/crc32c_generic.ko", &[], &[]);
        crc32c.told.aliases = vec!["crypto-crc32c".to_owned()];
        let all: BTreeMap<_, _> = [
            module("kernel/drivers/mmc/host/sdhci-iproc.ko", &["sdhci"], &[]),
            module("kernel/drivers/mmc/host/sdhci.ko", &["mmc_core"], &[]),
            module("kernel/drivers/mmc/core/mmc_core.ko", &[], &[]),
            module("kernel/fs/ext4/ext4.ko", &["jbd2", "built_in"], &["crypto_crc32c"]),
            module("kernel/fs/jbd2/jbd2.ko", &[], &[]),
            ("crc32c_generic".to_owned(), crc32c),
            module("kernel/sound/snd.ko", &[], &[]),
            module("kernel/drivers/net/ethernet/mellanox/mlx5_core.ko", &[], &[]),
        ]
        .into();
        let chosen = choose(&all);
        let names: Vec<&str> = chosen.iter().map(String::as_str).collect();
        assert_eq!(names, ["crc32c_generic", "ext4", "jbd2", "mmc_core", "sdhci", "sdhci_iproc"]);
        let (dependencies, aliases) = lists(&all, &chosen);
        let line = "kernel/drivers/mmc/host/sdhci-iproc.ko: kernel/drivers/mmc/host/sdhci.ko \
                    kernel/drivers/mmc/core/mmc_core.ko\n";
        assert!(dependencies.contains(line), "{dependencies}");
        assert!(dependencies.contains("ext4.ko: kernel/crypto/crc32c_generic.ko kernel/fs/jbd2/jbd2.ko\n"));
        assert!(aliases.contains("alias of:sdhci-iproc sdhci_iproc\n"));
    }

    #[test]
    fn what_is_needed_by_another_need_is_loaded_before_it() {
        let all: BTreeMap<_, _> = [
            module("kernel/fs/ext4/ext4.ko", &["ring", "virtio"], &[]),
            module("kernel/lib/virtio.ko", &["ring"], &[]),
            module("kernel/lib/ring.ko", &[], &[]),
        ]
        .into();
        let (dependencies, _) = lists(&all, &choose(&all));
        assert!(dependencies.contains("ext4.ko: kernel/lib/virtio.ko kernel/lib/ring.ko\n"), "{dependencies}");
    }

    /// A disk's driver was not loaded on processors that compute its checksum by no instruction of their own.
    #[test]
    fn a_module_for_some_processors_keeps_none_back() {
        let mut all: BTreeMap<_, _> = [
            module("kernel/drivers/scsi/sd_mod.ko", &["crc_t10dif"], &[]),
            module("kernel/lib/crc-t10dif.ko", &[], &["crct10dif"]),
            module("kernel/crypto/crct10dif_generic.ko", &[], &[]),
            module("kernel/arch/x86/crypto/crct10dif-pclmul.ko", &[], &[]),
        ]
        .into();
        for name in ["crct10dif_generic", "crct10dif_pclmul"] {
            all.get_mut(name).expect("a module").told.aliases.push("crct10dif".to_owned());
        }
        let chosen = choose(&all);
        assert_eq!(chosen.len(), 4, "the fast one is there, for whom it serves");
        let (dependencies, _) = lists(&all, &chosen);
        let line = "sd_mod.ko: kernel/lib/crc-t10dif.ko kernel/crypto/crct10dif_generic.ko\n";
        assert!(dependencies.contains(line), "{dependencies}");
    }

    #[test]
    fn a_circle_of_modules_ends() {
        let all: BTreeMap<_, _> =
            [module("kernel/fs/ext4/ext4.ko", &["b"], &[]), module("kernel/lib/b.ko", &["ext4"], &[])].into();
        let chosen = choose(&all);
        assert_eq!(lists(&all, &chosen).0.lines().count(), 2);
    }

    #[test]
    fn words_of_a_module_are_read() {
        let mut found = Told::default();
        for line in ["license=GPL", "depends=nvme-core,crc_t10dif", "softdep=pre: a-b c post: d", "alias=pci:v1"] {
            note(line, &mut found);
        }
        let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let before = own(&["a_b", "c"]);
        assert_eq!(found, Told { depends: own(&["nvme_core", "crc_t10dif"]), before, aliases: own(&["pci:v1"]) });
        assert_eq!(told(b"\x7fELF"), None);
    }
}
