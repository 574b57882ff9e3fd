//! `muster describe`: one thing in full.

use crate::context::Session;
use crate::error::Result;
use crate::output::{self, Format};
use crate::resources::Kind;

/// Arguments of `muster describe`.
#[derive(clap::Args)]
pub struct Args {
    /// What it is
    #[arg(value_enum)]
    kind: Kind,
    /// Its name; for bundles a model or MODEL/VERSION
    name: String,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let client = session.client()?;
    let values = match args.output {
        Format::Table | Format::Wide => {
            return output::print(&args.kind.describe(&client, &args.name).await?);
        }
        Format::Json | Format::Yaml => args.kind.fetch(&client, Some(&args.name), false).await?,
    };
    let values: Vec<_> = values.into_iter().map(|item| item.value).collect();
    match args.output {
        Format::Yaml => output::print_yaml(&values),
        _ if args.kind.is_one(Some(&args.name)) => output::print_json(&values.first()),
        _ => output::print_json(&values),
    }
}
