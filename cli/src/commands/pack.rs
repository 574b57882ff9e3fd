//! `muster pack`: a model and its golden vectors become one signed file. Needs no network.

use std::path::{Path, PathBuf};

use muster_shared::id::{ModelName, UnixMs, VariantName, Version};
use muster_shared::limits::{FILE_BYTES_MAX, GOLDEN_BYTES_MAX, MANIFEST_BYTES_MAX};
use muster_shared::manifest::{FileRef, Format, Manifest, Variant};
use muster_shared::signing::payload_type;
use serde::Serialize;

use crate::error::{Attempt as _, Failure, Result, next_move, warn};
use crate::files::{self, Readable};
use crate::keys::Signer;
use crate::keys::passphrase::Unlock;
use crate::onnx::Model;
use crate::{bundle, golden, output};

/// Arguments of `muster pack`.
#[derive(clap::Args)]
pub struct Args {
    /// The model, in ONNX format
    model: PathBuf,
    /// The model's name
    #[arg(long)]
    name: ModelName,
    /// Its version, a positive number that no other bundle of this model has
    #[arg(long)]
    version: Version,
    /// What this form of the model is called
    #[arg(long, default_value = "fp32", value_name = "NAME")]
    variant: VariantName,
    /// Inputs with the outputs that a right model gives, as JSON: devices check them before they serve
    #[arg(long, value_name = "FILE")]
    golden: Option<PathBuf>,
    /// The publisher's private key: a file as `muster keys init` made it, or a PKCS#11 URI
    #[arg(long)]
    key: String,
    #[command(flatten)]
    unlock: Unlock,
    /// Where the bundle goes
    #[arg(short, long, value_name = "FILE.bundle")]
    output: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    file: &'a Path,
    model: &'a ModelName,
    version: Version,
    manifest: muster_shared::Digest,
    bytes: u64,
    graph: muster_shared::Digest,
    weights: muster_shared::Digest,
    golden_cases: usize,
}

pub fn run(args: Args) -> Result<()> {
    // The key first: it is the likeliest to be missing, and the quickest to check.
    let key = Signer::open(&args.key, &args.unlock)?;
    let file = read(&args.model, FILE_BYTES_MAX)?;
    let model = Model::read(file.clone())
        .map_err(|error| Failure::new(format!("cannot pack {}: {error}", args.model.display())).hint(error.hint()))?;
    let golden = args.golden.as_deref().map(|path| read_golden(path, &model)).transpose()?;
    let cases = golden.as_ref().map_or(0, |(_, cases)| *cases);
    let golden = golden.map(|(bytes, _)| bytes);
    if golden.is_none() {
        warn("without --golden a device cannot check the model before it serves");
    }

    let manifest = Manifest {
        model: args.name.clone(),
        version: args.version,
        created_ms: created_ms()?,
        inputs: model.inputs,
        outputs: model.outputs,
        variants: vec![Variant {
            name: args.variant.clone(),
            format: Format::Onnx,
            file: FileRef::of(&file),
            graph: model.graph,
            weights: model.weights,
            tensors: model.tensors,
        }],
        golden: golden.as_deref().map(FileRef::of),
    };
    let payload = manifest.to_payload();
    Manifest::parse(&payload).attempt(|| format!("cannot pack {}", args.model.display()))?;
    let envelope = key.sign(payload_type::MANIFEST, payload)?;
    let attempt = || format!("cannot write {}", args.output.display());
    if envelope.to_json().len() > MANIFEST_BYTES_MAX {
        return Err(Failure::new("the manifest is too long").hint("give the model's inputs and outputs shorter names"));
    }

    let files: Vec<&[u8]> = std::iter::once(&file[..]).chain(golden.as_deref()).collect();
    let staged = files::stage(&args.output, Readable::ByAll).attempt(attempt)?;
    bundle::write(std::io::BufWriter::new(staged.as_file()), &envelope, &files).attempt(attempt)?;
    let bytes = staged.as_file().metadata().attempt(attempt)?.len();
    files::keep(staged, &args.output).attempt(attempt)?;

    let view = View {
        file: &args.output,
        model: &args.name,
        version: args.version,
        manifest: muster_shared::Digest::of(&envelope.payload),
        bytes,
        graph: model.graph,
        weights: model.weights,
        golden_cases: cases,
    };
    if args.json {
        return output::print_json(&view);
    }
    let size = output::bytes(bytes);
    output::print_line(format_args!(
        "packed {} {} into {} ({size}, {cases} golden cases, signed by {})",
        view.model,
        view.version,
        args.output.display(),
        key.public().id().0.short(),
    ))?;
    next_move(format_args!("muster push {}", args.output.display()));
    Ok(())
}

fn read(path: &Path, bytes_max: u64) -> Result<bytes::Bytes> {
    let bytes = std::fs::File::open(path).and_then(|file| files::read_bounded(file, bytes_max));
    bytes.map(bytes::Bytes::from).attempt(|| format!("cannot read {}", path.display()))
}

fn read_golden(path: &Path, model: &Model) -> Result<(bytes::Bytes, usize)> {
    let bytes = read(path, GOLDEN_BYTES_MAX)?;
    let cases = golden::check(&bytes, &model.inputs, &model.outputs)
        .attempt(|| format!("the golden vectors in {} do not fit the model", path.display()))
        .map_err(|failure| {
            failure.hint(
                "write {\"cases\": [{\"inputs\": {NAME: lists}, \"outputs\": {NAME: lists}}], \
                 \"tolerance\": {\"absolute\": 1e-4, \"relative\": 1e-4}}",
            )
        })?;
    Ok((bytes, cases))
}

/// Now, or what `SOURCE_DATE_EPOCH` says, for bundles that come out the same each time
/// (reproducible-builds.org).
fn created_ms() -> Result<UnixMs> {
    let Some(seconds) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(output::now_ms()) };
    let seconds = seconds.to_str().and_then(|text| text.parse::<u64>().ok()).and_then(|it| it.checked_mul(1000));
    seconds.ok_or_else(|| {
        Failure::new("SOURCE_DATE_EPOCH is no number of seconds").hint("unset it, or set it to seconds since 1970")
    })
}
