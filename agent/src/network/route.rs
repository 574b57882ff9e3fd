//! Which way the next connection goes: to the broker itself, or through the tunnel. Pure: what happened and
//! the time go in, the next way and its reason come out.
//!
//! By itself a device goes directly. Where that way is blocked it takes the tunnel at once, stays with it as
//! long as it stands, and tries the direct way again now and then, since it is the cheaper one. What is not of
//! the way (a certificate that is not taken, a device that is held) is no reason to change it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fault::Cause;

/// `[network] tunnel`: what the owner says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Directly, and through the tunnel where that is blocked.
    #[default]
    Auto,
    /// Only through the tunnel.
    Always,
    /// Only directly.
    Never,
}

/// A way to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TLS to the broker's own port.
    Direct,
    /// MQTT in a WebSocket.
    Tunnel,
}

/// What happened on a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It never stood.
    Failed(Cause),
    /// It stands.
    Stood,
    /// It stood and ended; whether it had stood long enough to be a good one.
    Ended {
        /// Whether it had.
        steady: bool,
    },
    /// While the tunnel stood, the direct way was tried and is open.
    DirectIsOpen,
}

/// How long to wait before the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: another way was not tried yet.
    No,
    /// A pause that grows with the attempts in a row.
    Attempt(u32),
}

/// The state: which way is next, and after how many rounds without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    mode: Mode,
    next: Way,
    rounds: u32,
    reason: Reason,
}

/// Why a way was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is the first one.
    First,
    /// The owner said so.
    Owner,
    /// The control plane named no tunnel, so there is no other.
    NoTunnel,
    /// It was good the last time.
    WasGood,
    /// The other one failed.
    OtherFailed(Cause),
    /// What failed is not of the way.
    NotOfTheWay(Cause),
    /// The direct way is open again.
    OpenAgain,
}

impl Reason {
    /// For the console.
    pub fn text(self) -> &'static str {
        match self {
            Self::First => "the direct way comes first",
            Self::Owner => "agent.toml says so: [network] tunnel",
            Self::NoTunnel => "the control plane named no tunnel; it has one with --devices",
            Self::WasGood => "it was good the last time",
            Self::OtherFailed(_) => "the other way is blocked",
            Self::NotOfTheWay(_) => "what failed would fail on the other way, too",
            Self::OpenAgain => "the direct way is open again",
        }
    }
}

impl Route {
    /// At the start.
    pub fn new(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self { mode, next: Way::Direct, rounds: 0, reason: Reason::First },
            Mode::Never => Self { mode, next: Way::Direct, rounds: 0, reason: Reason::Owner },
            Mode::Always => Self { mode, next: Way::Tunnel, rounds: 0, reason: Reason::Owner },
        }
    }

    /// The next way, and why. `has_tunnel`: whether the control plane named one.
    pub fn next(&self, has_tunnel: bool) -> (Way, Reason) {
        match (self.mode, self.next) {
            (Mode::Auto, Way::Tunnel) if !has_tunnel => (Way::Direct, Reason::NoTunnel),
            (_, way) => (way, self.reason),
        }
    }

    /// What happened on `way`.
    #[must_use]
    pub fn step(self, way: Way, event: Event, has_tunnel: bool) -> (Self, Wait) {
        let free = self.mode == Mode::Auto && has_tunnel;
        match event {
            Event::Failed(cause) if free && cause.is_of_the_way() => {
                let reason = Reason::OtherFailed(cause);
                match way {
                    Way::Direct => (Self { next: Way::Tunnel, reason, ..self }, Wait::No),
                    // Both were tried: that was one round.
                    Way::Tunnel => self.again(Way::Direct, reason),
                }
            }
            Event::Failed(cause) if free => self.again(way, Reason::NotOfTheWay(cause)),
            Event::Failed(_) => self.again(way, self.reason),
            Event::Stood => (Self { next: way, reason: self.kept(Reason::WasGood), ..self }, Wait::No),
            Event::Ended { steady: true } => {
                (Self { next: way, rounds: 0, reason: self.kept(Reason::WasGood), ..self }, Wait::Attempt(0))
            }
            // Cut at once, as by another agent with the same identity: no reason to hurry.
            Event::Ended { steady: false } => self.again(way, self.kept(Reason::WasGood)),
            // Nobody looks for it where the owner chose one way.
            Event::DirectIsOpen if self.mode != Mode::Auto => (self, Wait::Attempt(self.rounds)),
            Event::DirectIsOpen => (Self { next: Way::Direct, rounds: 0, reason: Reason::OpenAgain, ..self }, Wait::No),
        }
    }

    /// Something changed for the better: the next failure is a first one.
    #[must_use]
    pub fn afresh(self) -> Self {
        Self { rounds: 0, ..self }
    }

    /// When the direct way is to be tried beside a connection that stands, if at all.
    pub fn try_direct_after(&self, stands: Way, every: Duration) -> Option<Duration> {
        (self.mode == Mode::Auto && stands == Way::Tunnel).then_some(every)
    }

    fn again(self, next: Way, reason: Reason) -> (Self, Wait) {
        let rounds = self.rounds.saturating_add(1);
        (Self { next, rounds, reason, ..self }, Wait::Attempt(rounds))
    }

    /// What the owner said stays the reason.
    fn kept(&self, reason: Reason) -> Reason {
        if self.mode == Mode::Auto { reason } else { Reason::Owner }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    use Event::{DirectIsOpen, Ended, Failed, Stood};
    use Way::{Direct, Tunnel};

    /// Plays events, each on the way that was chosen, and gives the ways and the waits.
    fn play(mode: Mode, has_tunnel: bool, events: &[Event]) -> (Vec<Way>, Vec<Wait>) {
        let mut route = Route::new(mode);
        let (mut ways, mut waits) = (vec![], vec![]);
        for &event in events {
            let (way, _) = route.next(has_tunnel);
            let (next, wait) = route.step(way, event, has_tunnel);
            ways.push(way);
            waits.push(wait);
            route = next;
        }
        ways.push(route.next(has_tunnel).0);
        (ways, waits)
    }

    #[test]
    fn a_blocked_port_sends_through_the_tunnel_at_once_and_both_blocked_alternate_with_pauses() {
        for cause in [Cause::Refused, Cause::Timeout, Cause::Captive, Cause::Dns, Cause::Tls, Cause::Proxy] {
            let (ways, waits) = play(Mode::Auto, true, &[Failed(cause); 4]);
            assert_eq!(ways, [Direct, Tunnel, Direct, Tunnel, Direct], "{cause:?}");
            assert_eq!(waits, [Wait::No, Wait::Attempt(1), Wait::No, Wait::Attempt(2)], "{cause:?}");
        }
    }

    #[test]
    fn a_tunnel_that_stood_is_taken_again_until_the_direct_way_is_open() {
        let blocked = Failed(Cause::Timeout);
        let (ways, waits) =
            play(Mode::Auto, true, &[blocked, Stood, Ended { steady: true }, Stood, DirectIsOpen, Stood]);
        assert_eq!(ways, [Direct, Tunnel, Tunnel, Tunnel, Tunnel, Direct, Direct]);
        assert_eq!(waits[2], Wait::Attempt(0));
        // A tunnel that fails leads back to the direct way.
        let (ways, _) = play(Mode::Auto, true, &[blocked, Stood, Ended { steady: true }, blocked]);
        assert_eq!(ways.last(), Some(&Direct));
    }

    #[test]
    fn what_is_not_of_the_way_changes_no_way() {
        for cause in [Cause::NotLetIn, Cause::Certificate, Cause::ServerTime] {
            let (ways, waits) = play(Mode::Auto, true, &[Failed(cause), Failed(cause)]);
            assert_eq!(ways, [Direct; 3], "{cause:?}");
            assert_eq!(waits, [Wait::Attempt(1), Wait::Attempt(2)], "{cause:?}");
        }
    }

    #[test]
    fn the_owners_word_and_a_plane_without_a_tunnel_leave_one_way() {
        let events = [Failed(Cause::Refused), Failed(Cause::Timeout), Stood, Ended { steady: false }];
        for (mode, has_tunnel, only) in [
            (Mode::Never, true, Direct),
            (Mode::Never, false, Direct),
            (Mode::Always, true, Tunnel),
            (Mode::Auto, false, Direct),
        ] {
            let (ways, waits) = play(mode, has_tunnel, &events);
            assert!(ways.iter().all(|&way| way == only), "{mode:?}");
            assert_eq!(waits[..2], [Wait::Attempt(1), Wait::Attempt(2)], "{mode:?}");
        }
        let every = Duration::from_secs(1);
        assert_eq!(Route::new(Mode::Always).try_direct_after(Tunnel, every), None);
        assert_eq!(Route::new(Mode::Auto).try_direct_after(Direct, every), None);
        assert_eq!(Route::new(Mode::Auto).try_direct_after(Tunnel, every), Some(every));
    }

    #[test]
    fn a_session_that_is_cut_at_once_is_no_reason_to_hurry() {
        let (_, waits) = play(Mode::Auto, true, &[Stood, Ended { steady: false }, Stood, Ended { steady: false }]);
        assert_eq!((waits[1], waits[3]), (Wait::Attempt(1), Wait::Attempt(2)));
    }

    fn event() -> impl Strategy<Value = Event> {
        let cause = prop_oneof![
            Just(Cause::Dns),
            Just(Cause::Refused),
            Just(Cause::Timeout),
            Just(Cause::Tls),
            Just(Cause::ServerTime),
            Just(Cause::Certificate),
            Just(Cause::NotLetIn),
            Just(Cause::Proxy),
            Just(Cause::Captive),
        ];
        prop_oneof![
            cause.prop_map(Failed),
            Just(Stood),
            any::<bool>().prop_map(|steady| Ended { steady }),
            Just(DirectIsOpen)
        ]
    }

    proptest! {
        /// However it goes: never two attempts in a row on one way without a pause, and never a way that the owner
        /// forbids.
        #[test]
        fn no_way_is_hammered(events in prop::collection::vec(event(), 1..60), has_tunnel: bool, mode in 0..3u8) {
            let mode = [Mode::Auto, Mode::Always, Mode::Never][usize::from(mode)];
            let mut route = Route::new(mode);
            for event in events {
                let (way, _) = route.next(has_tunnel);
                prop_assert!(mode != Mode::Never || way == Direct);
                prop_assert!(mode != Mode::Always || way == Tunnel);
                let (next, wait) = route.step(way, event, has_tunnel);
                if let Failed(_) = event {
                    prop_assert!(wait != Wait::No || next.next(has_tunnel).0 != way);
                }
                route = next;
            }
        }
    }
}
