//! Claims, without their secrets. A name is a claim's id.

use muster_shared::api::ClaimView;

use super::{Item, Kind, labels, unknown};
use crate::client::Client;
use crate::error::{Attempt as _, Result};
use crate::output::{date, now_ms, or_dash};

pub const HEADER: &[&str] = &["ID", "USED", "STATE", "EXPIRES", "LABELS"];
pub const HEADER_WIDE: &[&str] = &["FOR", "MAY LABEL", "APPROVAL"];

pub async fn fetch(client: &Client, only: Option<&str>, wide: bool) -> Result<Vec<Item>> {
    let mut all: Vec<ClaimView> = client.get("/claims").await.attempt(|| "cannot list the claims")?;
    if let Some(only) = only {
        all.retain(|claim| claim.id == only);
        if all.is_empty() {
            return Err(unknown(Kind::Claims, only));
        }
    }
    all.iter().map(|claim| item(claim, wide)).collect()
}

fn item(claim: &ClaimView, wide: bool) -> Result<Item> {
    let state = if claim.void {
        "void"
    } else if claim.used >= claim.uses {
        "spent"
    } else if claim.expires_ms <= now_ms() {
        "expired"
    } else {
        "open"
    };
    let mut row = vec![
        claim.id.clone(),
        format!("{}/{}", claim.used, claim.uses),
        state.to_owned(),
        date(claim.expires_ms),
        labels(&claim.labels),
    ];
    if wide {
        row.push(or_dash(claim.name.as_ref()));
        let named = claim.may_label.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        row.push(match (claim.may_label_anything, named.is_empty()) {
            (true, _) => "anything".to_owned(),
            (false, true) => "-".to_owned(),
            (false, false) => named,
        });
        row.push(if claim.needs_approval { "by hand" } else { "-" }.to_owned());
    }
    Item::new(claim.id.clone(), row, claim, &[])
}
