//! `muster inspect`: what is in a bundle file, who signed it, and what changed since another one.
//! Needs no network.

use std::path::{Path, PathBuf};

use muster_shared::manifest::{Manifest, Variant, VerifiedManifest, weights_change};
use muster_shared::root::TrustedRoot;
use muster_shared::{Digest, FleetId};
use serde::Serialize;

use crate::bundle::Bundle;
use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result};
use crate::output::{self, Facts, TextOrJson, date};
use crate::{onnx, trust};

/// Arguments of `muster inspect`.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle
    file: PathBuf,
    /// Say how it differs from this older bundle
    #[arg(long, value_name = "FILE.bundle")]
    against: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

/// What the signatures are worth here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SignedBy {
    /// Whose signatures the envelope carries, by their own word.
    keys: Vec<String>,
    /// Whether a publisher of the pinned root signed; nothing where no root is known here.
    trusted: Option<bool>,
    fleet: Option<FleetId>,
    root_version: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    #[serde(rename = "sha256")]
    digest: Digest,
    signed_by: SignedBy,
    manifest: &'a Manifest,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<Change>>,
}

/// How one variant differs from that of the same name in the older bundle.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    variant: String,
    /// Nothing where the older bundle has no such variant.
    graph_same: Option<bool>,
    tensors_changed: usize,
    tensors: usize,
}

pub fn run(args: Args, session: &Session) -> Result<()> {
    let bundle = open(&args.file)?;
    let older = args.against.as_deref().map(open).transpose()?;
    let root =
        session.context_if_any()?.and_then(|(_, context)| trust::newest_remembered(&session.home, context.root?));
    let view = View {
        digest: bundle.digest,
        signed_by: signed_by(&bundle, root.as_ref()),
        manifest: &bundle.manifest,
        changes: older.as_ref().map(|older| changes(&older.manifest, &bundle.manifest)),
    };
    if args.output == TextOrJson::Json {
        return output::print_json(&view);
    }
    output::print(&facts(&view).render())?;
    if let (Some(older), Some(changes)) = (older, &view.changes) {
        let Manifest { model, version, .. } = &older.manifest;
        output::print_line(format_args!("\nsince {model} {version}:"))?;
        changes.iter().try_for_each(|change| output::print_line(sentence(change)))?;
    }
    Ok(())
}

/// Reads a bundle file and checks every member of it.
pub fn open(path: &Path) -> Result<Bundle> {
    let file = std::fs::File::open(path).attempt(|| format!("cannot read {}", path.display()))?;
    Bundle::read(std::io::BufReader::new(file))
        .attempt(|| format!("cannot read {}", path.display()))
        .map_err(|failure: Failure| failure.hint_if_none("get the file again, or make it anew with `muster pack`"))
}

fn signed_by(bundle: &Bundle, root: Option<&TrustedRoot>) -> SignedBy {
    SignedBy {
        keys: bundle.envelope.signatures.iter().map(|signature| signature.keyid.to_string()).collect(),
        trusted: root.map(|root| VerifiedManifest::verify(&bundle.envelope, root).is_ok()),
        fleet: root.map(|root| root.root().fleet.clone()),
        root_version: root.map(|root| root.root().version),
    }
}

fn facts(view: &View<'_>) -> Facts {
    let manifest = view.manifest;
    let mut facts = Facts::default();
    facts.add("model", &manifest.model);
    facts.add("version", manifest.version);
    facts.add("manifest", view.digest);
    facts.add("created", date(manifest.created_ms));
    let SignedBy { keys, trusted, fleet, root_version } = &view.signed_by;
    let worth = match (trusted, fleet, root_version) {
        (Some(true), Some(fleet), Some(version)) => format!("a publisher of fleet {fleet}, root {version}"),
        (Some(false), Some(fleet), Some(version)) => {
            format!("NOT a publisher of this model in fleet {fleet}, root {version}")
        }
        _ => "not checked: no root is pinned here".to_owned(),
    };
    let names = if keys.is_empty() { "nobody".to_owned() } else { keys.join(", ") };
    facts.add("signed by", format!("{names} ({worth})"));
    manifest.inputs.iter().for_each(|port| facts.add("input", onnx::describe(port)));
    manifest.outputs.iter().for_each(|port| facts.add("output", onnx::describe(port)));
    for variant in &manifest.variants {
        let Variant { name, file, graph, weights, tensors, .. } = variant;
        facts.add("variant", format!("{name}, ONNX, {}, {}", output::bytes(file.bytes), file.sha256));
        facts.add("  f", graph);
        facts.add("  θ", format!("{weights} ({} tensors)", tensors.len()));
    }
    match &manifest.golden {
        Some(file) => facts.add("golden", format!("{}, {}", output::bytes(file.bytes), file.sha256)),
        None => facts.add("golden", "none: a device cannot check this model"),
    }
    facts
}

fn changes(older: &Manifest, newer: &Manifest) -> Vec<Change> {
    let change = |new: &Variant| match older.variant(&new.name) {
        Some(old) => {
            let weights = weights_change(old, new);
            Change {
                variant: new.name.to_string(),
                graph_same: Some(old.graph == new.graph),
                tensors_changed: weights.changed,
                tensors: weights.all,
            }
        }
        None => Change {
            variant: new.name.to_string(),
            graph_same: None,
            tensors_changed: new.tensors.len(),
            tensors: new.tensors.len(),
        },
    };
    newer.variants.iter().map(change).collect()
}

fn sentence(change: &Change) -> String {
    let Change { variant, graph_same, tensors_changed, tensors } = change;
    let f = match graph_same {
        None => return format!("{variant}: new"),
        Some(true) => "f same",
        Some(false) => "f changed",
    };
    match tensors_changed {
        0 => format!("{variant}: {f}, θ same"),
        changed => format!("{variant}: {f}, θ changed in {changed} of {tensors} tensors"),
    }
}
