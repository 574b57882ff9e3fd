//! The command line as typed: one variant per command; each command's own arguments stand in its
//! file.

use clap::{Parser, Subcommand};

use crate::commands::{
    apply, approve, claim, context, cordon, decommission, delete, describe, diagnose, drain, explain, flash, get,
    image, inspect, keys, login, pack, plan, predict, push, release, revoke, rollout, scale, trust, uncordon, whoami,
};
use crate::context::{Home, Session};
use crate::error::Result;

const NEXT_STEPS: &str = "\
First steps with a new control plane, which prints URL, F and the code at its first start:
  muster login URL --ca-fingerprint F
  muster keys init                      makes the keys of a new fleet
  muster claim new                      prints a token by which a device enrols
  muster pack digits.onnx --name digits --version 1 --key KEYS/publisher.pem -o digits.bundle
  muster push digits.bundle
  muster apply -f digits.yaml
  muster predict digits --data '[[1.0, 2.0]]'

With a fleet:
  muster plan -f digits.yaml            says what would change, and why
  muster rollout status digits --wait   follows a new version, wave by wave
  muster explain digits                 says why it is as it is; also for a device
  muster drain edge-1 --wait            empties a device

Contexts and keys are kept in $MUSTER_HOME, by default ~/.config/muster.";

/// Run models on a fleet of small machines.
#[derive(Parser)]
#[command(name = "muster", version, after_help = NEXT_STEPS, max_term_width = 110)]
pub struct Cli {
    /// The control plane to use, by the name that `muster context` lists
    #[arg(long, global = true, env = "MUSTER_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Log in to a control plane and pin its CA
    Login(login::Args),
    /// Show who is logged in, and where
    Whoami(whoami::Args),
    /// List contexts, or switch to another
    Context(context::Args),
    /// Make, show and change the fleet's keys
    Keys(keys::Args),
    /// Show the trust in force, or set a version floor
    Trust(trust::Args),
    /// Make, list and revoke tokens by which devices enrol
    Claim(claim::Args),
    /// Write an image to cards and drives, or list the drives
    Flash(flash::Args),
    /// Let a device in that waits, or take one back that is held
    Approve(approve::Args),
    /// Have a device remove its models and its key, and leave
    Decommission(decommission::Args),
    /// Cut a device off for good
    Revoke(revoke::Args),
    /// Make a signed bundle of a model
    Pack(pack::Args),
    /// Show what is in a bundle file, or how two differ
    Inspect(inspect::Args),
    /// Upload a bundle to the control plane
    Push(push::Args),
    /// Sign, check, upload and show releases of the agent
    Release(release::Args),
    /// Make a device's image, or put the agent into one that you have
    Image(image::Args),
    /// Create or change deployments from YAML
    Apply(apply::Args),
    /// List things
    Get(get::Args),
    /// Show one thing in full
    Describe(describe::Args),
    /// Delete a deployment, or forget a revoked device
    Delete(delete::Args),
    /// Ask a deployed model for predictions
    Predict(predict::Args),
    /// Say why a deployment or a device is as it is
    Explain(explain::Args),
    /// Ask a device for what it believes and why it does what it does
    Diagnose(diagnose::Args),
    /// Show what would change and why, or approve it
    Plan(plan::Args),
    /// Follow a version change, hold it, or take it back
    Rollout(rollout::Args),
    /// Change how many replicas a deployment has
    Scale(scale::Args),
    /// Let nothing new come to a device
    Cordon(cordon::Args),
    /// Let replicas be placed on a device again
    Uncordon(uncordon::Args),
    /// Move what is on a device elsewhere
    Drain(drain::Args),
}

impl Cli {
    /// Runs the command.
    pub async fn run(self) -> Result<()> {
        let chosen = self.context.filter(|name| !name.is_empty());
        let session = Session { home: Home::find()?, chosen };
        match self.command {
            Command::Login(args) => login::run(args, &session).await,
            Command::Whoami(args) => whoami::run(args, &session).await,
            Command::Context(args) => context::run(args, &session),
            Command::Keys(args) => keys::run(args, &session).await,
            Command::Trust(args) => trust::run(args, &session).await,
            Command::Claim(args) => claim::run(args, &session).await,
            Command::Flash(args) => flash::run(args).await,
            Command::Approve(args) => approve::run(args, &session).await,
            Command::Decommission(args) => decommission::run(args, &session).await,
            Command::Revoke(args) => revoke::run(args, &session).await,
            Command::Pack(args) => pack::run(args),
            Command::Inspect(args) => inspect::run(args, &session),
            Command::Push(args) => push::run(args, &session).await,
            Command::Release(args) => release::run(args, &session).await,
            Command::Image(args) => image::run(args, &session),
            Command::Apply(args) => apply::run(args, &session).await,
            Command::Get(args) => get::run(args, &session).await,
            Command::Describe(args) => describe::run(args, &session).await,
            Command::Delete(args) => delete::run(args, &session).await,
            Command::Predict(args) => predict::run(args, &session).await,
            Command::Explain(args) => explain::run(args, &session).await,
            Command::Diagnose(args) => diagnose::run(args, &session).await,
            Command::Plan(args) => plan::run(args, &session).await,
            Command::Rollout(args) => rollout::run(args, &session).await,
            Command::Scale(args) => scale::run(args, &session).await,
            Command::Cordon(args) => cordon::run(args, &session).await,
            Command::Uncordon(args) => uncordon::run(args, &session).await,
            Command::Drain(args) => drain::run(args, &session).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
