//! `muster scale`: how many replicas a deployment is to have.

use muster_shared::DeploymentName;
use muster_shared::api::deployment::{Deployment, Scale};
use reqwest::Method;

use crate::context::Session;
use crate::error::{Attempt as _, Result, next_move};
use crate::output::{self, TextOrJson};
use crate::tell;

/// Arguments of `muster scale`.
#[derive(clap::Args)]
pub struct Args {
    /// The deployment's name
    deployment: DeploymentName,
    /// How many devices are to serve it; 0 stops it everywhere
    #[arg(short, long, value_name = "N")]
    replicas: u32,
    /// text says what is wanted now; json prints the deployment
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let name = &args.deployment;
    let asked = Scale { replicas: args.replicas };
    let path = format!("/deployments/{name}/scale");
    let deployment: Deployment = session
        .client()?
        .send_json(Method::PUT, &path, &asked)
        .await
        .attempt(|| format!("cannot scale deployment {name}"))
        .map_err(|failure| failure.hint_if_none("`muster get deployments` lists those that there are"))?;
    if args.output == TextOrJson::Json {
        return output::print_json(&deployment);
    }
    output::print_line(said(&deployment))?;
    next_move(format_args!("`muster explain {name}` says where replicas go, and what waits"));
    Ok(())
}

fn said(deployment: &Deployment) -> String {
    let Deployment { metadata, spec, .. } = deployment;
    format!("deployment {} scaled to {}", metadata.name, tell::count(spec.replicas, "replica"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_says_what_is_wanted_now() {
        let with = |replicas: u32| -> Deployment {
            let spec = json!({"model": "digits", "replicas": replicas});
            let whole = json!({
                "apiVersion": "muster.dev/v1", "kind": "Deployment", "metadata": {"name": "digits"}, "spec": spec,
            });
            serde_json::from_value(whole).expect("a deployment")
        };
        assert_eq!(said(&with(3)), "deployment digits scaled to 3 replicas");
        assert_eq!(said(&with(1)), "deployment digits scaled to 1 replica");
    }
}
