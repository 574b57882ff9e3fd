//! What a check found: in words for a person, by a name for a program, with the next move.

use serde::Serialize;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What is wrong, by its name.
    pub fault: Option<Ill>,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub next: Option<String>,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// It could not be looked at, or there is nothing to look at.
    Skipped,
    /// The device works, and something is not as it should be.
    Warning,
    /// The device does not do its work.
    Fault,
}

impl Level {
    /// For the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Skipped => "-",
            Self::Warning => "warning",
            Self::Fault => "FAULT",
        }
    }
}

/// What can be wrong. The names are for scripts and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Ill {
    /// `agent.toml` is not there or cannot be used.
    Configuration,
    /// The data folder cannot be written.
    DataNotWritable,
    /// There is no room, or little.
    DiskFull,
    /// Its hardware is strained or worn.
    Hardware,
    /// It belongs to no fleet.
    NotEnrolled,
    /// What enrolment left is damaged.
    EnrolmentDamaged,
    /// It is enrolled, and its key is gone.
    KeyLost,
    /// Its key is there and cannot be used.
    KeyUnreadable,
    /// Its client certificate is missing, damaged or another key's.
    CertificateUnusable,
    /// Its client certificate ran out.
    CertificateExpired,
    /// Its clock is wrong.
    ClockWrong,
    /// Models cannot be confined as they should be.
    SandboxMissing,
    /// It has no network at all.
    NoNetwork,
    /// The control plane is reached by IPv4 only, and there is none here.
    NoIpv4,
    /// The control plane is reached by IPv6 only, and there is none here.
    NoIpv6,
    /// Nobody answers for names.
    ResolverDead,
    /// There is no such name.
    NameUnknown,
    /// Something else answers in the control plane's place.
    CaptivePortal,
    /// The proxy does not do what it is asked to.
    ProxyRefuses,
    /// The broker's port is closed.
    PortClosed,
    /// The control plane is not reached.
    Unreachable,
    /// TLS fails.
    Tls,
    /// The control plane does not let this device in.
    NotLetIn,
    /// The agent does not run, or is not connected.
    AgentNotConnected,
    /// A release of the agent does not verify.
    ReleaseNotVerified,
}

impl Finding {
    /// As it should be.
    pub fn good(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, level: Level::Good, fault: None, text: text.into(), next: None }
    }

    /// Nothing to look at, and why.
    pub fn skipped(check: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Skipped, ..Self::good(check, text) }
    }

    /// Something to look after.
    pub fn warning(check: &'static str, fault: Ill, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { level: Level::Warning, fault: Some(fault), text: text.into(), check, next: Some(next.into()) }
    }

    /// Something that keeps the device from its work.
    pub fn fault(check: &'static str, fault: Ill, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { level: Level::Fault, ..Self::warning(check, fault, text, next) }
    }
}
