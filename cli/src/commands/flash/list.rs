//! The drives of this machine, as people choose among them.

use muster_provisioning::flash::drives::{Drive, Machine, Wish, list, objections};
use muster_provisioning::flash::target::Target;
use serde::Serialize;

use crate::error::{Attempt as _, Result, next_move};
use crate::output::{self, Table, TextOrJson};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    name: &'a str,
    bytes: u64,
    bus: String,
    model: &'a str,
    removable: bool,
    /// Why it is not written to; empty: it may be.
    objections: Vec<String>,
}

/// Prints what may be written to first, then the others with what speaks against them.
pub fn print(machine: &Machine, built_in: bool, output: TextOrJson) -> Result<()> {
    let wish = Wish { named: false, built_in, bytes: 0 };
    let drives = list(machine).attempt(|| "cannot list the drives")?;
    let against = |drive: &Drive| objections(drive, wish).iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut views: Vec<View<'_>> = drives
        .iter()
        .filter(|drive| is_shown(drive))
        .map(|drive| View {
            name: &drive.name,
            bytes: drive.bytes,
            bus: drive.bus.to_string(),
            model: &drive.model,
            removable: drive.removable,
            objections: against(drive),
        })
        .collect();
    views.sort_by_key(|view| !view.objections.is_empty());
    if output == TextOrJson::Json {
        return output::print_json(&views);
    }
    let mut table = Table::new(&["NAME", "SIZE", "BUS", "MODEL", "STATE"]);
    for view in &views {
        let state = view.objections.first().map_or("may be written", String::as_str).to_owned();
        let model = if view.model.is_empty() { "-" } else { view.model };
        table.row([view.name.to_owned(), output::bytes(view.bytes), view.bus.clone(), model.to_owned(), state]);
    }
    output::print(&table.render())?;
    match views.first().filter(|view| view.objections.is_empty()) {
        Some(view) => next_move(format_args!("write one with `muster flash IMAGE {}`", view.name)),
        None => next_move("none may be written: put a card or a stick in, then look again"),
    }
    Ok(())
}

/// Empty loop devices and the like are many and of no use.
fn is_shown(drive: &Drive) -> bool {
    drive.bus != muster_provisioning::flash::drives::Bus::Software
        || (drive.bytes > 0 && !drive.name.starts_with("ram"))
}

/// A target in one line.
pub fn line(target: &Target) -> String {
    match target {
        Target::Drive(drive) => {
            let model = output::one_line(&drive.model);
            format!("{}: {} {} {model}", drive.name, output::bytes(drive.bytes), drive.bus).trim_end().to_owned()
        }
        Target::File { path, bytes, .. } => format!("{}: {}, a plain file", path.display(), output::bytes(*bytes)),
    }
}
