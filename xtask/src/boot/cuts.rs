//! Power cuts: a machine that is switched off at any moment comes back and converges.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_world::Bundle;
use muster_world::onnx::Graph;

use super::fleet::Fleet;
use super::machine::Machine;

/// How many moments.
const CUTS: u32 = 20;
/// The firmware's share of the time before the system's first word: it writes nothing. Then the boot loader counts.
const FIRMWARE: f64 = 0.8;
/// What is in each word of the system.
const WORDS: &str = "muster: ";
/// What is fetched: long enough on its way that it can be cut, in bytes.
const MODEL_BYTES: usize = 24 << 20;
const MODEL: &str = "large";
/// A slot's phase.
const FETCHING: &str = "fetching";

/// At twenty moments of the first boot, each on a disk of its own.
pub fn first_boot(fleet: &mut Fleet) -> anyhow::Result<String> {
    let course = uncut(fleet)?;
    let mut slowest = 0f64;
    for cut in 0..CUTS {
        let device = format!("cut-{cut}");
        let disk = fleet.new_disk(&device)?;
        let mut machine = Machine::start(&disk, &fleet.log(&device))?;
        let (words, after) = moment(&course, (f64::from(cut) + 0.5) / f64::from(CUTS));
        machine.until("a moment of its boot", |console| said(console) >= words)?;
        machine.run_until(Duration::from_secs_f64(machine.seconds() + after))?;
        let (moment, console) = (machine.seconds(), machine.console()?);
        let last = console.lines().rfind(|line| line.contains(WORDS)).unwrap_or("nothing").trim().to_owned();
        machine.cut()?;
        let enrolled = fleet.world.devices()?.iter().any(|told| told["id"] == device);
        if enrolled {
            fleet.until_gone(&device)?;
        }
        let mut machine = Machine::start(&disk, &fleet.log(&device))?;
        let converged = back(fleet, &device, &mut machine);
        converged.with_context(|| format!("switched off {moment:.1} s after power-on, when it had said: {last}"))?;
        slowest = slowest.max(machine.seconds());
        eprintln!("  {device}: off at {moment:.1} s ({last}), back in {:.1} s", machine.seconds());
        machine.cut()?;
        fleet.check_disk(&disk).with_context(|| format!("switched off {moment:.1} s after power-on"))?;
        std::fs::remove_file(&disk)?;
    }
    Ok(format!("{CUTS} cuts; back and proven after {slowest:.0} s at most"))
}

/// How often the system has spoken.
fn said(console: &str) -> usize {
    console.lines().filter(|line| line.contains(WORDS)).count()
}

/// Where in a course: after how many of its words, and how many seconds behind the last of them. Words are the clock,
/// since a busy machine plays the other one slowly.
fn moment(course: &[f64], share: f64) -> (usize, f64) {
    let (first, end) = (course.first().copied().unwrap_or(0.0), course.last().copied().unwrap_or(0.0));
    let begin = first * FIRMWARE;
    let at = begin + (end - begin) * share;
    let words = course.iter().take_while(|word| **word <= at).count();
    (words, at - words.checked_sub(1).and_then(|last| course.get(last)).copied().unwrap_or(0.0))
}

/// Waits until a device is connected and its system proven.
fn back(fleet: &mut Fleet, device: &str, machine: &mut Machine) -> anyhow::Result<()> {
    fleet.until_connected(device, machine)?;
    machine.until("the system to be proven", is_proven)
}

fn is_proven(console: &str) -> bool {
    console.contains("is proven")
}

/// A first boot without a cut: when each word of its system came, in seconds since power-on.
fn uncut(fleet: &mut Fleet) -> anyhow::Result<Vec<f64>> {
    let device = "uncut";
    let disk = fleet.new_disk(device)?;
    let (mut machine, began) = (Machine::start(&disk, &fleet.log(device))?, Instant::now());
    let course = RefCell::new(vec![]);
    machine.until("the system to be proven", |console| {
        let mut course = course.borrow_mut();
        let new = said(console).saturating_sub(course.len());
        course.extend(std::iter::repeat_n(began.elapsed().as_secs_f64(), new));
        is_proven(console)
    })?;
    machine.cut()?;
    Ok(course.into_inner())
}

/// At twenty moments of a fetch, on one disk that goes on: each time another version is on its way.
pub fn fetch(fleet: &mut Fleet) -> anyhow::Result<String> {
    let device = "fetcher";
    // Alone: a device that fell silent is of no matter to the planner here.
    let mut fleet = fleet.another()?;
    let disk = fleet.new_disk(device)?;
    let mut machine = Machine::start(&disk, &fleet.log(device))?;
    back(&mut fleet, device, &mut machine)?;
    wish(&fleet, 1)?;
    on_its_way(&mut fleet, device, 1, &mut machine)?;
    let began = machine.seconds();
    fleet.until("the first version to be there", &mut machine, |world| {
        Ok((world.slot(device, MODEL)?["phase"] != FETCHING).then_some(()))
    })?;
    let whole = machine.seconds() - began;
    fleet.until_serves(device, MODEL, 1, &mut machine)?;
    let (mut slowest, mut fetched) = (0f64, 0);
    for cut in 0..CUTS {
        let version = cut + 2;
        wish(&fleet, version)?;
        on_its_way(&mut fleet, device, version, &mut machine)?;
        let moment = machine.seconds() + whole * (f64::from(cut) + 0.5) / f64::from(CUTS);
        machine.run_until(Duration::from_secs_f64(moment))?;
        let phase = fleet.world.slot(device, MODEL)?["phase"].to_string();
        fetched += u32::from(phase.contains(FETCHING));
        machine.cut()?;
        fleet.until_gone(device)?;
        machine = Machine::start(&disk, &fleet.log(device))?;
        let serves = fleet.until_serves(device, MODEL, u64::from(version), &mut machine);
        serves.with_context(|| format!("switched off when version {version} was in phase {phase}"))?;
        slowest = slowest.max(machine.seconds());
        eprintln!("  version {version}: off in phase {phase}, serves {:.1} s after power-on", machine.seconds());
    }
    machine.cut()?;
    fleet.check_disk(&disk)?;
    Ok(format!("{CUTS} cuts, {fetched} of them while it was fetched; it serves after {slowest:.0} s at most"))
}

/// Waits until a version is being fetched, or was so quickly that nobody saw it.
fn on_its_way(fleet: &mut Fleet, device: &str, version: u32, machine: &mut Machine) -> anyhow::Result<()> {
    fleet.until(&format!("version {version} to be on its way"), machine, |world| {
        let slot = world.slot(device, MODEL)?;
        Ok((slot["phase"] == FETCHING || slot["running"]["version"] == version).then_some(()))
    })
}

/// Packs, signs, pushes and deploys a version.
fn wish(fleet: &Fleet, version: u32) -> anyhow::Result<()> {
    let onnx = fleet.world.folder().join("large.onnx");
    std::fs::write(&onnx, noise(version))?;
    fleet.world.publish(&Bundle { model: MODEL.to_owned(), version, onnx, golden: None })?;
    fleet.world.deploy(MODEL, &version.to_string())
}

/// A model of noise, which cannot be packed: y = x + the largest of it.
fn noise(version: u32) -> Vec<u8> {
    let mut state = u64::from(version) << 32 | 0x9e37_79b9;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let values: Vec<f32> = (0..MODEL_BYTES / 4).map(|_| next()).collect();
    Graph::default()
        .constant("noise", &[values.len() as u64], &values)
        .node("ReduceMax", &["noise"], "most")
        .node("Add", &["x", "most"], "y")
        .input("x", &[0, 4])
        .output("y", &[0, 4])
        .file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_by_the_words_before_them() {
        let course = [10.0, 12.0, 20.0];
        assert_eq!(moment(&course, 0.0), (0, 8.0));
        assert_eq!(moment(&course, 0.25), (1, 1.0));
        assert_eq!(moment(&course, 0.5), (2, 2.0));
        assert_eq!(moment(&course, 1.0), (3, 0.0));
    }
}
