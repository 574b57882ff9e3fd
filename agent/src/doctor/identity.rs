//! Checks of who this device is: its enrolment, its key, its certificate, and the time by which they count. Pure.

use muster_shared::DeviceId;
use muster_shared::id::UnixMs;
use x509_parser::time::ASN1Time;

use super::finding::{Finding, Ill};
use crate::identity::Life;

/// A clock that is less wrong than this does no harm: certificates are made with more room.
const SKEW_MS_MAX: u64 = 5 * 60 * 1000;

/// What enrolment left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolled {
    /// Nothing.
    No,
    /// Something that cannot be used.
    Damaged(String),
    /// This device is one of a fleet.
    As(DeviceId),
}

/// The device's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// There is none.
    Absent,
    /// It cannot be read or used.
    Unusable(String),
    /// It is there.
    Good {
        /// Whether others than its owner may read it.
        open_to_others: bool,
    },
}

/// The client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// There is none.
    Absent,
    /// It cannot be read.
    Unusable(String),
    /// It is there.
    Good {
        /// When it is good.
        life: Life,
        /// Whether it is for this device's key.
        is_ours: bool,
    },
}

/// What is known of the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// What this machine's clock says.
    pub clock_ms: UnixMs,
    /// A time that has surely passed.
    pub bound_ms: UnixMs,
    /// What the control plane says, under the pinned CA.
    pub server_ms: Option<UnixMs>,
}

impl Times {
    /// The best that there is.
    pub fn best_ms(self) -> UnixMs {
        self.server_ms.unwrap_or(self.clock_ms).max(self.bound_ms)
    }
}

/// Whether it is enrolled.
pub fn enrolment(enrolled: &Enrolled) -> Finding {
    const CHECK: &str = "enrolment";
    match enrolled {
        Enrolled::As(device) => Finding::good(CHECK, format!("enrolled as {device}")),
        Enrolled::No => Finding::fault(
            CHECK,
            Ill::NotEnrolled,
            "this device belongs to no fleet",
            "make a claim with `muster claim new`, and give it to `muster-agent enrol`",
        ),
        Enrolled::Damaged(why) => Finding::fault(
            CHECK,
            Ill::EnrolmentDamaged,
            why.clone(),
            "take identity/enrolment.json away and enrol again with a new claim: the key is kept",
        ),
    }
}

/// Whether it has its key.
pub fn key(enrolled: &Enrolled, key: &Key) -> Finding {
    const CHECK: &str = "key";
    const AGAIN: &str = "put identity/key.pem back from a backup; without one, take the folder `identity` away, \
                         `muster revoke` the device, and enrol it again with a new claim";
    match (key, enrolled) {
        (Key::Good { open_to_others: false }, _) => Finding::good(CHECK, "there, and its owner's alone"),
        (Key::Good { open_to_others: true }, _) => Finding::warning(
            CHECK,
            Ill::KeyUnreadable,
            "others than its owner may read identity/key.pem",
            "chmod 600 identity/key.pem; if somebody may have read it, revoke the device and enrol it again",
        ),
        (Key::Absent, Enrolled::No) => Finding::skipped(CHECK, "enrolment makes it"),
        (Key::Absent, _) => Finding::fault(
            CHECK,
            Ill::KeyLost,
            "identity/key.pem is gone, and only it can speak for this device",
            AGAIN,
        ),
        (Key::Unusable(why), _) => Finding::fault(CHECK, Ill::KeyUnreadable, why.clone(), AGAIN),
    }
}

/// Whether its certificate is good.
pub fn certificate(enrolled: &Enrolled, certificate: &Certificate, times: Times) -> Finding {
    const CHECK: &str = "certificate";
    const RENEW: &str = "start the agent and let it reach the control plane: it renews its certificate by itself, also \
                         long after its end";
    let unusable = |text: String| Finding::fault(CHECK, Ill::CertificateUnusable, text, RENEW);
    let (life, is_ours) = match certificate {
        Certificate::Absent if *enrolled == Enrolled::No => return Finding::skipped(CHECK, "enrolment brings it"),
        Certificate::Absent => return unusable("identity/certificate.pem is gone".to_owned()),
        Certificate::Unusable(why) => return unusable(why.clone()),
        Certificate::Good { life, is_ours } => (life, is_ours),
    };
    if !is_ours {
        return unusable("it is for another key than this device's".to_owned());
    }
    let now_ms = times.best_ms();
    if life.until_ms < now_ms {
        let text = format!("it ran out at {}", date(life.until_ms));
        return Finding::fault(CHECK, Ill::CertificateExpired, text, RENEW);
    }
    if now_ms < life.from_ms {
        return Finding::skipped(CHECK, format!("not good before {}: look at the clock first", date(life.from_ms)));
    }
    match now_ms > life.renew_at_ms() + life.until_ms.saturating_sub(life.from_ms) / 12 {
        true => Finding::warning(
            CHECK,
            Ill::CertificateExpired,
            format!(
                "it should have been renewed at {} and runs out at {}",
                date(life.renew_at_ms()),
                date(life.until_ms)
            ),
            RENEW,
        ),
        false => Finding::good(CHECK, format!("good until {}", date(life.until_ms))),
    }
}

/// Whether the clock is right.
pub fn clock(times: Times) -> Finding {
    const CHECK: &str = "clock";
    const NEXT: &str = "let the machine keep its time (`timedatectl set-ntp true`), or set it with `date -s`; a board \
                        without a battery begins anew at each start. Until then the agent goes by the control plane's \
                        time, and takes nothing but signed documents before it has heard that";
    let Times { clock_ms, bound_ms, server_ms } = times;
    let wrong = |text: String| Finding::fault(CHECK, Ill::ClockWrong, text, NEXT);
    let says = date(clock_ms);
    match server_ms {
        Some(server_ms) if server_ms.abs_diff(clock_ms) > SKEW_MS_MAX => {
            wrong(format!("it says {says}, the control plane says {}", date(server_ms)))
        }
        None if clock_ms < bound_ms => wrong(format!("it says {says}, and {} has surely passed", date(bound_ms))),
        Some(_) => Finding::good(CHECK, format!("{says}, as the control plane says")),
        None => Finding::skipped(CHECK, format!("it says {says}; nobody was there to compare it with")),
    }
}

/// A time for a person.
pub(super) fn date(ms: UnixMs) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    ASN1Time::from_timestamp(seconds).map_or_else(|_| format!("{seconds} s after 1970"), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    fn found(finding: &Finding) -> (Level, Option<Ill>) {
        (finding.level, finding.fault)
    }

    fn edge() -> Enrolled {
        Enrolled::As("edge-1".parse().expect("an id"))
    }

    #[test]
    fn a_key_is_missed_only_where_there_was_one() {
        assert_eq!(found(&enrolment(&edge())), (Level::Good, None));
        assert_eq!(found(&enrolment(&Enrolled::No)), (Level::Fault, Some(Ill::NotEnrolled)));
        let damaged = Enrolled::Damaged("damaged".to_owned());
        assert_eq!(found(&enrolment(&damaged)), (Level::Fault, Some(Ill::EnrolmentDamaged)));
        for (enrolled, has, expected) in [
            (edge(), Key::Good { open_to_others: false }, (Level::Good, None)),
            (edge(), Key::Good { open_to_others: true }, (Level::Warning, Some(Ill::KeyUnreadable))),
            (edge(), Key::Absent, (Level::Fault, Some(Ill::KeyLost))),
            (damaged, Key::Absent, (Level::Fault, Some(Ill::KeyLost))),
            (Enrolled::No, Key::Absent, (Level::Skipped, None)),
            (edge(), Key::Unusable("x".to_owned()), (Level::Fault, Some(Ill::KeyUnreadable))),
        ] {
            assert_eq!(found(&key(&enrolled, &has)), expected, "{enrolled:?} {has:?}");
        }
    }

    #[test]
    fn a_certificate_is_judged_by_the_best_time_that_there_is() {
        let good = |from_ms, until_ms| Certificate::Good { life: Life { from_ms, until_ms }, is_ours: true };
        let at = |clock_ms, bound_ms, server_ms| Times { clock_ms, bound_ms, server_ms };
        for (has, times, expected) in [
            (good(0, 1200), at(700, 0, None), (Level::Good, None)),
            (good(0, 1200), at(850, 0, None), (Level::Good, None)),
            (good(0, 1200), at(1000, 0, None), (Level::Warning, Some(Ill::CertificateExpired))),
            (good(0, 1200), at(1300, 0, None), (Level::Fault, Some(Ill::CertificateExpired))),
            // A clock at 1970 makes none good that ran out, nor one in 2099 one bad that did not.
            (good(0, 1200), at(0, 1300, None), (Level::Fault, Some(Ill::CertificateExpired))),
            (good(0, 1200), at(99_000, 0, Some(700)), (Level::Good, None)),
            (good(500, 1200), at(100, 0, None), (Level::Skipped, None)),
            (Certificate::Absent, at(0, 0, None), (Level::Fault, Some(Ill::CertificateUnusable))),
            (
                Certificate::Good { life: Life { from_ms: 0, until_ms: 9 }, is_ours: false },
                at(0, 0, None),
                (Level::Fault, Some(Ill::CertificateUnusable)),
            ),
        ] {
            assert_eq!(found(&certificate(&edge(), &has, times)), expected, "{has:?} {times:?}");
        }
        assert_eq!(found(&certificate(&Enrolled::No, &Certificate::Absent, at(0, 0, None))), (Level::Skipped, None));
    }

    #[test]
    fn a_clock_is_wrong_before_what_surely_passed_and_far_from_what_the_plane_says() {
        const MINUTE: u64 = 60_000;
        for (clock_ms, bound_ms, server_ms, expected) in [
            (100 * MINUTE, 0, Some(102 * MINUTE), (Level::Good, None)),
            (100 * MINUTE, 0, Some(106 * MINUTE), (Level::Fault, Some(Ill::ClockWrong))),
            (106 * MINUTE, 0, Some(100 * MINUTE), (Level::Fault, Some(Ill::ClockWrong))),
            (100 * MINUTE, 101 * MINUTE, None, (Level::Fault, Some(Ill::ClockWrong))),
            (100 * MINUTE, 0, None, (Level::Skipped, None)),
        ] {
            assert_eq!(found(&clock(Times { clock_ms, bound_ms, server_ms })), expected);
        }
        assert!(date(0).contains("1970") && date(u64::MAX).contains("1970"));
    }
}
