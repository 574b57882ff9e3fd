//! `muster delete`: a deployment goes; devices stop serving it.

use muster_shared::DeploymentName;
use serde::Serialize;

use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result};
use crate::output::{self, TextOrJson};
use crate::resources::Kind;

/// Arguments of `muster delete`.
#[derive(clap::Args)]
pub struct Args {
    /// What it is: only deployments are deleted
    #[arg(value_enum)]
    kind: Kind,
    /// Its name
    name: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

#[derive(Serialize)]
struct Deleted {
    name: DeploymentName,
    action: &'static str,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    if args.kind != Kind::Deployments {
        return Err(Failure::new(format!("a {} cannot be deleted", args.kind.noun()))
            .hint("only deployments can: `muster delete deployment NAME`"));
    }
    let attempt = || format!("cannot delete deployment {}", args.name);
    let name = args.name.parse::<DeploymentName>().attempt(attempt)?;
    session
        .client()?
        .delete(&format!("/deployments/{name}"))
        .await
        .attempt(attempt)
        .map_err(|failure| failure.hint_if_none("`muster get deployments` lists those that there are"))?;
    match args.output {
        TextOrJson::Text => output::print_line(format_args!("deployment {name} deleted")),
        TextOrJson::Json => output::print_json(&Deleted { name, action: "deleted" }),
    }
}
