//! `muster delete`: a deployment goes, and devices stop serving it; or a revoked device is forgotten.

use muster_shared::{DeploymentName, DeviceId};
use serde::Serialize;

use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result};
use crate::output::{self, TextOrJson};
use crate::resources::Kind;

/// Arguments of `muster delete`.
#[derive(clap::Args)]
pub struct Args {
    /// What it is: a deployment, or a device that is revoked
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
    name: String,
    action: &'static str,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let noun = args.kind.noun();
    let attempt = || format!("cannot delete {noun} {}", args.name);
    let path = match args.kind {
        Kind::Deployments => format!("/deployments/{}", args.name.parse::<DeploymentName>().attempt(attempt)?),
        Kind::Devices => format!("/devices/{}", args.name.parse::<DeviceId>().attempt(attempt)?),
        Kind::Bundles | Kind::Events | Kind::Claims => {
            return Err(Failure::new(format!("a {noun} cannot be deleted"))
                .hint("deployments can, and revoked devices: `muster delete deployment NAME`"));
        }
    };
    session
        .client()?
        .delete(&path)
        .await
        .attempt(attempt)
        .map_err(|failure| failure.hint_if_none(format!("`muster get {noun}s` lists those that there are")))?;
    match args.output {
        TextOrJson::Text => output::print_line(format_args!("{noun} {} deleted", args.name)),
        TextOrJson::Json => output::print_json(&Deleted { name: args.name, action: "deleted" }),
    }
}
