//! `cargo xtask cards`: `muster flash` with real drives. In a machine that QEMU plays, of this machine's own kind,
//! stand a USB stick, an SD card, a stick with its lock on, one that is too small, one that fails in its middle,
//! one that is pulled out, and a disk that is built in. What the console said is looked at, and then the drives.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use muster_provisioning::disk::cpio::{Node, Tree};
use muster_provisioning::disk::table::{Kind, Planned};
use muster_provisioning::disk::{Window, fat, table};
use muster_provisioning::image::apt::{self, Wanted};
use muster_provisioning::image::package::Package;
use muster_provisioning::image::{Architecture, Kernel, system};
use muster_provisioning::patch::source::pack;
use muster_world::{last_lines, output, until};
use uuid::Uuid;

use crate::boot::{packages, programs};
use crate::setup;

/// Emulation is slow, and machines are busy.
const DEADLINE: Duration = Duration::from_secs(600);
const MIB: u64 = 1024 * 1024;
const IMAGE_BYTES: u64 = 32 * MIB;
/// What is done in the machine: a word for the console, and what must stand there then.
const EXPECTED: [(&str, &[&str]); 12] = [
    ("list", &["USB", "SD", "may be written", "it can only be read", "it cannot be taken out of this machine"]),
    ("two", &["mmcblk0: 32.00 MiB written and read back", "exit 0"]),
    ("mounted", &["is mounted at /mnt", "umount '/mnt'", "exit 1"]),
    ("part", &["is a part of the drive", "name the whole drive", "exit 1"]),
    ("hidden", &["is in use: something mounted it", "exit 1"]),
    ("locked", &["it can only be read", "exit 1"]),
    ("small", &["it holds 16777216 bytes, and at least", "exit 1"]),
    ("fixed", &["it cannot be taken out of this machine", "exit 1", "vda: 32.00 MiB written and read back", "exit 0"]),
    ("swap", &["this machine runs from it (vda is swap)", "exit 1"]),
    (
        "bad",
        &["cannot write at byte 20971520", "it is erased and starts nothing", "mmcblk0: 32.00 MiB written", "exit 1"],
    ),
    ("stopped", &["error: stopped; ", "it is erased and starts nothing", "exit 1"]),
    ("pulled", &["it is erased and starts nothing", "exit 1"]),
];

/// Runs it.
pub fn run() -> anyhow::Result<()> {
    let (architecture, emulator, package) = match std::env::consts::ARCH {
        "x86_64" => (Architecture::Amd64, "qemu-system-x86_64", "qemu-system-x86"),
        "aarch64" => (Architecture::Arm64, "qemu-system-aarch64", "qemu-system-arm"),
        other => bail!("no machine of this kind ({other}) is known to play"),
    };
    setup::program(emulator, package)?;
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let muster = programs()?.muster;
    let wanted = Wanted { architecture, kernel: Kernel::Generic, mirror: None };
    let files = apt::fetch(&wanted, &packages()?, &|text| eprintln!("{text}"))?;
    let read: Vec<Package> = files.iter().map(|file| Package::read(file)).collect::<Result<_, _>>()?;
    let system = system::boot_only(&read, architecture, include_str!("../cards/init.sh"))?;
    std::fs::write(at("linux"), &system.linux)?;
    let mut initrd = system.initrd.clone();
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    more(&muster, &at("image.img"))?.archive(&mut initrd)?;
    std::fs::write(at("initrd"), &initrd)?;

    let mut machine = start(architecture, emulator, folder.path())?;
    until("the stick to be written", DEADLINE, || {
        running(&mut machine, &at("console"))?;
        Ok(said(&at("console"))?.contains("@@ pull now").then_some(()))
    })?;
    // Open to the end: what a connection that closes has said is not always heard.
    let mut monitor = UnixStream::connect(at("monitor"))?;
    monitor.write_all(b"device_del pull\n")?;
    until("the machine to switch itself off", DEADLINE, || Ok(machine.try_wait()?))?;
    drop(monitor);
    let console = said(&at("console"))?.replace('\r', "");
    for (part, expected) in EXPECTED {
        let said = console.split(&format!("@@ {part}\n")).nth(1).and_then(|rest| rest.split("@@ ").next());
        let said = said.with_context(|| format!("{part} was never reached:\n{}", last_lines(&at("console"))))?;
        for words in expected {
            ensure!(said.contains(words), "{part}: {words:?} is not in\n{said}");
        }
        println!("{part:<8} ok");
    }
    for (disk, claim) in [("stick", "name=edge-1"), ("fixed", "")] {
        look(&at(disk), claim).with_context(|| format!("the {disk}, after the machine was switched off"))?;
    }
    for disk in ["bad", "slow", "pull"] {
        let mut head = vec![0; MIB as usize];
        File::open(at(disk))?.read_exact(&mut head)?;
        ensure!(head.iter().all(|byte| *byte == 0), "{disk} was begun and not finished, and starts something");
    }
    println!("drives   ok");
    Ok(())
}

/// What the machine brings beside its system: the program with its libraries, an image, and claims.
fn more(muster: &Path, image: &Path) -> anyhow::Result<Tree> {
    let mut tree = Tree::new();
    let bytes = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    tree.put("usr/bin/muster", Node::File(bytes(muster)?.into(), true));
    let needs = output(Command::new("ldd").arg(muster))?;
    let paths = needs.lines().flat_map(str::split_whitespace).filter(|word| word.starts_with('/'));
    for library in paths {
        // `/lib` and `/lib64` are links in the machine.
        let place = library.trim_start_matches('/');
        let is_link = place.starts_with("lib/") || place.starts_with("lib64/");
        let place = if is_link { format!("usr/{place}") } else { place.to_owned() };
        tree.put(&place, Node::File(bytes(Path::new(library))?.into(), true));
    }
    let mut file = File::options().create_new(true).read(true).write(true).open(image)?;
    make_image(&mut file)?;
    let packed = image.with_added_extension("xz");
    pack(&mut file, &packed)?;
    tree.put("image.img.xz", Node::File(bytes(&packed)?.into(), false));
    for folder in ["kit/taken", "kit/flashed"] {
        tree.put(folder, Node::Folder);
    }
    for number in 1..=2 {
        let digest = "a".repeat(64);
        let text = format!("url=https://plane:8443\nroot-digest={digest}\nca-digest={digest}\nname=edge-{number}\n");
        tree.text(&format!("kit/cards/0000{number}-edge-{number}.enrol"), &text);
    }
    Ok(tree)
}

/// A table with a boot partition, and something in it.
fn make_image(file: &mut File) -> anyhow::Result<()> {
    file.set_len(IMAGE_BYTES)?;
    let planned = Planned { name: "boot", kind: Kind::Efi, first: 2048, sectors: 24 * 2048, id: Uuid::from_u128(2) };
    table::write(file, IMAGE_BYTES / 512, Uuid::from_u128(1), &[planned])?;
    let mut window = Window::new(&mut *file, MIB, 24 * MIB)?;
    fatfs::format_volume(&mut window, fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat16))?;
    let noise: Vec<u8> = (0..4 * MIB).map(|at| (at / 777) as u8).collect();
    fat::change(&mut window, |system| fat::put(system, "noise.bin", &noise))?;
    Ok(())
}

/// Table, file system and claim, as another reader finds them.
fn look(disk: &Path, claim: &str) -> anyhow::Result<()> {
    let mut file = File::options().read(true).write(true).open(disk)?;
    let (_, partitions) = table::read(&mut file)?;
    let boot = partitions.first().context("no partition")?;
    let mut window = Window::new(&mut file, boot.start, boot.bytes)?;
    let system = fat::open(&mut window)?;
    let found = fat::get(&system, "muster/enrol")?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(found.as_deref().unwrap_or_default().contains(claim), "{found:?} does not say {claim}");
    Ok(())
}

fn start(architecture: Architecture, emulator: &str, folder: &Path) -> anyhow::Result<Child> {
    let at = |name: &str| folder.join(name);
    let disk = |name: &str, mib: u64| -> anyhow::Result<PathBuf> {
        File::create_new(at(name))?.set_len(mib * MIB)?;
        Ok(at(name))
    };
    let (machine, serial) = match architecture {
        Architecture::Amd64 => (&["-M", "q35"][..], "ttyS0"),
        Architecture::Arm64 => (&["-M", "virt", "-cpu", "cortex-a72"][..], "ttyAMA0"),
    };
    // The sector at 20 MiB cannot be written.
    std::fs::write(at("errors"), "[inject-error]\nevent = \"write_aio\"\nerrno = \"5\"\nsector = \"40960\"\n")?;
    let mut command = Command::new(emulator);
    command.args(machine).args(["-m", "768", "-smp", "1", "-accel", "tcg", "-no-reboot", "-nic", "none"]);
    command.arg("-kernel").arg(at("linux")).arg("-initrd").arg(at("initrd"));
    command.arg("-append").arg(format!("console={serial} quiet panic=-1"));
    command.args(["-display", "none", "-serial", "stdio", "-device", "qemu-xhci,id=usb", "-device", "sdhci-pci"]);
    command.arg("-monitor").arg(format!("unix:{},server=on,wait=off", at("monitor").display()));
    // Sizes tell the sticks apart, whatever order the kernel finds them in.
    let sticks = [
        ("stick", 100, ""),
        ("locked", 64, ",readonly=on"),
        ("small", 16, ""),
        ("bad", 72, ""),
        ("slow", 80, ",throttling.bps-write=4000000"),
        ("pull", 88, ",throttling.bps-write=4000000"),
    ];
    for (name, mib, more) in sticks {
        let file = disk(name, mib)?;
        let file = match name {
            "bad" => format!("blkdebug:{}:{}", at("errors").display(), file.display()),
            _ => file.display().to_string(),
        };
        command.arg("-drive").arg(format!("if=none,id=d-{name},file={file},format=raw,werror=report{more}"));
        command.arg("-device").arg(format!("usb-storage,bus=usb.0,drive=d-{name},removable=on,id={name}"));
    }
    command.arg("-drive").arg(format!("if=none,id=d-card,file={},format=raw", disk("card", 128)?.display()));
    command.args(["-device", "sd-card,drive=d-card"]);
    command.arg("-drive").arg(format!("if=none,id=d-fixed,file={},format=raw", disk("fixed", 64)?.display()));
    command.args(["-device", "virtio-blk-pci,drive=d-fixed"]);
    let console = File::create(at("console"))?;
    let child = command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console).spawn();
    child.with_context(|| format!("cannot start {emulator}"))
}

/// What the machine has said so far; perhaps half of a letter at the end.
fn said(console: &Path) -> anyhow::Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read(console)?).into_owned())
}

fn running(machine: &mut Child, console: &Path) -> anyhow::Result<()> {
    match machine.try_wait()? {
        Some(status) => bail!("the machine ended ({status}):\n{}", last_lines(console)),
        None => Ok(()),
    }
}
