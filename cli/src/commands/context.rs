//! `muster context`: which control planes are known, and which one is used.

use muster_shared::FleetId;
use serde::Serialize;

use crate::context::{Contexts, PinnedRoot, Session};
use crate::error::{Result, next_move};
use crate::output::{self, Table, TextOrJson, or_dash};

/// Arguments of `muster context`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Use another context from now on
    Use {
        /// As `muster context` lists it
        name: String,
    },
}

/// A context without its token.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    name: &'a str,
    current: bool,
    url: &'a str,
    ca_fingerprint: muster_shared::Digest,
    fleet: Option<&'a FleetId>,
    root: Option<PinnedRoot>,
}

pub fn run(args: Args, session: &Session) -> Result<()> {
    let mut contexts = Contexts::load(&session.home)?;
    if let Some(Command::Use { name }) = args.command {
        contexts.choose(Some(&name))?;
        contexts.current = Some(name.clone());
        contexts.save(&session.home)?;
        return output::print_line(format_args!("now using context {name:?}"));
    }
    let current = session.chosen.as_deref().or(contexts.current.as_deref());
    let views: Vec<View<'_>> = contexts
        .contexts
        .iter()
        .map(|(name, context)| View {
            name,
            current: current == Some(name.as_str()),
            url: &context.url,
            ca_fingerprint: context.ca_fingerprint,
            fleet: context.fleet.as_ref(),
            root: context.root,
        })
        .collect();
    if args.output == TextOrJson::Json {
        return output::print_json(&views);
    }
    if views.is_empty() {
        next_move("no context yet: log in with `muster login URL --ca-fingerprint F`");
        return Ok(());
    }
    let mut table = Table::new(&["CURRENT", "NAME", "URL", "FLEET", "ROOT"]);
    for view in views {
        let mark = if view.current { "*" } else { "" };
        let root = view.root.map(|root| format!("{} {}", root.version, root.digest.short()));
        table.row([mark.to_owned(), view.name.to_owned(), view.url.to_owned(), or_dash(view.fleet), or_dash(root)]);
    }
    output::print(&table.render())
}
