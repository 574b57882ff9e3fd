//! The HTTP API's types, as JSON: the control plane serves them, the CLI and the agent's enrolment
//! use them. Field names are camelCase; times are milliseconds since 1970, UTC.
//!
//! | method and path (below `/api/v1`) | asks | answers |
//! |---|---|---|
//! | `GET /info` (open) | | [`Info`] |
//! | `POST /login` (open) | [`Login`] | [`Token`] |
//! | `POST /session` (open) | [`dashboard::Credentials`] | [`dashboard::SessionView`] and a cookie |
//! | `GET /session` | | [`dashboard::SessionView`] |
//! | `DELETE /session` | | nothing, and the cookie is gone |
//! | `PUT /password` | [`dashboard::NewPassword`] | nothing |
//! | `GET /feed` | | server-sent events: [`dashboard::FeedSnapshot`], then [`dashboard::FeedChange`]s |
//! | `GET /whoami` | | [`WhoAmI`] |
//! | `GET /trust/director` | | [`DirectorKey`] |
//! | `POST /trust/director/next` | | [`DirectorKey`]: the next key is made, and waits for a root that names it |
//! | `GET /trust/roots` (open) | | list of [`crate::signing::Envelope`], by version |
//! | `POST /trust/roots` | a root's [`crate::signing::Envelope`] | [`TrustView`] |
//! | `GET /trust/floors` (open) | | list of [`crate::signing::Envelope`], by model |
//! | `POST /trust/floors` | a [`crate::floor::Floor`]'s [`crate::signing::Envelope`] | [`FloorView`] |
//! | `POST /claims`, `GET /claims` | [`NewClaim`] | [`Claim`], list of [`ClaimView`] |
//! | `POST /claims/named` | [`NewClaims`] | list of [`Claim`], in their order |
//! | `POST /claims/{id}/revoke` | | nothing: it counts no more |
//! | `POST /factory`, `GET /factory` | list of [`members::FactoryKey`] | list of [`members::FactoryView`] |
//! | `DELETE /factory/{fingerprint}` | | nothing |
//! | `POST /enrol` (open) | [`Enrol`] | [`Enrolled`], or with status 202 [`EnrolWaiting`] |
//! | `POST /renew` (open) | [`Renew`] | [`Enrolled`] |
//! | `POST /bundles`, `GET /bundles` | a manifest's [`crate::signing::Envelope`] | [`catalog::PushStatus`], list of [`catalog::BundleView`] |
//! | `PUT /blobs/{sha256}` | the bytes | nothing |
//! | `GET /releases` (open) | | list of [`releases::ReleaseView`], newest first |
//! | `POST /releases` | a [`crate::release::Release`]'s [`crate::signing::Envelope`] | [`releases::ReleasePushed`] |
//! | `GET /releases/{version}/{name}` (open) | | the file, or the envelope as `release.json` |
//! | `PUT /releases/{version}/{name}` | the bytes | nothing |
//! | `PUT`, `GET`, `DELETE /deployments/{name}`, `GET /deployments` | [`deployment::Deployment`] | [`deployment::Deployment`] |
//! | `PUT /deployments/{name}/scale` | [`deployment::Scale`] | [`deployment::Deployment`] |
//! | `GET /deployments/{name}/rollout` | | [`deployment::RolloutView`] |
//! | `GET /deployments/{name}/rollouts` | | list of [`deployment::RolloutView`], newest first |
//! | `POST /deployments/{name}/rollout/pause` | | [`deployment::RolloutView`] |
//! | `POST /deployments/{name}/rollout/resume` | | [`deployment::RolloutView`] |
//! | `POST /deployments/{name}/rollout/undo` | | [`deployment::RolloutView`] |
//! | `GET /deployments/{name}/explain` | | [`plan::DeploymentExplained`] |
//! | `GET /devices/{id}`, `GET /devices` | | [`fleet::DeviceView`] |
//! | `POST /devices/{id}/cordon` | | [`fleet::DeviceView`] |
//! | `POST /devices/{id}/uncordon` | | [`fleet::DeviceView`] |
//! | `POST /devices/{id}/drain` | | [`fleet::DeviceView`] |
//! | `POST /devices/{id}/approve` | | [`fleet::DeviceView`]: it waits or is held no more |
//! | `POST /devices/{id}/decommission` | [`members::Revoke`] | [`fleet::DeviceView`]: it is told to empty itself |
//! | `POST /devices/{id}/revoke` | [`members::Revoke`] | [`fleet::DeviceView`] |
//! | `DELETE /devices/{id}` | | nothing: a revoked device is forgotten, and its name is free |
//! | `GET /devices/{id}/history?minutes=N` | | [`dashboard::History`] |
//! | `GET /devices/{id}/diagnosis` | | what the device says of itself, JSON as it is |
//! | `GET /devices/{id}/explain` | | [`plan::DeviceExplained`] |
//! | `POST /plan` | [`plan::PlanRequest`] | [`plan::PlanView`]: what would change, without changing it |
//! | `POST /plan/approve` | | [`plan::PlanView`]: silent devices are taken for lost, moves go on |
//! | `GET /events?limit=N` | | list of [`fleet::EventView`], newest first |
//!
//! "Open" needs no token; every other call carries `Authorization: Bearer …` or, from a browser, the
//! session's cookie. With the cookie, a call that changes something needs the content type
//! `application/json`, also where it has no body. An error is a [`Problem`] (RFC 9457) with the media
//! type `application/problem+json`.

pub mod catalog;
pub mod dashboard;
pub mod deployment;
pub mod fleet;
pub mod members;
pub mod plan;
pub mod releases;

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::id::{DeviceId, FleetId, LabelText, Labels, ModelName, UnixMs, Version};
use crate::signing::Envelope;
use crate::signing::key::PublicKey;

macro_rules! api_types {
    ($($(#[$doc:meta])* pub struct $name:ident { $($body:tt)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            #[serde(rename_all = "camelCase")]
            #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
            pub struct $name { $($body)* }
        )*
    };
}
pub(crate) use api_types;

api_types! {
    /// An error, RFC 9457, with Muster's `hint`: the next move.
    pub struct Problem {
        /// The HTTP status in words.
        pub title: String,
        /// The HTTP status.
        pub status: u16,
        /// What was attempted and why it failed.
        pub detail: String,
        /// What to do next.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub hint: Option<String>,
    }

    /// What anyone may know of a control plane.
    pub struct Info {
        /// Its version.
        pub version: String,
        /// The fleet, once a root is there.
        pub fleet: Option<FleetId>,
        /// The version of the newest root; none: `muster keys init` has yet to be run.
        pub root_version: Option<u64>,
        /// SHA-256 of the CA's certificate (DER).
        pub ca_fingerprint: Digest,
    }

    /// The first run's one-time code against a token.
    pub struct Login {
        /// As the control plane printed it.
        pub code: String,
    }

    /// An API token.
    pub struct Token {
        /// To be sent as `Authorization: Bearer …`; shown once.
        pub token: String,
        /// Whose it is.
        pub user: String,
    }

    /// Whose token it is.
    pub struct WhoAmI {
        /// The user.
        pub user: String,
    }

    /// The key that signs desired states here.
    pub struct DirectorKey {
        /// To be named by the root.
        pub key: PublicKey,
        /// The key that takes its place as soon as a root names only that one, if it was made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub next: Option<PublicKey>,
    }

    /// A version floor in force.
    pub struct FloorView {
        /// The model.
        pub model: ModelName,
        /// The lowest version that may run.
        pub version: Version,
        /// The highest version of the model here; none: there is no bundle of it.
        pub newest: Option<Version>,
    }

    /// The trust in force.
    pub struct TrustView {
        /// The fleet.
        pub fleet: FleetId,
        /// The newest root's version.
        pub version: u64,
        /// SHA-256 of its payload.
        pub digest: Digest,
        /// When it expires.
        pub expires_ms: UnixMs,
    }

    /// Asks for a claim.
    pub struct NewClaim {
        /// How many devices it may enrol.
        pub uses: u32,
        /// How long it lives, in seconds.
        pub ttl_seconds: u64,
        /// Labels that every device enrolled with it gets.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
        pub labels: Labels,
        /// Labels that a device may set itself as it enrols.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
        pub may_label: Vec<LabelText>,
        /// Whether a device may set any label.
        #[serde(default)]
        pub may_label_anything: bool,
        /// Whether an operator lets each device in by hand.
        #[serde(default)]
        pub needs_approval: bool,
    }

    /// Asks for claims of one device each, whose names are known beforehand: all of them, or none.
    pub struct NewClaims {
        /// The devices, at most [`crate::limits::CLAIMS_AT_A_TIME_MAX`].
        pub devices: Vec<ClaimedDevice>,
        /// How long the claims live, in seconds.
        pub ttl_seconds: u64,
        /// Whether an operator lets each device in by hand.
        #[serde(default)]
        pub needs_approval: bool,
        /// Whether open claims for the same names end; else the names are refused.
        #[serde(default)]
        pub replace: bool,
    }

    /// A device that is to come.
    pub struct ClaimedDevice {
        /// The name that it gets, which nobody else gets meanwhile.
        pub name: DeviceId,
        /// Labels that it gets.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
        pub labels: Labels,
    }

    /// A new claim; the CLI makes the token that a device needs of it.
    pub struct Claim {
        /// 8 bytes, hex.
        pub id: String,
        /// 16 bytes, hex; shown once.
        pub secret: String,
        /// When it ends.
        pub expires_ms: UnixMs,
    }

    /// A claim without its secret.
    pub struct ClaimView {
        /// 8 bytes, hex.
        pub id: String,
        /// How many devices it may enrol.
        pub uses: u32,
        /// How many it has.
        pub used: u32,
        /// The name that its device gets, if that was said beforehand.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<DeviceId>,
        /// When it ends.
        pub expires_ms: UnixMs,
        /// Labels that every device enrolled with it gets.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
        pub labels: Labels,
        /// Labels that a device may set itself as it enrols.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
        pub may_label: Vec<LabelText>,
        /// Whether a device may set any label.
        #[serde(default)]
        pub may_label_anything: bool,
        /// Whether an operator lets each device in by hand.
        #[serde(default)]
        pub needs_approval: bool,
        /// Whether it counts no more: it was revoked, or made before the database went back to an earlier state.
        #[serde(default)]
        pub void: bool,
    }

    /// A device asks for its first certificate.
    pub struct Enrol {
        /// The claim's id, hex; none: the key is on the factory list.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub claim: Option<String>,
        /// The claim's secret, hex.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub secret: Option<String>,
        /// A certificate request made with the device's key, PEM.
        pub csr: String,
        /// The name it would like; else one is made from its key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub name: Option<DeviceId>,
        /// What its owner calls it.
        #[serde(default)]
        #[cfg_attr(feature = "openapi", schema(value_type = std::collections::BTreeMap<String, String>))]
        pub labels: Labels,
    }

    /// A device was noted, and waits for an operator (status 202): it asks again later.
    pub struct EnrolWaiting {
        /// The name it will have.
        pub device: DeviceId,
        /// What it waits for.
        pub detail: String,
    }

    /// A device asks for its next certificate.
    pub struct Renew {
        /// A [`crate::message::Renewal`], signed by the enrolled key.
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        pub renewal: Envelope,
    }

    /// A device's certificate and what it needs to connect.
    pub struct Enrolled {
        /// The device's id.
        pub device: DeviceId,
        /// Its client certificate, PEM.
        pub certificate: String,
        /// The CA's certificate, PEM; its digest must be the pinned one.
        pub ca: String,
        /// Every root so far, by version.
        #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
        pub roots: Vec<Envelope>,
        /// The broker as `host:port`; an empty host is the host of this request.
        pub mqtt: String,
        /// The listener for devices, which carries MQTT over WebSocket, as `host:port`; an empty host is the
        /// host of this request. An older control plane has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub tunnel: Option<String>,
    }
}
