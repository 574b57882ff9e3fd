//! The Open Inference Protocol, version 2, with Triton's extensions (Triton Inference Server's
//! `docs/protocol`, github.com/triton-inference-server/server), over HTTP.
//!
//! A path becomes a request in [`muster_shared::door::oip`]; [`read`] makes tensors of a body, JSON and
//! [binary](read) alike; [`infer`] runs the model; [`write`] makes a body of what it gave. The rest tells
//! about models: [`metadata`], [`statistics`], [`repository`]. gRPC uses all of it but [`read`] and
//! [`write`].
//!
//! Where it differs from Triton: BF16 is refused and FP16 may be JSON; a request with the data of inputs
//! in another nesting than their shape is taken, since only the order of elements counts; `priority` and
//! sequences have no effect; shared memory is never there; an unknown model is 404.

pub mod classification;
pub mod datatypes;
pub mod infer;
pub mod metadata;
pub mod read;
pub mod repository;
pub mod statistics;
pub mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use muster_shared::door::oip::{self, Request};
use serde::Serialize;
use serde_json::json;

use self::repository::{Closed, Repository};
use super::http::{Answer, Ask};
use super::refusal::Refusal;
use crate::table::Table;

/// What this door needs.
#[derive(Debug, Clone)]
pub struct OipDoor {
    /// Who answers.
    pub table: Arc<Table>,
    /// Who loads and unloads.
    pub repository: Arc<dyn Repository>,
}

impl OipDoor {
    /// A door that loads and unloads nothing.
    pub fn closed(table: Arc<Table>) -> Self {
        Self { repository: Arc::new(Closed(table.clone())), table }
    }
}

/// Whether a path belongs to this door.
pub use muster_shared::door::oip::is_ours;

/// Answers one request, whoever brought it.
pub async fn answer(door: &OipDoor, ask: Ask<'_>) -> Answer {
    let mut answer = match respond(door, ask).await {
        Ok(answer) => answer,
        Err(refusal) => Answer::error(refusal.status(), &refusal.text),
    };
    // tritonclient's asyncio client says with every request that it takes gzip, and unpacks the outputs
    // of models only.
    if answer.version.is_none() {
        answer.headers.push((CONTENT_ENCODING, HeaderValue::from_static("identity")));
    }
    answer
}

async fn respond(door: &OipDoor, ask: Ask<'_>) -> Result<Answer, Refusal> {
    let table = &*door.table;
    match oip::parse(ask.method.as_str(), ask.path)? {
        Request::Infer(model) => {
            let served = metadata::find_started(table, &model).await?;
            let asked = read::read(ask, &served)?;
            let id = asked.id.clone();
            let outputs = infer::infer(table, &served, asked).await?;
            write::write(model.name, &served, id.as_deref(), &outputs)
        }
        // Triton answers with a status alone; KServe's clients read these bodies.
        Request::Live => Ok(Answer::json(StatusCode::OK, &json!({ "live": true }))),
        Request::Ready => {
            let ready = metadata::all_ready(table);
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            Ok(Answer::json(status, &json!({ "ready": ready })))
        }
        Request::ModelReady(model) => {
            metadata::find(table, &model)?;
            Ok(Answer::json(StatusCode::OK, &json!({ "name": model.name, "ready": true })))
        }
        Request::ServerMetadata => told(&metadata::server()),
        Request::ModelMetadata(model) => told(&metadata::model(table, &model)?),
        Request::ModelConfig(model) => told(&metadata::config(table, &model)?),
        Request::Statistics(model) => told(&statistics::of(table, model.as_ref())?),
        Request::Index => {
            let ready_only = repository::wants_ready_only(ask.body)?;
            told(&repository::index(&*door.repository, ready_only))
        }
        Request::Load(name) => {
            let parameters = repository::parameters(ask.body)?;
            door.repository.load(name, parameters).await?;
            Ok(empty(StatusCode::OK))
        }
        Request::Unload(name) => {
            let parameters = repository::parameters(ask.body)?;
            door.repository.unload(name, parameters).await?;
            Ok(empty(StatusCode::OK))
        }
        Request::SharedMemoryStatus => Ok(Answer::json(StatusCode::OK, &json!([]))),
        Request::Absent(what) => Err(Refusal::absent(what)),
    }
}

fn empty(status: StatusCode) -> Answer {
    Answer { status, version: None, headers: vec![], body: Default::default() }
}

fn told(body: &impl Serialize) -> Result<Answer, Refusal> {
    let body = serde_json::to_vec(body).map_err(|error| Refusal::failed(error.to_string()))?;
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Ok(Answer { status: StatusCode::OK, version: None, headers, body: body.into() })
}
