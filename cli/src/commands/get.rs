//! `muster get`: lists of things, and with `--watch` what changes about them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::client::Client;
use crate::context::Session;
use crate::error::{Result, warn};
use crate::output::{self, Format, Table};
use crate::resources::{Item, Kind};

/// How often a watcher asks.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// Arguments of `muster get`.
#[derive(clap::Args)]
pub struct Args {
    /// What to list
    #[arg(value_enum)]
    kind: Kind,
    /// Only this one (for bundles a model or MODEL/VERSION, for events a device or a deployment)
    name: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Go on printing what changes, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let client = session.client()?;
    let items = args.fetch(&client).await?;
    if !args.watch {
        return print(&args, &items);
    }
    tokio::select! {
        ended = watch(&args, &client, items) => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// The claims, for `muster claim list`.
pub(super) async fn claims(output: Format, session: &Session) -> Result<()> {
    run(Args { kind: Kind::Claims, name: None, output, watch: false }, session).await
}

impl Args {
    async fn fetch(&self, client: &Client) -> Result<Vec<Item>> {
        self.kind.fetch(client, self.name.as_deref(), self.output == Format::Wide).await
    }

    fn table(&self, items: &[Item]) -> Table {
        let mut table = Table::new(&self.kind.header(self.output == Format::Wide));
        items.iter().for_each(|item| table.row(item.row.clone()));
        table
    }
}

fn print(args: &Args, items: &[Item]) -> Result<()> {
    let values: Vec<&Value> = items.iter().map(|item| &item.value).collect();
    match args.output {
        Format::Json if args.kind.is_one(args.name.as_deref()) => output::print_json(&values.first()),
        Format::Json => output::print_json(&values),
        Format::Yaml => output::print_yaml(&values),
        Format::Table | Format::Wide if items.is_empty() => {
            anstream::eprintln!("there are no {}s", args.kind.noun());
            Ok(())
        }
        Format::Table | Format::Wide => output::print(&args.table(items).render()),
    }
}

async fn watch(args: &Args, client: &Client, first: Vec<Item>) -> Result<()> {
    let mut known = News::default();
    let mut widths = Vec::new();
    let mut next: Result<Vec<Item>> = Ok(first);
    let mut failing = false;
    loop {
        match next {
            Ok(items) => {
                failing = false;
                let fresh = News::new(&items);
                let changed: Vec<Item> = items.into_iter().filter(|item| known.lacks(item, &fresh)).collect();
                print_changes(args, &changed, &mut widths)?;
                for gone in known.0.keys().filter(|key| !fresh.0.contains_key(*key) && args.kind != Kind::Events) {
                    anstream::eprintln!("{} {gone} is gone", args.kind.noun());
                }
                known = fresh;
            }
            Err(failure) if !failure.is_passing() => return Err(failure),
            Err(_) if failing => {}
            Err(failure) => {
                warn(format_args!("{failure}; asking again"));
                failing = true;
            }
        }
        tokio::time::sleep(WATCH_PERIOD).await;
        next = args.fetch(client).await;
    }
}

/// What a watcher knows, by the things' keys.
#[derive(Default)]
struct News(BTreeMap<String, Value>);

impl News {
    fn new(items: &[Item]) -> Self {
        Self(items.iter().map(|item| (item.key.clone(), item.news())).collect())
    }

    fn lacks(&self, item: &Item, fresh: &Self) -> bool {
        self.0.get(&item.key) != fresh.0.get(&item.key)
    }
}

/// The header comes again where columns have grown.
fn print_changes(args: &Args, changed: &[Item], widths: &mut Vec<usize>) -> Result<()> {
    if changed.is_empty() {
        return Ok(());
    }
    match args.output {
        Format::Json => changed.iter().try_for_each(|item| output::print_line(&item.value)),
        Format::Yaml => changed.iter().try_for_each(|item| {
            output::print_line("---")?;
            output::print_yaml(&[&item.value])
        }),
        Format::Table | Format::Wide => {
            let table = args.table(changed);
            let mut needed = table.widths();
            needed.iter_mut().zip(widths.iter()).for_each(|(needed, before)| *needed = (*needed).max(*before));
            let text = if needed == *widths { table.render_rows(widths) } else { table.render_within(&needed) };
            *widths = needed;
            output::print(&text)
        }
    }
}
