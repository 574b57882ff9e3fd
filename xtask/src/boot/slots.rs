//! A new system in the other slot that does not boot: the firmware counts its tries down and the old one returns,
//! without anybody's hand.

use std::fs::File;

use anyhow::ensure;
use muster_provisioning::disk::{Window, fat};
use muster_provisioning::image::entry::{self, Entry, Name, Slot};

use super::fleet::{Fleet, esp};
use super::machine::Machine;

/// Puts a system that panics into slot B of a device that works, and starts it.
pub fn broken(fleet: &mut Fleet) -> anyhow::Result<String> {
    let device = "slots";
    let disk = fleet.new_disk(device)?;
    let mut machine = Machine::start(&disk, &fleet.log(device))?;
    fleet.until_connected(device, &mut machine)?;
    machine.until("slot a to be proven", |console| console.contains("slot a is proven"))?;
    machine.cut()?;

    // As an update would, with a system that finds nothing to run.
    let options = ["console=ttyAMA0".to_owned(), "rdinit=/broken".to_owned(), "root=none".to_owned()];
    let entry = Entry { slot: Slot::B, version: 2, options: &options }.to_string().replace("panic=10", "panic=1");
    let mut file = File::options().read(true).write(true).open(&disk)?;
    let place = esp(&mut file)?;
    let mut window = Window::new(&file, place.start, place.bytes)?;
    fat::change(&mut window, |system| {
        for name in ["linux", "initrd"] {
            fat::copy(system, &format!("muster/a/{name}"), &format!("muster/b/{name}"))?;
        }
        fat::put(system, &format!("{}/{}", entry::FOLDER, Name::new(Slot::B)), entry.as_bytes())
    })?;

    let mut machine = Machine::start(&disk, &fleet.log(device))?;
    machine.until("slot a to return", |console| console.contains("slot a"))?;
    fleet.until_connected(device, &mut machine)?;
    let (seconds, console) = (machine.seconds(), machine.console()?);
    let panics = console.matches("Kernel panic").count();
    machine.cut()?;
    ensure!(panics == 3, "the broken system was tried {panics} times, not three");
    let mut file = File::options().read(true).write(true).open(&disk)?;
    let place = esp(&mut file)?;
    let system = fat::open(Window::new(&file, place.start, place.bytes)?)?;
    let entries = fat::names(&system, entry::FOLDER)?;
    ensure!(entries == ["muster-a.conf", "muster-b+0-3.conf"], "the boot menu has {entries:?}");
    Ok(format!("three panics, then slot a: connected {seconds:.0} s after power-on"))
}
