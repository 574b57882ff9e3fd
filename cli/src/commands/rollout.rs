//! `muster rollout`: how a version change goes, and an operator's hand on it.

use std::time::Duration;

use muster_shared::DeploymentName;
use muster_shared::api::deployment::{Deployment, RolloutStage, RolloutView};
use muster_shared::quantity::Millis;

use crate::client::{Client, ClientError};
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result};
use crate::output::{self, Table, TextOrJson, date, one_line, or_dash};
use crate::tell::rollout::{failures, line, stage_name};
use crate::wait;

/// Arguments of `muster rollout`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Show how far the rollout is
    Status(Status),
    /// Let no further device change, until it is resumed
    Pause(Which),
    /// Let it go on; one that stopped or was undone begins again, and devices try once more what they refused
    Resume(Which),
    /// Give every device the previous version back
    Undo(Which),
    /// List the rollouts so far, newest first
    History(Which),
}

#[derive(clap::Args)]
struct Which {
    /// The deployment's name
    deployment: DeploymentName,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

#[derive(clap::Args)]
struct Status {
    #[command(flatten)]
    which: Which,
    /// Wait until it is over; exit with 1 if it stopped or was undone
    #[arg(short, long)]
    wait: bool,
    /// How long to wait; without, until it is over
    #[arg(long, value_name = "D", requires = "wait")]
    timeout: Option<Millis>,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let client = session.client()?;
    match args.command {
        Command::Status(args) if args.wait => wait(&args, &client).await,
        Command::Status(args) => {
            let name = &args.which.deployment;
            let asked = client.get(&format!("/deployments/{name}/rollout")).await;
            show(&args.which, &understood(asked, "ask for", name)?)
        }
        Command::Pause(which) => change(&which, &client, "pause").await,
        Command::Resume(which) => change(&which, &client, "resume").await,
        Command::Undo(which) => change(&which, &client, "undo").await,
        Command::History(which) => history(&which, &client).await,
    }
}

async fn change(which: &Which, client: &Client, verb: &str) -> Result<()> {
    let name = &which.deployment;
    let changed = client.post(&format!("/deployments/{name}/rollout/{verb}")).await;
    show(which, &understood(changed, verb, name)?)
}

fn understood<T>(answer: Result<T, ClientError>, verb: &str, name: &DeploymentName) -> Result<T> {
    answer.attempt(|| format!("cannot {verb} the rollout of {name}")).map_err(|failure| {
        failure.hint_if_none(format!(
            "`muster rollout history {name}` lists its rollouts, `muster get deployments` what there is"
        ))
    })
}

fn show(which: &Which, rollout: &RolloutView) -> Result<()> {
    match which.output {
        TextOrJson::Text => output::print(&text(&which.deployment, rollout)),
        TextOrJson::Json => output::print_json(rollout),
    }
}

fn text(name: &DeploymentName, rollout: &RolloutView) -> String {
    let first = format!("{name}: {}", line(rollout));
    let failed = failures(rollout).map(|failed| format!("failed: {failed}"));
    std::iter::once(first).chain(failed).map(|line| format!("{}\n", one_line(&line))).collect()
}

/// Prints each change of stage or wave until the rollout is over.
async fn wait(args: &Status, client: &Client) -> Result<()> {
    let Which { deployment: name, output } = &args.which;
    let (mut is_observed, mut seen) = (false, None);
    let ended = wait::until(args.timeout.map(|timeout| Duration::from_millis(timeout.0)), async || {
        is_observed = is_observed || observed(client, name).await?;
        let Some(rollout) = current(client, name, is_observed).await? else {
            // Is the deployment still there? The next look finds out.
            is_observed = false;
            return Ok(None);
        };
        if rollout.stage == RolloutStage::Done && !is_newest(client, name, &rollout).await? {
            return Ok(None);
        }
        let stands = (rollout.number, rollout.stage, rollout.wave);
        if *output == TextOrJson::Text && seen != Some(stands) {
            output::print(&text(name, &rollout))?;
        }
        seen = Some(stands);
        Ok(is_over(rollout.stage).then_some(rollout))
    });
    let Some(rollout) = ended.await? else {
        let timeout = args.timeout.unwrap_or(Millis(0));
        return Err(Failure::new(format!("the rollout of {name} is not over after {timeout}"))
            .hint(format!("`muster explain {name}` says what it waits for")));
    };
    if *output == TextOrJson::Json {
        output::print_json(&rollout)?;
    }
    verdict(name, &rollout)
}

/// Whether the control plane has looked at what was last applied: before, the rollout is an old one.
async fn observed(client: &Client, name: &DeploymentName) -> Result<bool> {
    let deployment = deployment(client, name).await?;
    let observed = deployment.status.unwrap_or_default().observed_generation;
    Ok(deployment.metadata.generation.is_none_or(|generation| observed >= generation))
}

/// Whether it brought what the version rule means today: a bundle may just have been pushed, and its
/// rollout be about to begin.
async fn is_newest(client: &Client, name: &DeploymentName, rollout: &RolloutView) -> Result<bool> {
    let version = deployment(client, name).await?.status.unwrap_or_default().version;
    Ok(version.is_none_or(|version| version == rollout.version))
}

async fn deployment(client: &Client, name: &DeploymentName) -> Result<Deployment> {
    understood(client.get(&format!("/deployments/{name}")).await, "ask for", name)
}

/// The rollout of what was last applied, once there is one.
async fn current(client: &Client, name: &DeploymentName, is_observed: bool) -> Result<Option<RolloutView>> {
    if !is_observed {
        return Ok(None);
    }
    match client.get(&format!("/deployments/{name}/rollout")).await {
        Err(error) if error.is_not_found() => Ok(None),
        answer => understood(answer, "ask for", name).map(Some),
    }
}

fn is_over(stage: RolloutStage) -> bool {
    match stage {
        RolloutStage::Running | RolloutStage::Paused => false,
        RolloutStage::Stopped | RolloutStage::Undone | RolloutStage::Done => true,
    }
}

/// How a rollout that is over ends the command.
fn verdict(name: &DeploymentName, rollout: &RolloutView) -> Result<()> {
    let hint = match rollout.stage {
        RolloutStage::Stopped => format!(
            "`muster explain {name}` says more; `muster rollout resume {name}` tries again once the cause is gone"
        ),
        RolloutStage::Undone => format!("`muster rollout resume {name}` brings version {} again", rollout.version),
        RolloutStage::Running | RolloutStage::Paused | RolloutStage::Done => return Ok(()),
    };
    let stage = stage_name(rollout.stage);
    Err(Failure::new(format!("version {} of {name} did not get through: {stage}", rollout.version)).hint(hint))
}

async fn history(which: &Which, client: &Client) -> Result<()> {
    let name = &which.deployment;
    let asked = client.get(&format!("/deployments/{name}/rollouts")).await;
    let rollouts: Vec<RolloutView> = asked
        .attempt(|| format!("cannot list the rollouts of {name}"))
        .map_err(|failure| failure.hint_if_none("`muster get deployments` lists what there is"))?;
    match which.output {
        TextOrJson::Json => output::print_json(&rollouts),
        TextOrJson::Text if rollouts.is_empty() => {
            anstream::eprintln!("deployment {name} had no rollout yet");
            Ok(())
        }
        TextOrJson::Text => output::print(&table(&rollouts).render()),
    }
}

fn table(rollouts: &[RolloutView]) -> Table {
    let mut table =
        Table::new(&["NUMBER", "VERSION", "FROM", "STAGE", "WAVE", "HEALTHY", "FAILED", "BEGAN", "CHANGED", "TEXT"]);
    for rollout in rollouts {
        table.row([
            rollout.number.to_string(),
            rollout.version.to_string(),
            or_dash(rollout.previous),
            stage_name(rollout.stage).to_owned(),
            format!("{}/{}", rollout.wave, rollout.waves),
            format!("{}/{}", rollout.healthy, rollout.granted),
            rollout.failed.len().to_string(),
            date(rollout.began_ms),
            date(rollout.changed_ms),
            rollout.message.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tell::rollout::tests::rollout;

    fn view(fields: Value) -> RolloutView {
        serde_json::from_value(rollout(fields)).expect("a rollout")
    }

    fn name() -> DeploymentName {
        "digits".parse().expect("a name")
    }

    #[test]
    fn status_is_a_line_and_the_failures() {
        let failed = json!([{"device": "edge-1", "reason": "row 2\nis off"}]);
        let stopped = view(json!({"stage": "stopped", "wave": 1, "failed": failed, "message": "edge-1: row 2 is off"}));
        assert_eq!(
            text(&name(), &stopped),
            "digits: version 2 (from 1), stopped in wave 1 of 3: edge-1: row 2 is off\nfailed: edge-1: row 2 is off\n"
        );
    }

    #[test]
    fn history_is_a_table() {
        let rows = [
            view(json!({})),
            view(json!({"number": 1, "version": 1, "previous": null, "stage": "done", "message": "all"})),
        ];
        assert_eq!(
            table(&rows).render(),
            "\
NUMBER   VERSION   FROM   STAGE     WAVE   HEALTHY   FAILED   BEGAN                  CHANGED                TEXT
2        2         1      running   2/3    1/3       0        2023-11-14T22:13:20Z   2023-11-14T22:14:20Z   it waits for edge-2 (in probation)
1        1         -      done      2/3    1/3       0        2023-11-14T22:13:20Z   2023-11-14T22:14:20Z   all
"
        );
    }

    #[test]
    fn only_a_rollout_that_is_done_ends_well() {
        for (stage, over, words) in [
            ("running", false, None),
            ("paused", false, None),
            ("done", true, None),
            (
                "stopped",
                true,
                Some("version 2 of digits did not get through: stopped (hint: `muster explain digits` says more"),
            ),
            (
                "undone",
                true,
                Some("did not get through: undone (hint: `muster rollout resume digits` brings version 2 again)"),
            ),
        ] {
            let view = view(json!({"stage": stage}));
            assert_eq!(is_over(view.stage), over, "{stage}");
            let said = verdict(&name(), &view).err().map(|failure| failure.to_string());
            assert_eq!(said.is_some(), words.is_some(), "{stage}");
            assert!(said.unwrap_or_default().contains(words.unwrap_or_default()), "{stage}");
        }
    }
}
