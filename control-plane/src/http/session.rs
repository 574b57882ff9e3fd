//! Sessions of browsers beside the API's tokens: a name and a password against a cookie that scripts
//! of the page cannot read and other sites cannot send.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::{Extension, Json};
use muster_shared::Digest;
use muster_shared::api::Problem;
use muster_shared::api::dashboard::{Credentials, NewPassword, SessionView};
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Listener;
use super::auth::{self, ADMIN, User};
use super::error::{ApiError, ApiJson};
use crate::db;
use crate::now_ms;
use crate::plane::Plane;

/// The cookie's name.
pub(super) const COOKIE: &str = "muster_session";
/// How long a session lives.
const SESSION_TIME: Duration = Duration::from_secs(7 * 86_400);
/// Passwords are at least so long.
const PASSWORD_CHARS_MIN: usize = 12;
/// And at most.
const PASSWORD_BYTES_MAX: usize = 256;
/// A cookie of ours is far shorter.
const COOKIE_BYTES_MAX: usize = 256;
/// Wrong passwords from one address within [`TRIES_TIME`].
const TRIES_MAX: u32 = 10;
/// The time in which they are counted.
const TRIES_TIME: Duration = Duration::from_secs(60);
/// Addresses that are remembered; while there are more, nobody new may try.
const ADDRESSES_MAX: usize = 4096;
/// Passwords that are hashed at once: each takes 19 MiB and some 30 ms of a core, and the others wait.
const HASHES_MAX: usize = 2;

/// Calls that need no session.
pub fn open_routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(log_in))
}

/// Calls that need one, or a token.
pub fn routes() -> OpenApiRouter<Arc<Plane>> {
    OpenApiRouter::new().routes(routes!(show, log_out)).routes(routes!(change_password))
}

/// Who tried to log in lately, and how many may at once.
#[derive(Debug)]
pub struct Tries {
    hashes: Semaphore,
    wrong: Mutex<BTreeMap<IpAddr, (Instant, u32)>>,
}

impl Default for Tries {
    fn default() -> Self {
        Self { hashes: Semaphore::new(HASHES_MAX), wrong: Mutex::default() }
    }
}

impl Tries {
    /// Counts a try; false: there were too many. It is counted before it is made, so that many at once
    /// are no way around.
    fn take(&self, address: IpAddr, now: Instant) -> bool {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.retain(|_, (since, _)| now.duration_since(*since) < TRIES_TIME);
        if wrong.len() >= ADDRESSES_MAX && !wrong.contains_key(&address) {
            return false;
        }
        let (_, count) = wrong.entry(address).or_insert((now, 0));
        *count += 1;
        *count <= TRIES_MAX
    }

    /// The try was right: what was wrong before it was a slip of the fingers.
    fn forget(&self, address: IpAddr) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }
}

/// A user's name and password against a session, which comes as a cookie.
#[utoipa::path(post, path = "/session", tag = "people", request_body = Credentials, security(()),
    responses((status = 200, body = SessionView), (status = 401, body = Problem), (status = 429, body = Problem)))]
async fn log_in(
    State(plane): State<Arc<Plane>>,
    Extension(listener): Extension<Listener>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    ApiJson(asked): ApiJson<Credentials>,
) -> Result<(HeaderMap, Json<SessionView>), ApiError> {
    let address = network(peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |Extension(ConnectInfo(peer))| peer.ip()));
    if !is_right(&plane, &asked.user, &asked.password, address).await? {
        tracing::warn!(%address, "a login failed");
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "the user name or the password is wrong")
            .hint("the control plane prints the password at its first start; --new-admin-password draws a new one"));
    }
    let session = auth::new_secret("")?;
    let now_ms = now_ms();
    let ends_ms = now_ms.saturating_add(SESSION_TIME.as_millis().try_into().unwrap_or(u64::MAX));
    let transaction = plane.db.begin().await?;
    db::people::insert_session(&transaction, Digest::of(&session), &asked.user, (now_ms, ends_ms)).await?;
    db::commit(transaction).await?;
    tracing::info!(user = asked.user, "logged in");
    Ok((set_cookie(&session, SESSION_TIME, listener), Json(SessionView { user: asked.user })))
}

/// Whose session it is.
#[utoipa::path(get, path = "/session", tag = "people",
    responses((status = 200, body = SessionView), (status = 401, body = Problem)))]
async fn show(Extension(User(user)): Extension<User>) -> Json<SessionView> {
    Json(SessionView { user })
}

/// Ends the session.
#[utoipa::path(delete, path = "/session", tag = "people",
    responses((status = 204), (status = 401, body = Problem)))]
async fn log_out(
    State(plane): State<Arc<Plane>>,
    Extension(listener): Extension<Listener>,
    headers: HeaderMap,
) -> Result<(StatusCode, HeaderMap), ApiError> {
    if let Some(session) = cookie(&headers) {
        db::people::end_session(plane.db.write(), session).await?;
    }
    Ok((StatusCode::NO_CONTENT, set_cookie("", Duration::ZERO, listener)))
}

/// Changes one's own password; every other session of the user ends.
#[utoipa::path(put, path = "/password", tag = "people", request_body = NewPassword,
    responses((status = 204), (status = 401, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem)))]
async fn change_password(
    State(plane): State<Arc<Plane>>,
    Extension(User(user)): Extension<User>,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    ApiJson(asked): ApiJson<NewPassword>,
) -> Result<StatusCode, ApiError> {
    let address = network(peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |Extension(ConnectInfo(peer))| peer.ip()));
    if !is_right(&plane, &user, &asked.current, address).await? {
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "the present password is wrong").hint("type it again"));
    }
    if asked.next.chars().count() < PASSWORD_CHARS_MIN || asked.next.len() > PASSWORD_BYTES_MAX {
        let text =
            format!("a password has at least {PASSWORD_CHARS_MIN} characters, and at most {PASSWORD_BYTES_MAX} bytes");
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text).hint("choose another one"));
    }
    let phc = hash(asked.next).await.map_err(|error| hashing_failed(&error))?;
    let transaction = plane.db.begin().await?;
    db::people::set_password(&transaction, &user, &phc, now_ms()).await?;
    db::people::end_other_sessions(&transaction, &user, cookie(&headers)).await?;
    db::commit(transaction).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether this is the user's password. An unknown user takes as long as a known one.
async fn is_right(plane: &Plane, user: &str, password: &str, address: IpAddr) -> Result<bool, ApiError> {
    if !plane.tries.take(address, Instant::now()) {
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "there were too many wrong passwords")
            .hint("wait a minute and try again"));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Ok(false);
    }
    let held = db::people::password(plane.db.read(), user).await?;
    let is_known = held.is_some();
    let (phc, password) = (held.unwrap_or_else(|| NOBODY.to_owned()), password.to_owned());
    // The plane never closes it.
    let Ok(_permit) = plane.tries.hashes.acquire().await else { return Ok(false) };
    let fits = tokio::task::spawn_blocking(move || {
        let parsed = PasswordHash::new(&phc).ok();
        parsed.is_some_and(|phc| Argon2::default().verify_password(password.as_bytes(), &phc).is_ok())
    });
    let is_right = fits.await.map_err(|error| hashing_failed(&error.into()))? && is_known;
    if is_right {
        plane.tries.forget(address);
    }
    Ok(is_right)
}

/// The hash that is worked on for a user who is not there: of no password that anybody knows, with
/// the parameters of [`Argon2::default`].
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5aXNoZXJl$9vD2eUqJtT0m9pXn2cPjv1vYw1mQyq2p0o5x3m0bW8k";

async fn hash(password: String) -> Result<String, anyhow::Error> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)?;
    let hashed = move || {
        let salt = SaltString::encode_b64(&salt).map_err(|error| anyhow!("no salt: {error}"))?;
        let phc = Argon2::default().hash_password(password.as_bytes(), &salt);
        phc.map(|phc| phc.to_string()).map_err(|error| anyhow!("cannot hash a password: {error}"))
    };
    tokio::task::spawn_blocking(hashed).await?
}

fn hashing_failed(error: &anyhow::Error) -> ApiError {
    tracing::error!(%error, "a password could not be hashed");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the control plane failed; its log says why")
}

/// Draws the admin's password at the first start, or `again`. Only its hash is stored.
pub async fn draw_admin_password(plane: &Plane, again: bool) -> Result<Option<String>, anyhow::Error> {
    if !again && db::people::password(plane.db.read(), ADMIN).await?.is_some() {
        return Ok(None);
    }
    let password = auth::new_code()?;
    let phc = hash(password.clone()).await?;
    let transaction = plane.db.begin().await?;
    db::people::set_password(&transaction, ADMIN, &phc, now_ms()).await?;
    db::people::end_other_sessions(&transaction, ADMIN, None).await?;
    db::commit(transaction).await?;
    Ok(Some(password))
}

/// Whose cookie these headers carry.
pub async fn user(plane: &Plane, headers: &HeaderMap) -> Result<Option<String>, db::DbError> {
    match cookie(headers) {
        Some(session) => db::people::session(plane.db.read(), session, now_ms()).await,
        None => Ok(None),
    }
}

/// Refuses a change that another site's page could have made the browser send: only scripts of the
/// page itself can send this content type without being asked first, and nobody is told yes.
pub fn refuse_foreign(method: &Method, headers: &HeaderMap, host: Option<&str>) -> Result<(), ApiError> {
    if method.is_safe() {
        return Ok(());
    }
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let kind = text(header::CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a change in a session is sent as JSON")
            .hint("send `Content-Type: application/json`, also without a body"));
    }
    let own = |origin: &str| origin.split_once("://").is_some_and(|(_, authority)| Some(authority) == host);
    if headers.contains_key(header::ORIGIN) && !text(header::ORIGIN).is_some_and(own) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "this change comes from the page of another site")
            .hint("use the dashboard at the address that the control plane printed"));
    }
    Ok(())
}

/// The digest of the session's secret.
fn cookie(headers: &HeaderMap) -> Option<Digest> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, secret) = pairs.find(|(name, secret)| *name == COOKIE && !secret.is_empty())?;
    (secret.len() <= COOKIE_BYTES_MAX).then(|| Digest::of(secret))
}

fn set_cookie(secret: &str, lives: Duration, listener: Listener) -> HeaderMap {
    let secure = if listener == Listener::Tls { "; Secure" } else { "" };
    let lives = lives.as_secs();
    let cookie = format!("{COOKIE}={secret}; HttpOnly; SameSite=Strict; Path=/; Max-Age={lives}{secure}");
    // Hex, and words of ours: always a header's value.
    HeaderValue::from_str(&cookie).map(|value| (header::SET_COOKIE, value)).into_iter().collect()
}

/// One household has a whole /64 of IPv6.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_counted_by_address_and_time() {
        let (tries, now) = (Tries::default(), Instant::now());
        let address = |text: &str| network(text.parse().expect("an address"));
        for _ in 0..TRIES_MAX {
            assert!(tries.take(address("2001:db8::1"), now));
        }
        assert!(!tries.take(address("2001:db8::2"), now), "the same network");
        assert!(tries.take(address("192.0.2.1"), now));
        assert!(tries.take(address("2001:db8::1"), now + TRIES_TIME));
        tries.take(address("192.0.2.1"), now);
        tries.forget(address("192.0.2.1"));
        assert!(!tries.wrong.lock().expect("held by nobody").contains_key(&address("192.0.2.1")));
        for number in 0..=ADDRESSES_MAX as u32 {
            tries.take(IpAddr::V4((0x0a00_0000 + number).into()), now + TRIES_TIME);
        }
        assert!(!tries.take(address("192.0.2.9"), now + TRIES_TIME), "no place to count it in");
    }

    #[test]
    fn nobody_takes_as_long_as_somebody() {
        let nobody = PasswordHash::new(NOBODY).expect("a hash");
        let params = argon2::Params::try_from(&nobody).expect("parameters");
        assert_eq!(
            (params.m_cost(), params.t_cost(), params.p_cost()),
            (argon2::Params::DEFAULT_M_COST, argon2::Params::DEFAULT_T_COST, argon2::Params::DEFAULT_P_COST)
        );
        assert!(nobody.hash.is_some() && nobody.salt.is_some());
    }

    #[test]
    fn cookies_are_read_as_browsers_send_them() {
        for (sent, secret) in [
            ("muster_session=abc", Some("abc")),
            ("a=b; muster_session=abc; c=d", Some("abc")),
            ("muster_session=", None),
            ("other_muster_session=abc", None),
            ("muster_session", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(sent).expect("a header"))]);
            assert_eq!(cookie(&headers), secret.map(Digest::of), "{sent}");
        }
        let long = format!("muster_session={}", "a".repeat(COOKIE_BYTES_MAX + 1));
        let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&long).expect("a header"))]);
        assert_eq!(cookie(&headers), None);
    }
}
