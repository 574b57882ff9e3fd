//! Claims, without their secrets. A name is a claim's id.

use muster_shared::api::ClaimView;

use super::{Item, Kind, unknown};
use crate::client::Client;
use crate::error::{Attempt as _, Result};
use crate::output::{date, now_ms};

pub const HEADER: &[&str] = &["ID", "USED", "STATE", "EXPIRES"];
pub const HEADER_WIDE: &[&str] = &[];

pub async fn fetch(client: &Client, only: Option<&str>) -> Result<Vec<Item>> {
    let mut all: Vec<ClaimView> = client.get("/claims").await.attempt(|| "cannot list the claims")?;
    if let Some(only) = only {
        all.retain(|claim| claim.id == only);
        if all.is_empty() {
            return Err(unknown(Kind::Claims, only));
        }
    }
    all.iter().map(item).collect()
}

fn item(claim: &ClaimView) -> Result<Item> {
    let state = if claim.used >= claim.uses {
        "spent"
    } else if claim.expires_ms <= now_ms() {
        "expired"
    } else {
        "open"
    };
    let row =
        vec![claim.id.clone(), format!("{}/{}", claim.used, claim.uses), state.to_owned(), date(claim.expires_ms)];
    Item::new(claim.id.clone(), row, claim, &[])
}
