//! `muster plan`: what would change and why, what waits, what is frozen, before anything happens.

use std::path::PathBuf;

use muster_shared::api::deployment::Deployment;
use muster_shared::api::plan::{Change, ChangeView, FreezeView, PlanRequest, PlanView, WaitingView};
use reqwest::Method;

use crate::client::Client;
use crate::context::Session;
use crate::error::{Attempt as _, Result, next_move};
use crate::output::{self, Table, TextOrJson, date, one_line, or_dash};
use crate::tell;
use crate::yaml;

/// Arguments of `muster plan`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Plan as if these deployments were applied; - reads standard input
    #[arg(short, long, value_name = "FILE.yaml")]
    file: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Let go on what waits: silent devices are taken for lost, a restored database is taken as it is
    Approve {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: TextOrJson,
    },
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    if let Some(Command::Approve { output }) = args.command {
        return approve(&session.client()?, output).await;
    }
    let deployments = match &args.file {
        Some(file) => yaml::deployments(file, "plan")?,
        None => Vec::new(),
    };
    preview(&session.client()?, deployments, args.output).await
}

/// Prints what applying these deployments would change, without applying them.
pub(super) async fn preview(client: &Client, deployments: Vec<Deployment>, format: TextOrJson) -> Result<()> {
    let asked = PlanRequest { deployments };
    let plan: PlanView = client.send_json(Method::POST, "/plan", &asked).await.attempt(|| "cannot plan")?;
    if format == TextOrJson::Json {
        return output::print_json(&plan);
    }
    output::print(&text(&plan))?;
    if plan.restored.is_some() {
        next_move("look at `muster get devices` and at this plan, then `muster plan approve` lets changes go on");
    }
    if !plan.frozen.is_empty() {
        next_move("if these devices will not come back, `muster plan approve` lets their replicas move");
    }
    Ok(())
}

async fn approve(client: &Client, format: TextOrJson) -> Result<()> {
    let asked = PlanRequest { deployments: vec![] };
    let before: PlanView = client.send_json(Method::POST, "/plan", &asked).await.attempt(|| "cannot plan")?;
    let plan: PlanView = client.post("/plan/approve").await.attempt(|| "cannot approve the plan")?;
    if format == TextOrJson::Json {
        return output::print_json(&plan);
    }
    output::print_line(match before.restored {
        Some(_) => {
            "approved: changes go on with the database as it is; devices that hold later states keep them until you \
             approve again"
        }
        None => "approved: silent devices are taken for lost, and changes go on",
    })?;
    output::print(&text(&plan))
}

/// A plan, for people.
pub fn text(plan: &PlanView) -> String {
    let restored = plan.restored.iter().map(|why| format!("{}\n", one_line(why))).collect::<String>();
    let mut text = restored;
    text += &match plan.changes.len() {
        0 => "nothing would change\n".to_owned(),
        _ => changes(&plan.changes).render(),
    };
    let waiting = plan.waiting.iter().map(waits);
    for line in waiting.chain(plan.frozen.iter().map(frozen)) {
        text.push_str(&one_line(&line));
        text.push('\n');
    }
    text
}

fn changes(changes: &[ChangeView]) -> Table {
    let mut table = Table::new(&["DEPLOYMENT", "DEVICE", "CHANGE", "VERSION", "WHY"]);
    for it in changes {
        let word = match it.change {
            Change::Place => "place",
            Change::Update => "update",
            Change::Leave => "leave",
            Change::Remove => "remove",
        };
        table.row([
            it.deployment.to_string(),
            it.device.to_string(),
            word.to_owned(),
            or_dash(it.version),
            it.why.clone(),
        ]);
    }
    table
}

fn waits(waiting: &WaitingView) -> String {
    format!("waits: {}: {}", waiting.deployment, waiting.why)
}

fn frozen(freeze: &FreezeView) -> String {
    let FreezeView { group, devices, of, since_ms, message } = freeze;
    let (silent, since, names) = (devices.len(), date(*since_ms), tell::names(devices));
    format!("frozen: {group}: {silent} of {of} devices silent since {since} ({names}): {message}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn plan(value: Value) -> String {
        text(&serde_json::from_value(value).expect("a plan"))
    }

    #[test]
    fn an_empty_plan_says_so() {
        assert_eq!(plan(json!({"frozen": [], "changes": [], "waiting": []})), "nothing would change\n");
    }

    #[test]
    fn changes_waits_and_freezes_have_reasons() {
        let change = |device: &str, change: &str, version: Value, why: &str| {
            let (deployment, device) = ("digits", device.to_owned());
            json!({"deployment": deployment, "device": device, "change": change, "version": version, "why": why})
        };
        let said = plan(json!({
            "changes": [
                change("edge-1", "leave", json!(1), "edge-1 is being drained"),
                change("edge-2", "place", json!(1), "the only device that can take it"),
                change("edge-3", "update", json!(2), "wave 2 of 3"),
                change("edge-4", "remove", json!(null), "fewer replicas\nare wanted"),
            ],
            "waiting": [{"deployment": "other", "why": "1 of 2 replicas waits: edge-1 is cordoned"}],
            "frozen": [{"group": "north", "devices": ["edge-5", "edge-6"], "of": 3, "sinceMs": 1_700_000_000_000_u64,
                        "message": "moves go on when they are back"}],
        }));
        assert_eq!(
            said,
            "\
DEPLOYMENT   DEVICE   CHANGE   VERSION   WHY
digits       edge-1   leave    1         edge-1 is being drained
digits       edge-2   place    1         the only device that can take it
digits       edge-3   update   2         wave 2 of 3
digits       edge-4   remove   -         fewer replicas are wanted
waits: other: 1 of 2 replicas waits: edge-1 is cordoned
frozen: north: 2 of 3 devices silent since 2023-11-14T22:13:20Z (edge-5, edge-6): moves go on when they are back
"
        );
    }
}
