//! One process per loaded model: the agent's own executable, started again as `worker`.
//!
//! [`protocol`] is what the two say to each other over the child's standard streams; [`parent`]
//! is the agent's end, behind a [`queue`] of requests; [`child`] the model's, which closes its [`sandbox`]
//! before it reads the first byte of a model, checks [`golden`] vectors, and runs requests [`together`].
//! Where the agent has control groups, each worker is in a [`cgroup`].

pub mod cgroup;
pub mod child;
pub mod golden;
pub mod parent;
pub mod protocol;
pub mod queue;
pub mod sandbox;
pub mod together;

use tracing::{info, warn};

/// What confines this agent's workers, and what cannot.
pub fn isolation() -> sandbox::Closed {
    let mut closed = sandbox::available();
    if cgroup::taken() {
        closed.holds.insert(0, "cgroup".to_owned());
    } else {
        let missing = "cgroup: while a model loads and is checked, its processor time is not limited; let systemd \
                       delegate (Delegate=yes)";
        closed.missing.push(missing.to_owned());
    }
    closed
}

/// At start-up: takes what the machine gives to confine workers, and says what it does not.
pub fn prepare() {
    cgroup::take();
    let isolation = isolation();
    info!(holds = isolation.holds.join(", "), "workers are confined");
    for missing in isolation.missing {
        warn!(missing, "this machine confines workers less than it could");
    }
}
