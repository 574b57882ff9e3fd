//! TF Serving's REST API, whole, on the models of one device (tensorflow.org/tfx/serving/api_rest):
//! [`muster_shared::door::tfs`] reads the path, [`request`] and [`examples`] the body, [`answer`](mod@answer)
//! and [`metadata`] write what is answered.
//!
//! What differs from TF Serving, beside what these modules say of themselves:
//!
//! - A model has one signature, `serving_default`, which answers to predict, classify and regress.
//! - Answers hold no white space that could be left out, except status, metadata and errors.
//! - Floats are written in the fewest digits that read back as the same number.
//! - Integers beyond their type are refused, 8 and 16 bits included; half floats and unsigned 16 bits are
//!   taken.
//! - Texts must be UTF-8; what an output of texts holds beyond that is written as U+FFFD.
//! - What the model is given must fit its shape; there the words are ours.
//! - A model that is being loaded or started again, or could not be, is 503 instead of 404.

pub mod answer;
pub mod examples;
pub mod metadata;
pub mod request;

use axum::http::{HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use muster_shared::Version;
use muster_shared::door::VersionChoice;
use muster_shared::door::tfs::{TfsError, TfsRequest, TfsVerb};

use self::request::Body;
use super::http::{Answer, Ask};
use super::refusal::Refusal;
use crate::table::{NotServed, Served, Table, VersionState};
use crate::tensor::Tensor;
use crate::worker::parent::Prediction;

/// A body, or what is wrong; and which version it is about.
type Result<T, E = (Option<Version>, TfsError)> = std::result::Result<T, E>;

/// Answers one request, whoever brought it.
pub async fn answer(table: &Table, ask: Ask<'_>) -> Answer {
    if *ask.method == Method::OPTIONS {
        return preflight(ask);
    }
    let (status, version, body) = match respond(table, ask).await {
        Ok((version, body)) => (StatusCode::OK, version, body.into()),
        Err((version, error)) => {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, version, error.body().into())
        }
    };
    let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Answer { status, version, headers, body }
}

/// TF Serving answers a page's question whether it may ask with a bare status.
fn preflight(ask: Ask<'_>) -> Answer {
    let origin = ask.headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    let from_a_page = origin.contains("http://") || origin.contains("https://");
    let status = if from_a_page { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    Answer { status, version: None, headers: vec![], body: Bytes::new() }
}

async fn respond(table: &Table, ask: Ask<'_>) -> Result<(Option<Version>, Vec<u8>)> {
    let request = TfsRequest::parse(ask.method.as_str(), ask.path).map_err(|error| (None, error))?;
    if request.verb == TfsVerb::Status {
        return status(table, &request).map_err(|error| (None, error));
    }
    let served = table.find_started(&request.model, &request.choice).await;
    let served = served.map_err(|error| (None, not_served(table, &request, ask.body, &error)))?;
    let version = Some(served.version);
    let invalid = |text: String| (version, TfsError::invalid(text));
    let body = match request.verb {
        TfsVerb::Status | TfsVerb::Metadata => metadata::metadata(&request.model, &served),
        TfsVerb::Predict => {
            let (form, inputs) = request::read(&served.inputs, ask.body).map_err(invalid)?;
            let prediction = predict(table, &served, inputs).await?;
            answer::prediction(form, &prediction.outputs).map_err(invalid)?
        }
        TfsVerb::Classify => {
            let (inputs, examples) = examples::read(&served.inputs, ask.body).map_err(invalid)?;
            let prediction = predict(table, &served, inputs).await?;
            answer::classification(&prediction.outputs, examples).map_err(invalid)?
        }
        TfsVerb::Regress => {
            let (inputs, examples) = examples::read(&served.inputs, ask.body).map_err(invalid)?;
            let prediction = predict(table, &served, inputs).await?;
            answer::regression(&prediction.outputs, examples).map_err(invalid)?
        }
    };
    Ok((version, body))
}

/// As `GetModelStatusImpl` does, a label is passed over: the status is that of all versions.
fn status(table: &Table, request: &TfsRequest<'_>) -> Result<(Option<Version>, Vec<u8>), TfsError> {
    let mut versions = table.versions(&request.model).unwrap_or_default();
    if let VersionChoice::Version(version) = request.choice {
        versions.retain(|entry| entry.version == version);
    }
    let Some(newest) = versions.first() else { return Err(request.not_served()) };
    let answering = versions.iter().find(|entry| entry.state == VersionState::Available);
    Ok((Some(answering.unwrap_or(newest).version), metadata::status(&versions)))
}

fn not_served(table: &Table, request: &TfsRequest<'_>, body: &[u8], error: &NotServed) -> TfsError {
    if matches!(error, NotServed::Starting | NotServed::Failed(_)) {
        // TF Serving says that there is no such model; but this one is worth another try, or a look.
        return TfsError { status: StatusCode::SERVICE_UNAVAILABLE.as_u16(), text: error.to_string() };
    }
    if request.verb != TfsVerb::Metadata {
        // TF Serving reads the body before it looks for the model.
        let read = Body::read(body).and_then(|body| body.signature().map(drop));
        if let Err(text) = read {
            return TfsError::invalid(text);
        }
    }
    let labelled = match error {
        NotServed::Label(label) => {
            let versions = table.versions(&request.model).unwrap_or_default();
            versions.iter().find(|entry| entry.labels.contains(label)).map(|entry| entry.version)
        }
        _ => None,
    };
    match labelled {
        Some(version) => {
            TfsRequest { choice: VersionChoice::Version(version), model: request.model.clone(), verb: request.verb }
                .not_served()
        }
        None => request.not_served(),
    }
}

async fn predict(table: &Table, served: &Served, inputs: Vec<Tensor>) -> Result<Prediction> {
    let answer = table.predict(served, inputs).await;
    answer.map_err(|error| {
        let refusal = Refusal::from(error);
        (Some(served.version), TfsError { status: refusal.status().as_u16(), text: refusal.text })
    })
}

#[cfg(test)]
mod tests;
