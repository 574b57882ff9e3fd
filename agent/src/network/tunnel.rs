//! The device's end of the tunnel: a WebSocket on the control plane's listener for devices, the proof of the
//! key where no certificate arrives there, and the bytes between it and the local end.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use muster_shared::api::Problem;
use muster_shared::limits::clip;
use muster_shared::tunnel::{MESSAGE_BYTES_MAX, PATH, SUBPROTOCOL, SUBPROTOCOL_WITH_PROOF};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::fault::{Cause, Fault};
use super::target::Target;

/// How long the WebSocket may take to open, and a challenge to come.
const OPEN_TIME: Duration = Duration::from_secs(15);
/// How long a peer that does not read is waited for.
const WRITE_TIME: Duration = Duration::from_secs(20);
/// Bytes of one message that this end sends.
const SENT_BYTES: usize = 16 * 1024;

/// A tunnel that is open.
pub type Tunnel<S> = WebSocketStream<S>;

/// Answers a challenge, as bytes, with the signed proof.
pub type Prove<'a> = &'a (dyn Fn(&[u8]) -> anyhow::Result<Vec<u8>> + Sync);

/// The bounds of a WebSocket with a control plane.
pub fn bounds() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(SENT_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(4 * MESSAGE_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

/// Opens the tunnel on a connection. Only where the owner's proxy ended TLS (`by_proxy`) is a challenge answered.
pub async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    by_proxy: bool,
    target: &Target,
    prove: Prove<'_>,
) -> Result<Tunnel<S>, Fault> {
    let opened = async {
        let protocol = if by_proxy { SUBPROTOCOL_WITH_PROOF } else { SUBPROTOCOL };
        let request = format!("wss://{target}{PATH}").into_client_request();
        let mut request = request.map_err(|error| Fault::new(Cause::Refused, error.to_string()))?;
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(bounds())).await;
        let (mut tunnel, answer) = opened.map_err(|error| refused(error, by_proxy))?;
        if answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL).is_none_or(|chosen| chosen != protocol) {
            return Err(Fault::new(Cause::Refused, "what answers there is no tunnel of a control plane"));
        }
        if by_proxy {
            answer_challenge(&mut tunnel, prove).await?;
        }
        Ok(tunnel)
    };
    let late = || Fault::new(Cause::Timeout, format!("the tunnel did not open within {OPEN_TIME:?}"));
    let opened = timeout(OPEN_TIME, opened).await.unwrap_or_else(|_| Err(late()));
    opened.map_err(|fault| fault.at(&format!("the tunnel at {target}")))
}

async fn answer_challenge<S: AsyncRead + AsyncWrite + Unpin>(
    tunnel: &mut Tunnel<S>,
    prove: Prove<'_>,
) -> Result<(), Fault> {
    let challenge = loop {
        match tunnel.next().await {
            Some(Ok(Message::Binary(bytes))) => break bytes,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Err(error)) => return Err(of_websocket(error)),
            Some(Ok(_)) | None => return Err(Fault::new(Cause::Refused, "it sent no challenge")),
        }
    };
    let proof = prove(&challenge).map_err(|error| Fault::new(Cause::Tls, format!("{error:#}")))?;
    tunnel.send(Message::Binary(proof.into())).await.map_err(of_websocket)
}

/// Carries bytes until either side ends.
pub async fn pump<S: AsyncRead + AsyncWrite + Unpin>(tunnel: Tunnel<S>, local: UnixStream) -> Result<(), Fault> {
    let (mut sink, mut stream) = tunnel.split();
    let (mut from_local, mut to_local) = local.into_split();
    let up = async {
        let mut buffer = vec![0; SENT_BYTES];
        loop {
            let length = from_local.read(&mut buffer).await.unwrap_or(0);
            if length == 0 {
                // A goodbye; whoever does not take it is gone.
                let _ = timeout(WRITE_TIME, sink.send(Message::Close(None))).await;
                return Ok(());
            }
            let message = Message::Binary(Bytes::copy_from_slice(&buffer[..length]));
            match timeout(WRITE_TIME, sink.send(message)).await {
                Ok(sent) => sent.map_err(of_websocket)?,
                Err(_) => return Err(Fault::new(Cause::Timeout, "the other end of the tunnel does not read")),
            }
        }
    };
    let down = async {
        while let Some(message) = stream.next().await {
            let bytes = match message.map_err(of_websocket)? {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => break,
                Message::Text(_) => return Err(Fault::new(Cause::Refused, "it sent text where bytes are expected")),
                _ => continue,
            };
            if to_local.write_all(&bytes).await.is_err() {
                return Ok(());
            }
        }
        Err(Fault::new(Cause::Refused, "the control plane closed the tunnel"))
    };
    tokio::select! {
        biased;
        ended = down => ended,
        ended = up => ended,
    }
}

/// Why it did not open.
fn refused(error: Error, by_proxy: bool) -> Fault {
    let Error::Http(answer) = error else { return of_websocket(error) };
    let (status, body) = (answer.status(), answer.body().as_deref().unwrap_or_default());
    let problem = serde_json::from_slice::<Problem>(body).ok();
    let text = problem.as_ref().map_or_else(
        || status.to_string(),
        |problem| {
            let hint = problem.hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"));
            clip(format!("{}{hint}", problem.detail))
        },
    );
    let cause = match status {
        // A proxy's own page is no word of the control plane's.
        _ if by_proxy && problem.is_none() => Cause::Proxy,
        StatusCode::FORBIDDEN => Cause::NotLetIn,
        StatusCode::UNAUTHORIZED => Cause::Certificate,
        _ => Cause::Refused,
    };
    Fault::new(cause, text)
}

fn of_websocket(error: Error) -> Fault {
    match error {
        Error::Io(error) => Fault::of_io(&error),
        Error::Tls(error) => Fault::new(Cause::Tls, error.to_string()),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Fault::new(Cause::Refused, "the tunnel was cut off")
        }
        error => Fault::new(Cause::Refused, error.to_string()),
    }
}
