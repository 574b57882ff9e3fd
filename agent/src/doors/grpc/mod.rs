//! The Open Inference Protocol over gRPC: what [`super::oip`] answers, in the messages of
//! `proto/open_inference.proto`. [`contents`] makes tensors of messages, [`told`] makes messages of what
//! is told about models, [`incoming`] takes connections, [`codec`] says whose fault a message without sense
//! is; [`generated`] comes from the `.proto` file, as
//! this folder's README says.

pub mod codec;
pub mod contents;
#[allow(missing_docs, clippy::all, clippy::unwrap_used)]
pub mod generated;
pub mod incoming;
pub mod told;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::{Stream, StreamExt as _};
use muster_shared::door::{self, oip::Model};
use muster_shared::{DeviceId, Version};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{info, warn};

use self::generated::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use self::generated::*;
use super::Doors;
use super::oip::repository::Parameters;
use super::oip::{OipDoor, infer, metadata, repository, statistics};
use super::refusal::{Kind, Refusal};
use super::server::BODY_BYTES_MAX;

/// One message, unpacked.
const MESSAGE_BYTES_MAX: usize = BODY_BYTES_MAX;
/// Calls at a time on one connection; the client waits with further ones.
const CALLS_MAX: u32 = 256;
/// Requests of one stream that are worked on at a time; its further ones wait.
const STREAM_REQUESTS_MAX: usize = 32;
/// Whoever does not answer for so long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long the door waits for calls under way when it closes.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// Opens the door until `stop`; where it opened, and what ends when it is closed.
pub async fn open(
    address: SocketAddr,
    doors: &Doors,
    stop: CancellationToken,
) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot open the gRPC door on {address}; choose another address by --grpc"))?;
    let (address, oip, device) = (listener.local_addr()?, doors.oip.clone(), doors.device.clone());
    info!(%address, "the gRPC door is open");
    let open = tokio::spawn(async move {
        if let Err(error) = serve(listener, oip, &device, stop).await {
            warn!(%error, "the gRPC door is closed");
        }
    });
    Ok((address, open))
}

/// Serves on `listener` until `stop`; then lets calls under way end.
async fn serve(
    listener: TcpListener,
    door: OipDoor,
    device: &DeviceId,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let service = GrpcInferenceServiceServer::new(Service::new(door, device))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let serving = tonic::transport::Server::builder()
        .max_concurrent_streams(CALLS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .serve_with_incoming_shutdown(service, incoming::connections(listener), stop.cancelled());
    let too_long = async {
        stop.cancelled().await;
        tokio::time::sleep(CLOSE_DEADLINE).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = too_long => {
            warn!("the gRPC door closes over calls that did not end within {CLOSE_DEADLINE:?}");
            Ok(())
        }
    }
}

struct Service {
    door: OipDoor,
    device: AsciiMetadataValue,
}

impl Service {
    fn new(door: OipDoor, device: &DeviceId) -> Self {
        let device = device.as_str().parse().unwrap_or_else(|_| AsciiMetadataValue::from_static("unknown"));
        Self { door, device }
    }

    /// An answer, with what each one tells of its origin. It is packed for who packs requests, too:
    /// every client says that it could unpack.
    fn answer<T>(&self, message: T, version: Option<Version>, asked: &MetadataMap) -> Response<T> {
        let mut response = Response::new(message);
        self.tell(response.metadata_mut(), version);
        if asked.get("grpc-encoding").is_none_or(|encoding| encoding != "gzip") {
            response.disable_compression();
        }
        response
    }

    fn tell(&self, metadata: &mut MetadataMap, version: Option<Version>) {
        metadata.insert(door::DEVICE_HEADER, self.device.clone());
        if let Some(version) = version {
            metadata.insert(door::VERSION_HEADER, version.get().into());
        }
    }

    fn refuse(&self, refusal: Refusal) -> Status {
        let code = match refusal.kind {
            Kind::Bad | Kind::Method => Code::InvalidArgument,
            Kind::Unknown => Code::NotFound,
            Kind::Forbidden => Code::PermissionDenied,
            Kind::Absent => Code::Unimplemented,
            Kind::Busy => Code::ResourceExhausted,
            Kind::Unavailable => Code::Unavailable,
            Kind::Late => Code::DeadlineExceeded,
            Kind::Failed => Code::Internal,
        };
        let mut status = Status::new(code, refusal.text);
        self.tell(status.metadata_mut(), None);
        status
    }
}

/// Runs a model: the message, and the version that answered.
async fn run(door: &OipDoor, request: ModelInferRequest) -> Result<(ModelInferResponse, Version), Refusal> {
    let (name, version) = (request.model_name.clone(), request.model_version.clone());
    let model = Model::of(&name, &version)?;
    let served = metadata::find_started(&door.table, &model).await?;
    let id = request.id.clone();
    let asked = contents::read(request)?;
    let outputs = infer::infer(&door.table, &served, asked).await?;
    Ok((contents::write(name, served.version, id, outputs), served.version))
}

/// What becomes of one request of a stream.
async fn run_in_stream(door: OipDoor, request: ModelInferRequest) -> ModelStreamInferResponse {
    let (name, id) = (request.model_name.clone(), request.id.clone());
    match run(&door, request).await {
        Ok((mut response, _)) => {
            // Every request has one answer, so each is its last.
            let last = InferParameter { parameter_choice: Some(infer_parameter::ParameterChoice::BoolParam(true)) };
            response.parameters.insert("triton_final_response".to_owned(), last);
            ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
        }
        Err(refusal) => {
            let whose = ModelInferResponse { model_name: name, id, ..Default::default() };
            ModelStreamInferResponse { error_message: refusal.text, infer_response: Some(whose) }
        }
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, request: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(self.answer(ServerLiveResponse { live: true }, None, request.metadata()))
    }

    async fn server_ready(
        &self,
        request: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = metadata::all_ready(&self.door.table);
        Ok(self.answer(ServerReadyResponse { ready }, None, request.metadata()))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let model = Model::of(&message.name, &message.version).map_err(|error| self.refuse(error.into()))?;
        // A model that nobody knows is not ready, as Triton says.
        let served = metadata::find(&self.door.table, &model).ok();
        let version = served.as_ref().map(|served| served.version);
        Ok(self.answer(ModelReadyResponse { ready: served.is_some() }, version, &metadata))
    }

    async fn server_metadata(
        &self,
        request: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(self.answer(told::server(), None, request.metadata()))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let told = Model::of(&message.name, &message.version)
            .map_err(Refusal::from)
            .and_then(|model| metadata::model(&self.door.table, &model))
            .map_err(|refusal| self.refuse(refusal))?;
        Ok(self.answer(told::model(told), None, &metadata))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let (response, version) = run(&self.door, message).await.map_err(|refusal| self.refuse(refusal))?;
        Ok(self.answer(response, Some(version), &metadata))
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send + 'static>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let (metadata, _, requests) = request.into_parts();
        let door = self.door.clone();
        // Who hangs up drops this, and with it what is under way.
        let answers = requests.map(move |request| {
            let door = door.clone();
            async move { Ok(run_in_stream(door, request?).await) }
        });
        let answers: Self::ModelStreamInferStream = Box::pin(answers.buffered(STREAM_REQUESTS_MAX));
        Ok(self.answer(answers, None, &metadata))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let served = Model::of(&message.name, &message.version)
            .map_err(Refusal::from)
            .and_then(|model| metadata::find(&self.door.table, &model))
            .map_err(|refusal| self.refuse(refusal))?;
        let config = Some(told::config(message.name, &served));
        Ok(self.answer(ModelConfigResponse { config }, Some(served.version), &metadata))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let of_one = || {
            let model = Model::of(&message.name, &message.version)?;
            statistics::of(&self.door.table, Some(&model))
        };
        let counted = if message.name.is_empty() { statistics::of(&self.door.table, None) } else { of_one() };
        let counted = counted.map_err(|refusal| self.refuse(refusal))?;
        Ok(self.answer(told::statistics(counted), None, &metadata))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let index = repository::index(&*self.door.repository, request.get_ref().ready);
        Ok(self.answer(told::index(index), None, request.metadata()))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let parameters: Parameters = told::parameters(message.parameters);
        let loaded = self.door.repository.load(&message.model_name, parameters).await;
        loaded.map_err(|error| self.refuse(error.into()))?;
        Ok(self.answer(RepositoryModelLoadResponse {}, None, &metadata))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let parameters: Parameters = told::parameters(message.parameters);
        let unloaded = self.door.repository.unload(&message.model_name, parameters).await;
        unloaded.map_err(|error| self.refuse(error.into()))?;
        Ok(self.answer(RepositoryModelUnloadResponse {}, None, &metadata))
    }
}
