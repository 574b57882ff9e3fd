//! `muster whoami`: whose token this is, and where it is good.

use muster_shared::api::WhoAmI;
use serde::Serialize;

use crate::context::Session;
use crate::error::{Attempt as _, Result};
use crate::output::{self, Facts, TextOrJson, or_dash};

/// Arguments of `muster whoami`.
#[derive(clap::Args)]
pub struct Args {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

#[derive(Serialize)]
struct Answer {
    user: String,
    context: String,
    url: String,
    fleet: Option<muster_shared::FleetId>,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let (name, context) = session.context()?;
    let answer: WhoAmI = context.client()?.get("/whoami").await.attempt(|| "cannot ask who this is")?;
    let answer = Answer { user: answer.user, context: name, url: context.url, fleet: context.fleet };
    if args.output == TextOrJson::Json {
        return output::print_json(&answer);
    }
    let mut facts = Facts::default();
    facts.add("user", &answer.user);
    facts.add("context", &answer.context);
    facts.add("url", &answer.url);
    facts.add("fleet", or_dash(answer.fleet.as_ref()));
    output::print(&facts.render())
}
