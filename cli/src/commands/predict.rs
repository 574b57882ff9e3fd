//! `muster predict`: asks a deployment through the gateway, as a TF Serving client would.

use std::collections::BTreeMap;
use std::io::Read;

use muster_shared::DeploymentName;
use serde_json::value::RawValue;

use crate::context::Session;
use crate::error::{Attempt as _, Failure, Result};
use crate::files;
use crate::output::{self, TextOrJson};

/// The longest request that is read; the gateway has its own, lower limit.
const DATA_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Arguments of `muster predict`.
#[derive(clap::Args)]
pub struct Args {
    /// The deployment's name
    deployment: DeploymentName,
    /// A list of instances, or a whole TF Serving body with "instances" or "inputs"; @FILE reads a file, @- standard input
    #[arg(short, long, value_name = "JSON|@FILE")]
    data: String,
    /// text prints TF Serving's answer; json adds which device and version answered
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let body = body(&args.data)?;
    let name = &args.deployment;
    let prediction = match session.client()?.predict(name, body).await {
        Err(error) if error.is_unserved() => {
            return Err(error).attempt(|| format!("cannot predict with {name}")).map_err(|failure| {
                failure.hint("`muster get deployments` lists what there is, and says why something waits")
            });
        }
        other => other.attempt(|| format!("cannot predict with {name}"))?,
    };
    match args.output {
        TextOrJson::Text => output::print_line(prediction.answer),
        TextOrJson::Json => {
            output::print_line(serde_json::to_string(&prediction).attempt(|| "cannot print the answer")?)
        }
    }
}

/// What is sent: a TF Serving body as it is, a bare list as its instances. Numbers stay as they are
/// written.
fn body(data: &str) -> Result<String> {
    const FORMS: &str = "pass a list of instances as [[1.0, 2.0]], or {\"instances\": …} or {\"inputs\": …}";
    let text = match data.strip_prefix('@') {
        Some(path) => read(path)?,
        None => data.to_owned(),
    };
    let value: &RawValue =
        serde_json::from_str(&text).attempt(|| "--data is no JSON").map_err(|failure| failure.hint(FORMS))?;
    let fields = serde_json::from_str::<BTreeMap<String, &RawValue>>(value.get());
    if value.get().starts_with('[') {
        Ok(format!("{{\"instances\":{value}}}"))
    } else if fields.is_ok_and(|fields| fields.contains_key("instances") || fields.contains_key("inputs")) {
        Ok(value.to_string())
    } else {
        Err(Failure::new("--data is neither a list nor a body with instances or inputs").hint(FORMS))
    }
}

fn read(path: &str) -> Result<String> {
    let attempt = || format!("cannot read {path}");
    let reader: Box<dyn Read> = match path {
        "-" => Box::new(std::io::stdin().lock()),
        _ => Box::new(std::fs::File::open(path).attempt(attempt)?),
    };
    let bytes = files::read_bounded(reader, DATA_BYTES_MAX).attempt(attempt)?;
    String::from_utf8(bytes).attempt(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_wrapped_and_bodies_kept() {
        let list = " [[2.9035215e-16, 1]]\n";
        assert_eq!(body(list).expect("a list"), "{\"instances\":[[2.9035215e-16, 1]]}");
        let whole = "{\"inputs\": {\"x\": [1]}, \"signature_name\": \"serving_default\"}";
        assert_eq!(body(whole).expect("a body"), whole);
        for bad in ["3", "{\"x\": 1}", "[1,", "@/no/such/file"] {
            assert!(body(bad).is_err(), "{bad}");
        }
    }
}
