//! `muster claim new` for many devices at once: a claim for each, as files for `muster flash`, and labels to
//! stick on them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use muster_provisioning::bulk::{self, ROWS_MAX, Row, TABLE_BYTES_MAX};
use muster_provisioning::enrolment::{By, Enrolment, Url};
use muster_provisioning::kit::Kit;
use muster_provisioning::labels::{Label, Sheet, pdf, svg};
use muster_shared::Digest;
use muster_shared::api::{Claim, ClaimedDevice, NewClaims};
use muster_shared::claim::ClaimToken;
use muster_shared::id::{Labels, UnixMs};
use reqwest::Method;
use serde::Serialize;

use super::{New, bytes, labels};
use crate::client::Client;
use crate::commands::flash::kit_failure;
use crate::context::{Context, Session};
use crate::error::{Attempt as _, Failure, Result, next_move};
use crate::files::{self, Readable};
use crate::output::{self, date, now_ms};

/// Claims that are asked for at once.
const CLAIMS_AT_A_TIME: usize = 500;
/// Days are few for devices that are shipped.
const TTL_HINT: &str = "say how long the devices may take with --ttl, for instance --ttl 30d";

/// What is asked of many devices.
#[derive(clap::Args)]
pub struct Many {
    /// Make a claim for each of N devices, named by --name-prefix and a number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=ROWS_MAX as i64),
        conflicts_with_all = ["uses", "may_label", "may_label_anything"], requires = "output")]
    count: Option<u32>,
    /// Make a claim for each line of a table: name,site,rack and so on, every column but the name being a label
    #[arg(long, value_name = "CSV", conflicts_with_all = ["uses", "may_label", "may_label_anything", "name_prefix"],
        requires = "output")]
    labels_from: Option<PathBuf>,
    /// What the names of --count begin with
    #[arg(long, value_name = "TEXT", default_value = "edge-")]
    name_prefix: String,
    /// What the labels are printed on: a4-24, a4-24-foil, a4-40, letter-30, or one label's size as 62x29 (mm)
    #[arg(long, value_name = "SHEET", default_value = "a4-24")]
    label_sheet: Sheet,
    /// Begin at this place of the first sheet, where the ones before are used up
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    label_start: u16,
    /// Where the labels' codes lead, if people reach the control plane by another address than devices do
    #[arg(long, value_name = "URL")]
    label_url: Option<Url>,
    /// End open claims for the same names: cards that have them enrol no more
    #[arg(long)]
    replace: bool,
}

impl Many {
    /// Whether this is about many devices.
    pub fn is_asked(&self) -> bool {
        self.count.is_some() || self.labels_from.is_some()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    devices: usize,
    folder: &'a Path,
    expires_ms: UnixMs,
}

pub async fn run(new: &New, session: &Session) -> Result<()> {
    let many = &new.many;
    let (_, context) = session.context()?;
    let root = context.pinned_root()?;
    let rows = rows(new)?;
    let folder = new.output.as_deref().ok_or_else(|| Failure::new("no folder is named").hint("say -o FOLDER"))?;
    // All that can fail without the control plane fails before a claim is made.
    let url = context
        .url
        .parse::<Url>()
        .attempt(|| "devices cannot enrol at this context's address")
        .map_err(|failure| failure.hint("log in to the control plane by the https address that devices reach"))?;
    let printed = printed(&rows, many.label_url.as_ref().map_or(context.url.as_str(), Url::as_str), many)?;
    let kit = Kit::make(folder).map_err(kit_failure)?;
    let pins = Pins { url, root: root.digest, ca: context.ca_fingerprint, issued_ms: now_ms() };
    let client = context.client()?;
    let mut claimed = false;
    let made = make(new, &client, &rows, &kit, &pins, &mut claimed).await;
    let (listed, expires_ms) = made.map_err(|failure| match claimed {
        true => failure.hint(format!(
            "some names belong to claims that are open now, of which {} may have a part: make all anew with --replace \
             and another folder",
            folder.display()
        )),
        false => {
            kit.discard();
            failure
        }
    })?;
    write(folder, "devices.csv", listed.as_bytes())?;
    write(folder, "labels.pdf", &printed.sheets)?;
    std::fs::create_dir(folder.join("labels")).attempt(|| format!("cannot make {}/labels", folder.display()))?;
    for (name, svg) in &printed.single {
        write(folder, &format!("labels/{name}.svg"), svg.as_bytes())?;
    }
    tell(new, &context, rows.len(), folder, expires_ms)
}

fn tell(new: &New, context: &Context, devices: usize, folder: &Path, expires_ms: UnixMs) -> Result<()> {
    if new.json {
        return output::print_json(&View { devices, folder, expires_ms });
    }
    output::print_line(format_args!(
        "{devices} claims lie in {}/cards, their labels in {}/labels.pdf",
        folder.display(),
        folder.display()
    ))?;
    next_move(format_args!(
        "good until {}; keep the folder secret, and write cards with `muster flash IMAGE DEVICE… --claims {}`; \
         {} must be reachable for the devices",
        date(expires_ms),
        folder.display(),
        context.url
    ));
    Ok(())
}

/// The devices that are asked for, with the labels that all get.
fn rows(new: &New) -> Result<Vec<Row>> {
    let common = labels(new)?;
    let Some(path) = &new.many.labels_from else {
        let count = new.many.count.unwrap_or(0) as usize;
        return bulk::numbered(&new.many.name_prefix, count, &common).attempt(|| "cannot name the devices");
    };
    let attempt = || format!("cannot read the table {}", path.display());
    let file = std::fs::File::open(path).attempt(attempt)?;
    let bytes = files::read_bounded(file, TABLE_BYTES_MAX as u64).attempt(attempt)?;
    let text = String::from_utf8(bytes).attempt(attempt)?;
    let rows = bulk::read(&text).attempt(attempt);
    let mut rows = rows.map_err(|failure| failure.hint("mend the lines, and run it again: nothing was made"))?;
    for row in &mut rows {
        let own = std::mem::replace(&mut row.labels, common.clone());
        row.labels.extend(own);
    }
    match new.many.count {
        Some(count) if count as usize != rows.len() => Err(Failure::new(format!(
            "the table {} names {} devices, and --count says {count}",
            path.display(),
            rows.len()
        ))
        .hint("leave --count out, or look at the table")),
        _ => Ok(rows),
    }
}

/// Labels, ready to be written.
struct Printed {
    sheets: Vec<u8>,
    single: Vec<(String, String)>,
}

fn printed(rows: &[Row], plane: &str, many: &Many) -> Result<Printed> {
    let attempt = || "cannot print the labels";
    let hint = "choose larger labels with --label-sheet, or a shorter address with --label-url";
    let label = |row: &Row| Label::of(row.name.clone(), plane, &row.labels);
    let labels: Vec<Label> = rows.iter().map(label).collect();
    let skip = usize::from(many.label_start) - 1;
    let sheets = pdf::write(&labels, &many.label_sheet, skip).attempt(attempt).map_err(|failure| failure.hint(hint))?;
    let single = |label: &Label| {
        let svg = svg::write(label, many.label_sheet.label).attempt(attempt)?;
        Ok((label.name.to_string(), svg))
    };
    Ok(Printed { sheets, single: labels.iter().map(single).collect::<Result<_>>()? })
}

/// What every card brings beside its claim: whom to ask, and whom to believe.
struct Pins {
    url: Url,
    root: Digest,
    ca: Digest,
    issued_ms: UnixMs,
}

/// Asks for the claims and puts each where the flasher finds it. Gives the list of devices, and when all end.
/// `claimed`: some were made.
async fn make(
    new: &New,
    client: &Client,
    rows: &[Row],
    kit: &Kit,
    pins: &Pins,
    claimed: &mut bool,
) -> Result<(String, UnixMs)> {
    let ttl_seconds = new.ttl.0 / 1000;
    if ttl_seconds == 0 {
        return Err(Failure::new("a claim must live for a second at least").hint(TTL_HINT));
    }
    let mut listed = "number,name,claim,labels\n".to_owned();
    let mut expires_ms = UnixMs::MAX;
    for (part, some) in rows.chunks(CLAIMS_AT_A_TIME).enumerate() {
        let device = |row: &Row| ClaimedDevice { name: row.name.clone(), labels: row.labels.clone() };
        let asked = NewClaims {
            devices: some.iter().map(device).collect(),
            ttl_seconds,
            needs_approval: new.needs_approval,
            replace: new.many.replace,
        };
        let claims: Vec<Claim> =
            client.send_json(Method::POST, "/claims/named", &asked).await.attempt(|| "cannot make claims")?;
        *claimed = true;
        if claims.len() != some.len() {
            return Err(Failure::new("the control plane made another number of claims than was asked for"));
        }
        for (number, (row, claim)) in (part * CLAIMS_AT_A_TIME + 1..).zip(some.iter().zip(&claims)) {
            let token = ClaimToken {
                id: bytes(&claim.id)?,
                secret: bytes(&claim.secret)?,
                root: pins.root,
                ca: pins.ca,
                issued_ms: pins.issued_ms,
            };
            // The labels are the claim's: a device that asked for them would only repeat it.
            let (by, name) = (By::Claim(token), Some(row.name.clone()));
            let card = Enrolment { url: pins.url.clone(), by, name, labels: Labels::new() };
            kit.add(number, &card).map_err(kit_failure)?;
            let labels: Vec<String> = row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            // Writing to a string does not fail.
            let _ = writeln!(listed, "{number},{},{},{}", row.name, claim.id, labels.join(" "));
            expires_ms = expires_ms.min(claim.expires_ms);
        }
    }
    Ok((listed, expires_ms))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    files::create(&path, bytes, Readable::ByAll).attempt(|| format!("cannot write {}", path.display()))
}
