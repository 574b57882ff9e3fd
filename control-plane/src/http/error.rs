//! Errors as problems (RFC 9457), each with the next move; and the extractors that speak so too.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use muster_shared::api::Problem;

use crate::blobs::BlobError;
use crate::catalog::CatalogError;
use crate::db::DbError;
use crate::gateway::GatewayError;
use crate::releases::CannotRelease;
use crate::trust::ca::CaError;
use crate::trust::enrol::EnrolError;
use crate::trust::floors::CannotRaise;
use crate::trust::members::MemberError;
use crate::trust::roles::TrustError;

/// An error on its way to a client.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    detail: String,
    hint: Option<&'static str>,
}

impl ApiError {
    /// An error with this status and text.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), hint: None }
    }

    /// Adds the next move.
    pub fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// Nothing with this name.
    pub fn not_found(what: &str, name: &impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no {what} {name}"))
    }

    /// Our fault: the cause is for the log, not for the client.
    fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the control plane failed; its log says why")
            .hint("look into the control plane's log")
    }

    fn disk_full() -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "the control plane's disk is full; nothing was lost")
            .hint("free space on the control plane's disk and try again")
    }

    /// The status.
    #[cfg(test)]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = Problem {
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            hint: self.hint.map(str::to_owned),
        };
        let mut response = (self.status, Json(problem)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::TOO_MANY_REQUESTS || self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        if error.is_disk_full() { Self::disk_full() } else { Self::internal(&error) }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match &error {
            error if error.is_disk_full() => Self::disk_full(),
            BlobError::Other { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
                .hint("pack the bundle again, then `muster push` it"),
            _ => Self::internal(&error),
        }
    }
}

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        let with = |status| Self::new(status, chain(&error));
        match error {
            CatalogError::NoRoot => with(StatusCode::CONFLICT).hint("run `muster keys init` first"),
            CatalogError::Manifest(_) => with(StatusCode::UNPROCESSABLE_ENTITY)
                .hint("sign it with a publisher's key that the root names: `muster trust show`"),
            CatalogError::TooLong(_) => with(StatusCode::PAYLOAD_TOO_LARGE),
            CatalogError::OtherBundle { .. } => {
                with(StatusCode::CONFLICT).hint("a version never changes: pack it again with the next `--version`")
            }
            CatalogError::NotNamed(_) => with(StatusCode::NOT_FOUND).hint("push the bundle's manifest first"),
            CatalogError::OtherIndex { .. } => {
                with(StatusCode::UNPROCESSABLE_ENTITY).hint("pack the bundle again, then `muster push` it")
            }
            CatalogError::Busy => with(StatusCode::SERVICE_UNAVAILABLE).hint("try again in a moment"),
            CatalogError::BrokenOff => with(StatusCode::BAD_REQUEST).hint("`muster push` goes on where it stopped"),
            CatalogError::Blob(error) => error.into(),
            CatalogError::Db(error) => error.into(),
        }
    }
}

impl From<TrustError> for ApiError {
    fn from(error: TrustError) -> Self {
        let with = |status| Self::new(status, chain(&error));
        match error {
            TrustError::Root(_) | TrustError::NotTheFirst(_) => with(StatusCode::UNPROCESSABLE_ENTITY)
                .hint("compare with `muster trust show`; the next root is signed by the keys of the one before"),
            TrustError::NotTheNext { .. } => with(StatusCode::CONFLICT).hint("see the newest with `muster trust show`"),
            TrustError::OtherDirector(_) => with(StatusCode::UNPROCESSABLE_ENTITY)
                .hint("sign a root that names the key of `GET /api/v1/trust/director`: `muster keys init` does"),
            TrustError::DirectorIsOffline { .. } => {
                with(StatusCode::UNPROCESSABLE_ENTITY).hint("make a key of its own for each role: `muster keys new`")
            }
            TrustError::OfflineKey(_) => with(StatusCode::CONFLICT),
            TrustError::TooMany => with(StatusCode::INSUFFICIENT_STORAGE),
            TrustError::Ca(error) => error.into(),
            TrustError::Db(error) => error.into(),
        }
    }
}

impl From<CaError> for ApiError {
    fn from(error: CaError) -> Self {
        Self::internal(&error)
    }
}

impl From<CannotRaise> for ApiError {
    fn from(error: CannotRaise) -> Self {
        let with = |status| Self::new(status, chain(&error));
        match error {
            CannotRaise::NoRoot => with(StatusCode::CONFLICT).hint("run `muster keys init` first"),
            CannotRaise::Floor(_) => with(StatusCode::UNPROCESSABLE_ENTITY)
                .hint("sign it with the key of a publisher who may publish this model: `muster trust show`"),
            CannotRaise::Lower { .. } => with(StatusCode::CONFLICT).hint(
                "if it was set by mistake or by a thief, replace its publisher's key: `muster keys rotate publisher`",
            ),
            CannotRaise::TooMany => with(StatusCode::INSUFFICIENT_STORAGE),
            CannotRaise::Db(error) => error.into(),
        }
    }
}

impl From<CannotRelease> for ApiError {
    fn from(error: CannotRelease) -> Self {
        let with = |status| Self::new(status, chain(&error));
        match error {
            CannotRelease::NoRoot => with(StatusCode::CONFLICT).hint("run `muster keys init` first"),
            CannotRelease::Release(_) => with(StatusCode::UNPROCESSABLE_ENTITY)
                .hint("sign it with the release keys that `muster trust show` lists: `muster release sign`"),
            CannotRelease::Other(_) => {
                with(StatusCode::CONFLICT).hint("a version never changes: make a release with the next one")
            }
            CannotRelease::Unknown(_) | CannotRelease::NotNamed(..) => {
                with(StatusCode::NOT_FOUND).hint("see `muster release list`")
            }
            CannotRelease::NotHere(..) => with(StatusCode::NOT_FOUND).hint("`muster release push` goes on with it"),
            CannotRelease::TooMany => with(StatusCode::INSUFFICIENT_STORAGE),
            CannotRelease::Busy => with(StatusCode::SERVICE_UNAVAILABLE).hint("try again in a moment"),
            CannotRelease::BrokenOff => {
                with(StatusCode::BAD_REQUEST).hint("`muster release push` goes on where it stopped")
            }
            CannotRelease::Blob(BlobError::Other { .. }) => with(StatusCode::UNPROCESSABLE_ENTITY)
                .hint("the file is not the one that was signed: make the release again"),
            CannotRelease::Blob(error) => error.into(),
            CannotRelease::Db(error) => error.into(),
        }
    }
}

impl From<GatewayError> for ApiError {
    fn from(error: GatewayError) -> Self {
        let with = |status| Self::new(status, chain(&error));
        match error {
            GatewayError::UnknownDeployment(_) | GatewayError::UnknownVersion(..) => with(StatusCode::NOT_FOUND),
            GatewayError::NobodyServes { .. } | GatewayError::Gone(_) | GatewayError::NotThere { .. } => {
                with(StatusCode::SERVICE_UNAVAILABLE).hint("see `muster get devices`, and try again")
            }
            GatewayError::Busy => with(StatusCode::TOO_MANY_REQUESTS).hint("try again in a moment"),
            GatewayError::Late(..) => with(StatusCode::GATEWAY_TIMEOUT).hint("try again in a moment"),
            GatewayError::Random => Self::internal(&error),
            GatewayError::Db(error) => error.into(),
        }
    }
}

impl From<EnrolError> for ApiError {
    fn from(error: EnrolError) -> Self {
        let with = |status| Self::new(status, chain(&error));
        match error {
            EnrolError::NoRoot => with(StatusCode::CONFLICT).hint("the operator has to run `muster keys init` first"),
            EnrolError::NoClaim | EnrolError::Expired | EnrolError::Spent(_) | EnrolError::Void => {
                with(StatusCode::FORBIDDEN).hint("ask for a new claim: `muster claim new`")
            }
            EnrolError::NotListed => with(StatusCode::FORBIDDEN)
                .hint("enrol it with a claim from `muster claim new`, or add its key with `muster claim factory add`"),
            EnrolError::Label(_) => with(StatusCode::FORBIDDEN)
                .hint("leave the label out, or ask for a claim made with `muster claim new --may-label KEY`"),
            EnrolError::OtherName(_) => with(StatusCode::CONFLICT).hint("enrol it without a name"),
            EnrolError::Revoked => with(StatusCode::FORBIDDEN)
                .hint("a revoked key never comes back: start with an empty data folder for a new key"),
            EnrolError::Waiting(_) => with(StatusCode::FORBIDDEN).hint("`muster approve DEVICE` lets it in"),
            EnrolError::FactoryFull => with(StatusCode::INSUFFICIENT_STORAGE),
            EnrolError::Csr(_) | EnrolError::Key(_) => with(StatusCode::UNPROCESSABLE_ENTITY),
            EnrolError::NameTaken(_) => with(StatusCode::CONFLICT).hint(
                "enrol it under another name, or free this one: `muster revoke DEVICE`, `muster delete device DEVICE`",
            ),
            EnrolError::AlreadyEnrolled(_) => with(StatusCode::CONFLICT)
                .hint("enrol it without a name, or start with an empty data folder for a new key"),
            EnrolError::NameReserved(_) => with(StatusCode::CONFLICT).hint(
                "use another name; or end that claim: `muster claim list`, `muster claim revoke ID`, or \
                 `muster claim new --replace`",
            ),
            EnrolError::TooManyLabels | EnrolError::BadClaim | EnrolError::NameTwice(_) | EnrolError::HowMany => {
                with(StatusCode::UNPROCESSABLE_ENTITY)
            }
            EnrolError::NotTheDevice => {
                with(StatusCode::FORBIDDEN).hint("enrol the device again with a new claim: `muster claim new`")
            }
            EnrolError::Ca(error) => Self::internal(&error),
            EnrolError::Db(error) => error.into(),
        }
    }
}

impl From<MemberError> for ApiError {
    fn from(error: MemberError) -> Self {
        let with = |status| Self::new(status, chain(&error));
        match error {
            MemberError::Unknown(_) => with(StatusCode::NOT_FOUND).hint("see `muster get devices`"),
            MemberError::NothingToApprove(_) => with(StatusCode::CONFLICT).hint("see `muster get devices`"),
            MemberError::CannotBeTold(_) => with(StatusCode::CONFLICT)
                .hint("`muster revoke` cuts it off without that; `muster approve` lets it in first"),
            MemberError::IsRevoked(_) => with(StatusCode::CONFLICT).hint(
                "free its name with `muster delete device`, and enrol the machine anew with an empty data folder",
            ),
            MemberError::NotRevoked(_) => with(StatusCode::CONFLICT).hint("`muster revoke DEVICE` first"),
            MemberError::List(error) if crate::files::is_disk_full(&error) => Self::disk_full(),
            MemberError::List(_) => with(StatusCode::INTERNAL_SERVER_ERROR)
                .hint("make the place that `--revocations` names writable and revoke it again: it is cut off until the next start only"),
            MemberError::Db(error) => error.into(),
        }
    }
}

/// The errors of both doors, as TensorFlow Serving and Triton spell them: `{"error": "…"}`.
pub fn door_error(status: StatusCode, text: &str) -> Response {
    let mut response = (status, Json(serde_json::json!({ "error": text }))).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The gateway's errors at both doors.
pub fn door_error_of(error: &GatewayError) -> Response {
    let status = match error {
        GatewayError::UnknownDeployment(_) | GatewayError::UnknownVersion(..) => StatusCode::NOT_FOUND,
        GatewayError::NobodyServes { .. } | GatewayError::Gone(_) | GatewayError::NotThere { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        GatewayError::Busy => StatusCode::TOO_MANY_REQUESTS,
        GatewayError::Late(..) => StatusCode::GATEWAY_TIMEOUT,
        GatewayError::Random | GatewayError::Db(_) => {
            tracing::error!(error = error as &dyn std::error::Error, "prediction failed");
            return door_error(StatusCode::INTERNAL_SERVER_ERROR, "the control plane failed; its log says why");
        }
    };
    door_error(status, &error.to_string())
}

/// JSON in a request's body; what is wrong with it is a problem too.
pub struct ApiJson<T>(pub T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequest<S> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, ApiError> {
        let Json(value) = Json::<T>::from_request(request, state)
            .await
            .map_err(|error: JsonRejection| ApiError::new(error.status(), error.body_text()))?;
        Ok(Self(value))
    }
}

/// A name in a request's path.
pub struct ApiPath<T>(pub T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned + Send> FromRequestParts<S> for ApiPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, ApiError> {
        let axum::extract::Path(value) = axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(|error: PathRejection| ApiError::new(error.status(), error.body_text()))?;
        Ok(Self(value))
    }
}

/// Parameters in a request's query.
pub struct ApiQuery<T>(pub T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, state: &S) -> Result<Self, ApiError> {
        let axum::extract::Query(value) = axum::extract::Query::<T>::from_request_parts(parts, state)
            .await
            .map_err(|error: QueryRejection| ApiError::new(error.status(), error.body_text()))?;
        Ok(Self(value))
    }
}
