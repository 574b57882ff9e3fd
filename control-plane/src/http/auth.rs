//! Who asks: a bearer token, looked up by its digest, or a browser's session; the first run's code,
//! which becomes the first token; and who may ask at all on a listener without TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use muster_shared::Digest;
use muster_shared::api::{Login, Token, WhoAmI};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiJson};
use super::session;
use crate::db::{self, DbError};
use crate::now_ms;
use crate::plane::Plane;

/// The user that the one-time code and the first password are for.
pub(super) const ADMIN: &str = "admin";
/// A token is far shorter.
const TOKEN_BYTES_MAX: usize = 256;

/// Who asks.
#[derive(Debug, Clone)]
pub struct User(pub String);

/// Calls that need no token.
pub fn open_routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(login))
}

/// Calls that need one.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(whoami))
}

/// The first run's one-time code against a token.
#[utoipa::path(post, path = "/login", tag = "people", request_body = Login, security(()),
    responses((status = 200, body = Token), (status = 401, body = muster_shared::api::Problem)))]
async fn login(State(plane): State<Arc<Plane>>, ApiJson(asked): ApiJson<Login>) -> Result<Json<Token>, ApiError> {
    let code = code_digest(&asked.code);
    let wrong = || {
        ApiError::new(StatusCode::UNAUTHORIZED, "this is not the one-time admin code")
            .hint("the control plane prints it at its start; with --new-admin-code it prints a new one")
    };
    // Guessers, who are hopeless against 100 bits, must not even keep the one writer busy.
    if !db::tokens::is_admin_code(plane.db.read(), code).await? {
        return Err(wrong());
    }
    let token = new_secret("muster_")?;
    let transaction = plane.db.begin().await?;
    if !db::tokens::spend_admin_code(&transaction, code).await? {
        return Err(wrong());
    }
    db::tokens::insert(&transaction, Digest::of(&token), ADMIN, now_ms()).await?;
    db::commit(transaction).await?;
    tracing::info!(user = ADMIN, "the one-time admin code was used");
    Ok(Json(Token { token, user: ADMIN.to_owned() }))
}

/// Whose token it is.
#[utoipa::path(get, path = "/whoami", tag = "people", responses((status = 200, body = WhoAmI)))]
async fn whoami(Extension(User(user)): Extension<User>) -> Json<WhoAmI> {
    Json(WhoAmI { user })
}

/// Draws the one-time code, unless someone has logged in already. Each start draws a new one: only
/// its digest is stored.
pub async fn draw_admin_code(plane: &Plane, again: bool) -> Result<Option<String>, anyhow::Error> {
    if !again && db::tokens::any(plane.db.read()).await? {
        return Ok(None);
    }
    let code = new_code()?;
    db::tokens::set_admin_code(plane.db.write(), code_digest(&code), now_ms()).await?;
    Ok(Some(code))
}

/// Twenty letters and digits that are not mistaken for each other: 100 bits, in groups of five.
pub(super) fn new_code() -> Result<String, getrandom::Error> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes)?;
    let letters: Vec<u8> = bytes.iter().map(|byte| LETTERS[usize::from(byte % 32)]).collect();
    let groups: Vec<_> = letters.chunks(5).map(String::from_utf8_lossy).collect();
    Ok(groups.join("-"))
}

/// People copy codes with spaces, in capitals.
fn code_digest(code: &str) -> Digest {
    let code: String = code.trim().chars().take(TOKEN_BYTES_MAX).flat_map(char::to_lowercase).collect();
    Digest::of(code)
}

pub(super) fn new_secret(prefix: &str) -> Result<String, ApiError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random bytes"))?;
    Ok(format!("{prefix}{}", hex::encode(bytes)))
}

/// Lets through who shows a token or a session that is known.
pub async fn require_token(State(plane): State<Arc<Plane>>, mut request: Request, next: Next) -> Response {
    let by_token = request.headers().contains_key(header::AUTHORIZATION);
    let user = match by_token {
        true => user(&plane, request.headers()).await,
        false => session::user(&plane, request.headers()).await,
    };
    match user {
        Ok(Some(user)) => {
            // Nobody else's page can make a browser send a token; a cookie it sends by itself.
            let refused = session::refuse_foreign(request.method(), request.headers(), host(&request));
            if let (false, Err(error)) = (by_token, refused) {
                return error.into_response();
            }
            request.extensions_mut().insert(User(user));
            next.run(request).await
        }
        Ok(None) => {
            let error =
                ApiError::new(StatusCode::UNAUTHORIZED, "this call needs a token or a session that is known here")
                    .hint("run `muster login` and send `Authorization: Bearer …`, or log in to the dashboard");
            let mut response = error.into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// The database compares digests of tokens: how long that takes tells nothing of a token.
async fn user(plane: &Plane, headers: &HeaderMap) -> Result<Option<String>, DbError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match token {
        Some((_, token)) if token.len() <= TOKEN_BYTES_MAX => {
            db::tokens::user(plane.db.read(), Digest::of(token.trim())).await
        }
        _ => Ok(None),
    }
}

/// On a loopback listener without TLS: refuses what a web page of someone else could have sent, by
/// its own address (Origin) or by a name that was pointed at this machine (Host).
pub async fn only_own_host(State(own): State<SocketAddr>, request: Request, next: Next) -> Response {
    let (headers, host) = (request.headers(), host(&request));
    let origin = headers.get(header::ORIGIN).map(|value| value.to_str().unwrap_or("?"));
    let own_origin = |origin: &str| origin.strip_prefix("http://").is_some_and(|host| is_own(host, own));
    if host.is_some_and(|host| is_own(host, own)) && origin.is_none_or(own_origin) {
        return next.run(request).await;
    }
    ApiError::new(StatusCode::MISDIRECTED_REQUEST, "this listener answers only to its own loopback address")
        .hint("use the address that the control plane printed")
        .into_response()
}

/// The `host:port` that the client asked.
fn host(request: &Request) -> Option<&str> {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    host.or_else(|| request.uri().authority().map(|authority| authority.as_str()))
}

/// Whether `host:port` is a loopback name and the listener's port.
fn is_own(host: &str, own: SocketAddr) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, Some(80)),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let loopback = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    loopback && port == Some(own.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_with_the_own_port_are_own() {
        let own = "127.0.0.1:8080".parse().expect("an address");
        for (host, expected) in [
            ("localhost:8080", true),
            ("LOCALHOST:8080", true),
            ("127.0.0.1:8080", true),
            ("127.0.0.2:8080", true),
            ("[::1]:8080", true),
            ("localhost", false),
            ("localhost:80", false),
            ("[::1]", false),
            ("example.org:8080", false),
            ("localhost.example.org:8080", false),
            ("10.0.0.1:8080", false),
            ("", false),
            (":8080", false),
            ("localhost:8080:8080", false),
        ] {
            assert_eq!(is_own(host, own), expected, "{host}");
        }
        assert!(is_own("localhost", "127.0.0.1:80".parse().expect("an address")));
    }

    #[test]
    fn codes_are_long_random_and_forgiving() {
        let (a, b) = (new_code().expect("random"), new_code().expect("random"));
        assert_ne!(a, b);
        assert_eq!((a.len(), a.split('-').count()), (23, 4));
        assert_eq!(code_digest(&a), code_digest(&format!(" {}\n", a.to_uppercase())));
    }
}
