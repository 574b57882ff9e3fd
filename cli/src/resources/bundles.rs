//! Bundles in the catalog. A name is a model, or `MODEL/VERSION`.

use muster_shared::api::catalog::BundleView;

use super::{Item, Kind, unknown};
use crate::client::Client;
use crate::error::{Attempt as _, Result};
use crate::onnx;
use crate::output::{Facts, age, bytes, date, now_ms};

pub const HEADER: &[&str] = &["MODEL", "VERSION", "STATE", "SIZE", "F", "θ", "PUSHED"];
pub const HEADER_WIDE: &[&str] = &["VARIANTS", "INPUTS", "OUTPUTS", "MANIFEST"];

pub async fn fetch(client: &Client, only: Option<&str>, wide: bool) -> Result<Vec<Item>> {
    views(client, only).await?.iter().map(|bundle| item(bundle, wide)).collect()
}

async fn views(client: &Client, only: Option<&str>) -> Result<Vec<BundleView>> {
    let mut all: Vec<BundleView> = client.get("/bundles").await.attempt(|| "cannot list the bundles")?;
    if let Some(only) = only {
        all.retain(|bundle| matches(bundle, only));
        if all.is_empty() {
            return Err(unknown(Kind::Bundles, only));
        }
    }
    Ok(all)
}

fn matches(bundle: &BundleView, name: &str) -> bool {
    match name.split_once(['/', '@']) {
        Some((model, version)) => bundle.model.as_str() == model && bundle.version.to_string() == version,
        None => bundle.model.as_str() == name,
    }
}

fn item(bundle: &BundleView, wide: bool) -> Result<Item> {
    let mut row = vec![
        bundle.model.to_string(),
        bundle.version.to_string(),
        state(bundle).to_owned(),
        bytes(bundle.bytes),
        bundle.graph.short(),
        bundle.weights.short(),
        age(bundle.pushed_ms, now_ms()),
    ];
    if wide {
        row.extend([
            bundle.variants.join(","),
            ports(&bundle.inputs),
            ports(&bundle.outputs),
            bundle.manifest.to_string(),
        ]);
    }
    Item::new(format!("{}/{}", bundle.model, bundle.version), row, bundle, &[])
}

fn state(bundle: &BundleView) -> &'static str {
    match (&bundle.barred, bundle.complete) {
        (Some(_), _) => "not placed",
        (None, true) => "complete",
        (None, false) => "incomplete",
    }
}

fn ports(ports: &[muster_shared::manifest::Port]) -> String {
    ports.iter().map(onnx::describe).collect::<Vec<_>>().join("; ")
}

pub async fn describe(client: &Client, name: &str) -> Result<String> {
    let tell = |bundle: &BundleView| {
        let mut facts = Facts::default();
        facts.add("model", &bundle.model);
        facts.add("version", bundle.version);
        facts.add("state", state(bundle));
        if let Some(why) = &bundle.barred {
            facts.add("why", why);
        }
        facts.add("size", bytes(bundle.bytes));
        facts.add("pushed", date(bundle.pushed_ms));
        facts.add("manifest", bundle.manifest);
        facts.add("variants", bundle.variants.join(", "));
        facts.add("f", bundle.graph);
        facts.add("θ", bundle.weights);
        facts.add("inputs", ports(&bundle.inputs));
        facts.add("outputs", ports(&bundle.outputs));
        facts.render()
    };
    Ok(views(client, Some(name)).await?.iter().map(tell).collect::<Vec<_>>().join("\n"))
}
