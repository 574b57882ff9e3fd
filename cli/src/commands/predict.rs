//! `muster predict`: asks a deployment through the gateway, as a TF Serving client would.

use std::io::Read;

use muster_shared::DeploymentName;
use serde_json::{Value, json};

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
    let prediction =
        session.client()?.predict(name, &body).await.attempt(|| format!("cannot predict with {name}")).map_err(
            |failure| failure.hint_if_none(format!("`muster describe deployment {name}` says whether it serves")),
        )?;
    match args.output {
        TextOrJson::Text => output::print_line(prediction.answer),
        TextOrJson::Json => {
            output::print_line(serde_json::to_string(&prediction).attempt(|| "cannot print the answer")?)
        }
    }
}

/// What is sent: a TF Serving body as it is, a bare list as its instances.
fn body(data: &str) -> Result<Value> {
    const FORMS: &str = "pass a list of instances as [[1.0, 2.0]], or {\"instances\": …} or {\"inputs\": …}";
    let text = match data.strip_prefix('@') {
        Some(path) => read(path)?,
        None => data.to_owned(),
    };
    let value: Value =
        serde_json::from_str(&text).attempt(|| "--data is no JSON").map_err(|failure| failure.hint(FORMS))?;
    match value {
        Value::Array(instances) => Ok(json!({ "instances": instances })),
        Value::Object(fields) if fields.contains_key("instances") || fields.contains_key("inputs") => {
            Ok(Value::Object(fields))
        }
        _ => Err(Failure::new("--data is neither a list nor a body with instances or inputs").hint(FORMS)),
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
        assert_eq!(body("[[1, 2]]").expect("a list"), json!({"instances": [[1, 2]]}));
        let whole = json!({"inputs": {"x": [1]}, "signature_name": "serving_default"});
        assert_eq!(body(&whole.to_string()).expect("a body"), whole);
        for bad in ["3", "{\"x\": 1}", "[1,", "@/no/such/file"] {
            assert!(body(bad).is_err(), "{bad}");
        }
    }
}
