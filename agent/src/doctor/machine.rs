//! Checks of what this machine gives to models, of the agent that runs here, and of a release of it. Pure.

use std::net::SocketAddr;

use super::finding::{Finding, Ill};
use super::identity::{Enrolled, date};
use crate::status::{State, Status};
use crate::worker::sandbox::Closed;

/// The agent, as one sees it from beside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Whether somebody listens at the door that the configuration names.
    pub door: Option<(SocketAddr, bool)>,
    /// What it left in its folder.
    pub status: Option<Result<Status, String>>,
}

/// Whether models can be confined.
pub fn sandbox(closed: &Closed) -> Finding {
    const CHECK: &str = "sandbox";
    let has = |word: &str| closed.holds.iter().any(|held| held.starts_with(word));
    let holds = closed.holds.join(", ");
    let (text, next) = match (has("landlock"), has("seccomp")) {
        (true, true) => return Finding::good(CHECK, holds),
        (false, true) => (
            "there is no Landlock: a model's process could read files beside its own".to_owned(),
            "take a kernel of 5.13 or newer with Landlock, and name it in `lsm=` on the kernel's command line",
        ),
        (true, false) => (
            "there is no seccomp: every system call is open to a model's process".to_owned(),
            "take a kernel with seccomp filters; this build knows them on x86_64 and aarch64",
        ),
        (false, false) => {
            let text = format!("models cannot be confined: there is neither Landlock nor seccomp here ({holds})");
            let next = "take a kernel of 5.13 or newer with both; until then run only models that you would run as a \
                        program";
            return Finding::fault(CHECK, Ill::SandboxMissing, text, next);
        }
    };
    Finding::warning(CHECK, Ill::SandboxMissing, text, next)
}

/// Whether the agent runs and is connected.
pub fn agent(enrolled: &Enrolled, agent: &Agent) -> Finding {
    const CHECK: &str = "agent";
    if !matches!(enrolled, Enrolled::As(_)) {
        return Finding::skipped(CHECK, "it runs once the device is enrolled");
    }
    if let Some((address, false)) = agent.door {
        return Finding::warning(
            CHECK,
            Ill::AgentNotConnected,
            format!("it does not run: nobody listens at {address}"),
            "start it: `systemctl start muster-agent`, or `muster-agent run --config agent.toml`",
        );
    }
    let status = match &agent.status {
        Some(Ok(status)) => status,
        Some(Err(why)) => return Finding::skipped(CHECK, format!("what it says of itself cannot be read: {why}")),
        None => return Finding::skipped(CHECK, "it says nothing of itself"),
    };
    let since = date(status.since);
    let error = status.error.as_deref().unwrap_or("it does not say why");
    match status.state {
        State::Connected => Finding::good(CHECK, format!("connected to {} since {since}", status.broker)),
        State::Held => Finding::fault(
            CHECK,
            Ill::NotLetIn,
            format!("the control plane has not let it in since {since}: {error}"),
            "`muster describe device NAME` says why; `muster approve` lets a held device go on, a revoked one is \
             enrolled again",
        ),
        State::Offline | State::TlsTime => Finding::fault(
            CHECK,
            Ill::AgentNotConnected,
            format!("not connected since {since}: {error}"),
            "what the other checks say stands in its way; it tries again by itself",
        ),
        State::Starting | State::Resolving | State::Connecting => {
            Finding::skipped(CHECK, format!("it is about to connect since {since}"))
        }
    }
}

/// Whether a release verifies: what it is, or why it does not.
pub fn release(release: Option<&Result<String, String>>) -> Finding {
    const CHECK: &str = "release";
    match release {
        None => Finding::skipped(CHECK, "none was named with --release"),
        Some(Ok(text)) => Finding::good(CHECK, text.clone()),
        Some(Err(why)) => Finding::fault(
            CHECK,
            Ill::ReleaseNotVerified,
            why.clone(),
            "install nothing of it until then: `muster-agent release check` judges a file of it in the same way",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;
    use crate::status::Via;

    fn found(finding: &Finding) -> (Level, Option<Ill>) {
        (finding.level, finding.fault)
    }

    #[test]
    fn a_sandbox_is_whole_thin_or_none() {
        let with =
            |holds: &[&str]| Closed { holds: holds.iter().map(|&held| held.to_owned()).collect(), missing: vec![] };
        for (holds, expected) in [
            (&["landlock abi 7", "rlimits", "seccomp"][..], (Level::Good, None)),
            (&["rlimits", "seccomp"], (Level::Warning, Some(Ill::SandboxMissing))),
            (&["landlock abi 1", "rlimits"], (Level::Warning, Some(Ill::SandboxMissing))),
            (&["rlimits"], (Level::Fault, Some(Ill::SandboxMissing))),
        ] {
            assert_eq!(found(&sandbox(&with(holds))), expected, "{holds:?}");
        }
    }

    #[test]
    fn an_agent_is_judged_by_its_door_and_by_its_own_word() {
        let enrolled = Enrolled::As("edge-1".parse().expect("an id"));
        let status = |state| Status {
            at_ms: 1,
            state,
            since: 1,
            via: Via::Mqtt,
            broker: "plane:8883".to_owned(),
            error: Some("refused".to_owned()),
            error_kind: None,
            addresses: vec![],
            clock_confirmed: false,
            bound_ms: 0,
        };
        let door = |open| Some(("127.0.0.1:8501".parse().expect("an address"), open));
        for (open, state, expected) in [
            (true, Some(State::Connected), (Level::Good, None)),
            (true, Some(State::Held), (Level::Fault, Some(Ill::NotLetIn))),
            (true, Some(State::Offline), (Level::Fault, Some(Ill::AgentNotConnected))),
            (true, Some(State::Resolving), (Level::Skipped, None)),
            (true, None, (Level::Skipped, None)),
            // What it left there counts no more.
            (false, Some(State::Connected), (Level::Warning, Some(Ill::AgentNotConnected))),
        ] {
            let seen = Agent { door: door(open), status: state.map(|state| Ok(status(state))) };
            assert_eq!(found(&agent(&enrolled, &seen)), expected, "{open} {state:?}");
        }
        assert_eq!(found(&agent(&Enrolled::No, &Agent { door: None, status: None })), (Level::Skipped, None));
    }

    #[test]
    fn a_release_that_does_not_verify_is_a_fault() {
        assert_eq!(found(&release(None)), (Level::Skipped, None));
        assert_eq!(found(&release(Some(&Ok("1.2.3".to_owned())))), (Level::Good, None));
        let refused = Err("signed by a publisher's key".to_owned());
        assert_eq!(found(&release(Some(&refused))), (Level::Fault, Some(Ill::ReleaseNotVerified)));
    }
}
