//! Bounds that somebody set: the protocol's, and the device's owner's.

use anyhow::Result;
use muster_shared::checks::Check;
use muster_tests::hostile::slot;

use crate::stage::{Ending, OTHER, Stage};
use crate::{Attack, Play};

/// All of these.
pub const ATTACKS: &[Attack] = &[
    Attack { name: "two slots of one name", checks: &[Check::Slots], play: Play::Device(two_slots_of_one_name) },
    Attack {
        name: "more memory than the device's owner allows",
        checks: &[Check::OwnerLimits],
        play: Play::Device(more_memory_than_allowed),
    },
];

fn two_slots_of_one_name(stage: &mut Stage<'_>) -> Result<Ending> {
    let desired = stage.next(vec![stage.slot(1)?, stage.slot(1)?])?;
    stage.send(&desired)?;
    stage.ending(
        |stage| {
            let applied = stage.plane.reported().and_then(|reported| reported.applied);
            Ok(applied.filter(|applied| *applied == desired.generation).map(|applied| format!("it holds {applied}")))
        },
        |stage| Ok(stage.desired_refused()),
    )
}

fn more_memory_than_allowed(stage: &mut Stage<'_>) -> Result<Ending> {
    stage.restart(|data| {
        let file = data.join("agent.toml");
        let mut config: toml::Table = std::fs::read_to_string(&file)?.parse()?;
        let limits: toml::Table = toml::Table::from_iter([("memory".to_owned(), "100Mi".into())]);
        config.insert("limits".to_owned(), limits.into());
        Ok(std::fs::write(&file, config.to_string())?)
    })?;
    // 64 MiB each.
    let other = slot(OTHER, 1, &stage.template.bundle(OTHER, 1).envelope)?;
    let desired = stage.next(vec![stage.slot(1)?, other])?;
    stage.send(&desired)?;
    stage.ending(
        |stage| Ok(stage.answer_of(OTHER)?.map(|_| "both run, with 128 MiB of the 100 that are allowed".to_owned())),
        |stage| Ok(stage.slot_refused().filter(|_| stage.answer().is_ok_and(|answer| answer.is_some()))),
    )
}
