//! The doors over HTTP/1.1: connections, bodies, gzip, who may knock.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use muster_shared::checks::{self, Check};
use muster_shared::door;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::Doors;
use super::http::{Answer, Ask};

/// The body of one request, unpacked.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bodies in memory at a time; who brings a further one waits.
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bodies up to here are not counted.
const BODY_BYTES_SMALL: usize = 64 * 1024;
/// No byte of gzip becomes more bytes than this.
const DEFLATE_RATIO_MAX: usize = 1032;
/// Connections at a time; further ones wait to be taken.
const CONNECTIONS_MAX: usize = 1024;
/// A request's head must be there so soon; a connection may idle so long.
const HEAD_DEADLINE: Duration = Duration::from_secs(75);
/// A body must be there so soon.
const BODY_DEADLINE: Duration = Duration::from_secs(60);
/// A client must take something of its answer so often.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// How long the doors wait for requests under way when they close.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be taken: the process has no file left for one.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Answers from here on are packed for who takes gzip.
const GZIP_FROM_BYTES: usize = 1024;

/// Which device answered.
const DEVICE: HeaderName = HeaderName::from_static(door::DEVICE_HEADER);
/// Which version answered.
const VERSION: HeaderName = HeaderName::from_static(door::VERSION_HEADER);

/// How long the asker waits, in milliseconds.
const DEADLINE_MS: HeaderName = HeaderName::from_static(door::DEADLINE_MS_HEADER);

/// How these doors are opened.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Write a line for each request.
    pub access_log: bool,
}

struct Server {
    doors: Arc<Doors>,
    own: SocketAddr,
    device: HeaderValue,
    bodies: Semaphore,
    options: Options,
}

/// Opens the doors on `listener` until `stop`; then lets requests under way end.
pub async fn serve(
    listener: TcpListener,
    doors: Arc<Doors>,
    options: Options,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let own = listener.local_addr()?;
    let device = HeaderValue::from_str(doors.device.as_str()).unwrap_or(HeaderValue::from_static("unknown"));
    let server = Arc::new(Server { doors, own, device, bodies: Semaphore::new(BODIES_BYTES_MAX), options });
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, place)) => {
                let (server, stop) = (server.clone(), stop.clone());
                connections.spawn(async move {
                    server.connection(stream, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "cannot take a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    connections.close();
    if timeout(CLOSE_DEADLINE, connections.wait()).await.is_err() {
        warn!("the doors close over requests that did not end within {CLOSE_DEADLINE:?}");
    }
    Ok(())
}

/// A connection once there is a place for one.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = room.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    Ok((listener.accept().await?.0, place))
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, stop: CancellationToken) {
        // Small answers must not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        // A client that asks and never reads must not keep its place for ever.
        stream.set_write_timeout(Some(WRITE_DEADLINE));
        let server = self.clone();
        let service = service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.respond(request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                // Who does not read the answer does not keep the server.
                match timeout(CLOSE_DEADLINE, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            debug!(%error, "a connection broke");
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let began = Instant::now();
        let (head, body) = request.into_parts();
        let gzip = takes_gzip(&head.headers);
        let mut length = 0;
        let answer = match self.ask(&head, body, &mut length).await {
            Ok(answer) => answer,
            Err((status, text)) => Answer::error(status, &text),
        };
        if self.options.access_log {
            let (method, path, status) = (&head.method, head.uri.path(), answer.status.as_u16());
            let (version, micros) =
                (answer.version.map(muster_shared::Version::get), began.elapsed().as_micros() as u64);
            let answered = answer.body.len();
            info!(target: "access", %method, path, status, version, bytes_in = length, bytes_out = answered, micros, "request");
        }
        let mut response = self.to_http(answer, gzip);
        if head.method == Method::HEAD {
            *response.body_mut() = Full::default();
        }
        response
    }

    async fn ask(&self, head: &Parts, body: Incoming, length: &mut usize) -> Result<Answer, (StatusCode, String)> {
        if let Some(what) = stranger(self.own, &head.headers) {
            let text = format!("this door answers to loopback names only, not to {what}");
            return Err((StatusCode::FORBIDDEN, text));
        }
        // Its place in memory is kept until it is answered.
        let (body, _place) = self.read(&head.headers, body).await?;
        *length = body.len();
        let ask = Ask { method: &head.method, path: head.uri.path(), headers: &head.headers, body: &body };
        let Some(said) = head.headers.get(DEADLINE_MS) else { return Ok(self.doors.answer(ask).await) };
        let milliseconds =
            said.to_str().ok().and_then(|said| said.parse().ok()).filter(|milliseconds| *milliseconds > 0);
        let Some(milliseconds) = milliseconds else {
            return Err((StatusCode::BAD_REQUEST, format!("{DEADLINE_MS}: write milliseconds, 1 or more")));
        };
        let late =
            |_| (StatusCode::GATEWAY_TIMEOUT, format!("no answer within the {milliseconds} ms of {DEADLINE_MS}"));
        timeout(Duration::from_millis(milliseconds), self.doors.answer(ask)).await.map_err(late)
    }

    /// The whole body, unpacked.
    async fn read(
        &self,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<(Bytes, Option<SemaphorePermit<'_>>), (StatusCode, String)> {
        let announced = body.size_hint().exact();
        if announced.is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
            return Err(too_large());
        }
        if announced == Some(0) {
            return Ok((Bytes::new(), None));
        }
        let packed = match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => false,
            Some(b"gzip") => true,
            Some(other) => {
                let text = format!("Content-Encoding {:?}: only gzip is understood", String::from_utf8_lossy(other));
                return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
            }
        };
        let (bytes, place) = timeout(BODY_DEADLINE, self.collect(body)).await.map_err(late)??;
        if packed { self.unpacked(bytes, place).await } else { Ok((bytes, place)) }
    }

    /// What a packed body holds, and the place in memory that it takes.
    async fn unpacked<'a>(
        &'a self,
        bytes: Bytes,
        mut place: Option<SemaphorePermit<'a>>,
    ) -> Result<(Bytes, Option<SemaphorePermit<'a>>), (StatusCode, String)> {
        let unpacked_max = bytes.len().saturating_mul(DEFLATE_RATIO_MAX).min(BODY_BYTES_MAX);
        // Before it is unpacked: what is unpacked and waits for its place is in memory, too.
        timeout(BODY_DEADLINE, self.make_place(&mut place, unpacked_max)).await.map_err(late)?;
        let bytes = unpack(&bytes)?.ok_or_else(too_large)?;
        give_back(&mut place, unpacked_max - bytes.len().min(unpacked_max));
        Ok((bytes, place))
    }

    /// The body as it comes, and the place in memory that it takes: as much as has come, so that who announces
    /// much and sends little holds up nobody.
    async fn collect(&self, mut body: Incoming) -> Result<(Bytes, Option<SemaphorePermit<'_>>), (StatusCode, String)> {
        let (mut first, mut all, mut place) = (Bytes::new(), BytesMut::new(), None);
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| (StatusCode::BAD_REQUEST, format!("the request's body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if first.is_empty() && all.is_empty() {
                // Most bodies come in one piece: that one is not copied.
                first = data;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            if all.len() + data.len() > BODY_BYTES_MAX {
                let text = format!("the request's body is larger than {BODY_BYTES_MAX} bytes");
                return Err((StatusCode::PAYLOAD_TOO_LARGE, text));
            }
            all.extend_from_slice(&data);
            self.make_place(&mut place, all.len()).await;
        }
        Ok((if all.is_empty() { first } else { all.freeze() }, place))
    }

    /// Makes a place in memory as large as a body of so many bytes needs; a small one needs none.
    async fn make_place<'a>(&'a self, place: &mut Option<SemaphorePermit<'a>>, bytes: usize) {
        let has = place.as_ref().map_or(0, SemaphorePermit::num_permits);
        let more = bytes.saturating_sub(BODY_BYTES_SMALL).saturating_sub(has).min(BODIES_BYTES_MAX);
        let Some(more) = u32::try_from(more).ok().filter(|more| *more > 0) else { return };
        // The semaphore is never closed.
        let Ok(permit) = self.bodies.acquire_many(more).await else { return };
        match place {
            Some(place) => place.merge(permit),
            None => *place = Some(permit),
        }
    }

    fn to_http(&self, answer: Answer, gzip: bool) -> Response<Full<Bytes>> {
        let mut headers = HeaderMap::with_capacity(8);
        headers.extend(answer.headers.into_iter().map(|(name, value)| (Some(name), value)));
        headers.insert(DEVICE, self.device.clone());
        if let Some(version) = answer.version {
            headers.insert(VERSION, HeaderValue::from(version.get()));
        }
        if matches!(answer.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        let mut body = answer.body;
        // A door says so where its clients say that they take gzip and do not.
        let as_it_is = headers.remove(header::CONTENT_ENCODING).is_some();
        if gzip && !as_it_is && body.len() >= GZIP_FROM_BYTES {
            body = pack(&body);
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = headers;
        response
    }
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let listed = |value: &HeaderValue| {
        value.to_str().is_ok_and(|list| {
            list.split(',').any(|item| {
                let (name, weight) = item.split_once(';').unwrap_or((item, ""));
                name.trim().eq_ignore_ascii_case("gzip") && !matches!(weight.trim(), "q=0" | "q=0.0")
            })
        })
    };
    headers.get_all(header::ACCEPT_ENCODING).iter().any(listed)
}

fn pack(body: &[u8]) -> Bytes {
    let mut packed = GzEncoder::new(Vec::with_capacity(body.len() / 2), Compression::fast());
    // Writing into memory does not fail.
    let _ = packed.write_all(body);
    packed.finish().unwrap_or_default().into()
}

fn too_large() -> (StatusCode, String) {
    (StatusCode::PAYLOAD_TOO_LARGE, format!("the request's body is larger than {BODY_BYTES_MAX} bytes"))
}

fn late(_: tokio::time::error::Elapsed) -> (StatusCode, String) {
    (StatusCode::REQUEST_TIMEOUT, format!("the request's body was not there within {BODY_DEADLINE:?}"))
}

/// Gives a part of a place in memory back.
fn give_back(place: &mut Option<SemaphorePermit<'_>>, bytes: usize) {
    if let Some(place) = place {
        drop(place.split(bytes.min(place.num_permits())));
    }
}

/// Unpacks gzip. None: it is larger than a body may be.
pub fn unpack(body: &[u8]) -> Result<Option<Bytes>, (StatusCode, String)> {
    let mut unpacked = vec![];
    GzDecoder::new(body)
        .take(BODY_BYTES_MAX as u64 + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("the request's body is no gzip: {error}")))?;
    Ok((unpacked.len() <= BODY_BYTES_MAX).then(|| unpacked.into()))
}

/// A page in a browser must not reach these doors by a name of its own: Host and Origin are ours or
/// there are none.
fn stranger(own: SocketAddr, headers: &HeaderMap) -> Option<&'static str> {
    if !checks::on(Check::Origin) {
        return None;
    }
    let port = own.port();
    let ours = |authority: &str| {
        let (host, given) = authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        let host_ok = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        host_ok && given.is_none_or(|given| given.parse() == Ok(port))
    };
    let value = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if value(header::HOST).is_some_and(|host| !ours(host)) {
        return Some("this Host");
    }
    let origin = value(header::ORIGIN).map(|origin| origin.strip_prefix("http://").unwrap_or("?"));
    if origin.is_some_and(|origin| !ours(origin)) { Some("this Origin") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn packed_bodies_wait_for_memory_before_they_are_unpacked() {
        let bodies = Semaphore::new(BODIES_BYTES_MAX);
        let device = HeaderValue::from_static("edge-1");
        let table: Arc<crate::table::Table> = Arc::default();
        let doors = Doors {
            oip: super::super::oip::OipDoor::closed(table.clone()),
            table,
            device: "edge-1".parse().expect("an id"),
        };
        let own = SocketAddr::from(([127, 0, 0, 1], 8501));
        let server = Server { doors: Arc::new(doors), own, device, bodies, options: Options::default() };
        // A few kilobytes that become as much as a body may be.
        let bomb = pack(&vec![0; BODY_BYTES_MAX - 1]);
        let mut places = vec![];
        for _ in 0..BODIES_BYTES_MAX / BODY_BYTES_MAX {
            let (bytes, place) = server.unpacked(bomb.clone(), None).await.expect("unpacked");
            assert_eq!(bytes.len(), BODY_BYTES_MAX - 1);
            // The bodies themselves may go: what they would take is held.
            places.push(place.expect("it is counted"));
        }
        let waits = tokio::time::timeout(Duration::from_millis(50), server.unpacked(bomb.clone(), None));
        assert!(waits.await.is_err(), "it was unpacked without a place");
        places.pop();
        server.unpacked(bomb, None).await.expect("there is a place again");
        // A small body gives back what it did not need.
        places.clear();
        let (_, place) = server.unpacked(pack(&vec![7; 1000]), None).await.expect("unpacked");
        assert_eq!(server.bodies.available_permits(), BODIES_BYTES_MAX - place.map_or(0, |place| place.num_permits()));
        assert!(server.bodies.available_permits() > BODIES_BYTES_MAX - BODY_BYTES_SMALL);
    }

    #[test]
    fn only_loopback_names_open_the_door() {
        let own = SocketAddr::from(([127, 0, 0, 1], 8501));
        let check = |host: Option<&str>, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().expect("a header"));
            }
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().expect("a header"));
            }
            stranger(own, &headers).is_none()
        };
        for host in ["127.0.0.1:8501", "localhost:8501", "[::1]:8501", "localhost"] {
            assert!(check(Some(host), None), "{host}");
        }
        assert!(check(Some("localhost:8501"), Some("http://localhost:8501")));
        for (host, origin) in [
            ("evil.example:8501", None),
            ("localhost:9999", None),
            ("localhost:8501", Some("http://evil.example")),
            ("localhost:8501", Some("null")),
        ] {
            assert!(!check(Some(host), origin), "{host} {origin:?}");
        }
    }
}
