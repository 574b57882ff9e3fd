//! `muster apply`: deployments from YAML. All documents are checked before the first is sent.

use std::path::PathBuf;

use muster_shared::api::deployment::Deployment;
use reqwest::Method;
use serde::Serialize;

use super::plan;
use crate::client::Client;
use crate::context::Session;
use crate::error::{Attempt as _, Result};
use crate::output::{self, TextOrJson};
use crate::yaml;

/// Arguments of `muster apply`.
#[derive(clap::Args)]
pub struct Args {
    /// YAML with one or more documents, or - for standard input
    #[arg(short, long, value_name = "FILE.yaml")]
    file: PathBuf,
    /// Only print what would change, as `muster plan -f` does
    #[arg(long)]
    dry_run: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

#[derive(Serialize)]
struct Applied {
    name: muster_shared::DeploymentName,
    action: &'static str,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let deployments = yaml::deployments(&args.file, "apply")?;
    let client = session.client()?;
    if args.dry_run {
        return plan::preview(&client, deployments, args.output).await;
    }
    let mut applied = Vec::new();
    for deployment in &deployments {
        let action = put(&client, deployment).await?;
        let name = deployment.metadata.name.clone();
        if args.output == TextOrJson::Text {
            output::print_line(format_args!("deployment {name} {action}"))?;
        }
        applied.push(Applied { name, action });
    }
    if args.output == TextOrJson::Json { output::print_json(&applied) } else { Ok(()) }
}

async fn put(client: &Client, deployment: &Deployment) -> Result<&'static str> {
    let name = &deployment.metadata.name;
    let attempt = || format!("cannot apply deployment {name}");
    let path = format!("/deployments/{name}");
    let before: Option<Deployment> = match client.get(&path).await {
        Ok(before) => Some(before),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error).attempt(attempt),
    };
    let after: Deployment = client.send_json(Method::PUT, &path, deployment).await.attempt(attempt)?;
    Ok(match before {
        None => "created",
        Some(before) if before.spec == after.spec && before.metadata.labels == after.metadata.labels => "unchanged",
        Some(_) => "configured",
    })
}
