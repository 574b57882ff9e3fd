//! What a wrong clock does to an agent, and a director's time to the clock.

use muster_shared::desired::SlotSpec;
use muster_shared::director_time::DirectorTime;
use muster_shared::message::EventKind;
use muster_shared::reported::{Measured, Phase};
use muster_shared::signing::{Envelope, payload_type};
use muster_shared::wire::encode;
use muster_shared::{DeploymentName, Digest, Nonce};

use super::tests::{NONCE, agent, desired, offer, phase};
use super::{Action, Event};
use crate::clock::Clock;
use crate::slot::{SlotEvent, WorkerId};
use crate::testing::{DIRECTOR, key, spec};

pub(super) fn time(now_ms: u64, nonce: Nonce) -> Envelope {
    let time = DirectorTime {
        fleet: "home".parse().unwrap(),
        device: "edge-1".parse().unwrap(),
        fingerprint: Digest::of("key"),
        nonce,
        now_ms,
    };
    Envelope::sign(payload_type::TIME, encode(&time).unwrap(), &[&key(DIRECTOR)])
}

#[test]
fn a_device_whose_clock_ran_ahead_takes_what_it_refused_once_a_director_told_the_time() {
    let (mut agent, _) = agent(vec![], vec![]);
    let in_2099 = 4_070_908_800_000;
    let offered = desired(1, 1, &[spec("digits", 1)]);
    offer(&mut agent, offered.clone(), in_2099);
    assert!(agent.desired_refused().is_some_and(|refused| refused.reason.contains("expired")));
    // An answer to another hello, or of another day, says nothing.
    assert!(agent.step(Event::TimeTold(time(500, Nonce([8; 16]))), in_2099).is_empty());
    let actions = agent.step(Event::TimeTold(time(500, NONCE)), in_2099);
    assert!(matches!(actions[0], Action::Tell(EventKind::Clock, ..)) && actions.contains(&Action::SayHello));
    offer(&mut agent, offered, in_2099);
    assert_eq!(phase(&agent, "digits"), Some(Phase::Fetching));
}

#[test]
fn a_device_whose_clock_is_surely_behind_begins_nothing_until_a_director_told_the_time() {
    let (mut agent, _) = agent(vec![], vec![]);
    agent.clock = Clock::new(900_000, 0);
    // It expires after the bound: whether it has by now, this device cannot know.
    let offered = desired(1, 1, &[spec("digits", 1)]);
    offer(&mut agent, offered.clone(), 0);
    assert!(agent.desired_refused().is_some_and(|refused| refused.reason.contains("nothing new begins")));
    agent.step(Event::TimeTold(time(1_000_000, NONCE)), 0);
    offer(&mut agent, offered, 0);
    assert!(agent.desired_refused().is_some_and(|refused| refused.reason.contains("expired")));
    assert_eq!(phase(&agent, "digits"), None);
}

#[test]
fn a_corrected_clock_neither_ends_nor_prolongs_a_probation() {
    let wanted = SlotSpec { probation_ms: 1_000, ..spec("digits", 1) };
    let (mut agent, _) = agent(vec![], vec![]);
    let digits: DeploymentName = "digits".parse().unwrap();
    offer(&mut agent, desired(1, 1, std::slice::from_ref(&wanted)), 0);
    agent.step(Event::Slot(digits.clone(), SlotEvent::Fetched), 0);
    let measured = Measured { memory_peak_bytes: 1, latency_us: 2 };
    agent.step(Event::Slot(digits, SlotEvent::CheckPassed(WorkerId(1), measured)), 0);
    agent.step(Event::TimeTold(time(900_000, NONCE)), 10);
    assert_eq!(agent.next_deadline_ms(), Some(1_000));
    agent.step(Event::Tick, 999);
    assert_eq!(phase(&agent, "digits"), Some(Phase::Probation));
    agent.step(Event::Tick, 1_000);
    assert_eq!(phase(&agent, "digits"), Some(Phase::Serving));
}

/// A stolen director once kept a device from everything by a time far ahead, for as long as a day.
#[test]
fn a_director_that_said_2099_is_doubted_when_an_honest_one_signs_anew() {
    let (mut agent, _) = agent(vec![], vec![]);
    let in_2099 = 4_070_908_800_000;
    agent.step(Event::TimeTold(time(in_2099, NONCE)), 500);
    let offered = desired(1, 1, &[spec("digits", 1)]);
    let actions = offer(&mut agent, offered.clone(), 500);
    assert!(actions.contains(&Action::SayHello), "{actions:?}");
    assert!(agent.clock().wants_time(500));
    // The local clock counts again.
    offer(&mut agent, offered, 500);
    assert_eq!(phase(&agent, "digits"), Some(Phase::Fetching));
}
