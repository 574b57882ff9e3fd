//! New systems in the other slot that are no good: one that does not boot, one that hangs, one that works but does
//! not reach the control plane. Each uses up its tries, and the old one returns, without anybody's hand.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};

use anyhow::{Context as _, ensure};
use muster_provisioning::disk::cpio::Tree;
use muster_provisioning::disk::{Window, fat};
use muster_provisioning::image::entry::{self, Entry, Name, Slot};

use super::fleet::{Fleet, esp};
use super::machine::Machine;

/// How often a new system may try.
const TRIES: usize = entry::TRIES as usize;

/// How a new system is no good.
struct Fault {
    device: &'static str,
    /// Words for its kernel.
    options: &'static [&'static str],
    /// Files of its own, over those of the old one.
    files: Tree,
    /// What each of its tries says.
    sign: &'static str,
}

/// One whose kernel finds nothing to run: it panics.
pub fn broken(fleet: &mut Fleet) -> anyhow::Result<String> {
    let options = &["rdinit=/broken", "root=none"];
    let files = Tree::new();
    returns(fleet, Fault { device: "slots", options, files, sign: "Kernel panic" })
}

/// One that stops doing anything: the watchdog starts the machine again.
pub fn hung(fleet: &mut Fleet) -> anyhow::Result<String> {
    let mut files = Tree::new();
    files.script(
        "usr/lib/muster/watch",
        "#!/bin/sh\n. /usr/lib/muster/common\nsay \"it hangs\"\nkillall -STOP watchdog\nsleep 1000\n",
    );
    returns(fleet, Fault { device: "hung", options: &[], files, sign: "it hangs" })
}

/// One that has no driver for its network: it gives way once it has waited in vain.
pub fn silent(fleet: &mut Fleet) -> anyhow::Result<String> {
    let options = &["module_blacklist=virtio_net", "muster.patience=30"];
    let (files, sign) = (Tree::new(), "has not reached the control plane within 30 s");
    returns(fleet, Fault { device: "silent", options, files, sign })
}

/// Puts it into slot B of a device that works, and starts that.
fn returns(fleet: &mut Fleet, fault: Fault) -> anyhow::Result<String> {
    let device = fault.device;
    let disk = fleet.new_disk(device)?;
    let mut machine = Machine::start(&disk, &fleet.log(device))?;
    fleet.until_connected(device, &mut machine)?;
    machine.until("slot a to be proven", |console| console.contains("slot a is proven"))?;
    machine.cut()?;
    fleet.until_gone(device)?;

    // As an update would. What comes later in an initrd takes the place of what came before.
    let options: Vec<String> =
        std::iter::once(&"console=ttyAMA0").chain(fault.options).map(|&option| option.to_owned()).collect();
    let entry = Entry { slot: Slot::B, version: 2, options: &options }.to_string().replace("panic=10", "panic=1");
    let mut file = File::options().read(true).write(true).open(&disk)?;
    let place = esp(&mut file)?;
    let mut window = Window::new(&file, place.start, place.bytes)?;
    fat::change(&mut window, |system| {
        for name in ["linux", "initrd"] {
            fat::copy(system, &format!("muster/a/{name}"), &format!("muster/b/{name}"))?;
        }
        let mut initrd = system.root_dir().open_file("muster/b/initrd")?;
        let end = initrd.seek(SeekFrom::End(0))?;
        let mut more = vec![0; (end.next_multiple_of(4) - end) as usize];
        fault.files.archive(&mut more)?;
        initrd.write_all(&more)?;
        initrd.flush()?;
        fat::put(system, &format!("{}/{}", entry::FOLDER, Name::new(Slot::B)), entry.as_bytes())
    })?;

    let mut machine = Machine::start(&disk, &fleet.log(device))?;
    machine.until("slot a to return", |console| console.contains("slot a"))?;
    fleet.until_connected(device, &mut machine)?;
    let (seconds, console) = (machine.seconds(), machine.console()?);
    let tries = console.matches(fault.sign).count();
    machine.cut()?;
    ensure!(tries == TRIES, "the new system said {:?} {tries} times, not {TRIES}:\n{console}", fault.sign);
    let mut file = File::options().read(true).write(true).open(&disk)?;
    let place = esp(&mut file)?;
    let system = fat::open(Window::new(&file, place.start, place.bytes)?)?;
    let entries = fat::names(&system, entry::FOLDER)?;
    ensure!(entries == ["muster-a.conf", "muster-b+0-3.conf"], "the boot menu has {entries:?}");
    std::fs::remove_file(&disk).with_context(|| format!("cannot remove {}", disk.display()))?;
    Ok(format!("{TRIES} tries, then slot a: connected {seconds:.0} s after power-on"))
}
