//! Files on their way out to whoever asks: so many at a time, so many for one address, and none for a
//! reader that stands still.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::poll_fn;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

/// Files on their way at a time; then others are told to come again.
const DOWNLOADS_MAX: usize = 32;
/// Files for one address in [`WINDOW`]: many devices may stand behind one.
const OF_ADDRESS_MAX: u32 = 120;
/// The time in which they are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are told apart; while there are more, nobody new is served.
const ADDRESSES_MAX: usize = 4096;
/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that wait for a slow reader.
const PIECES_WAITING_MAX: usize = 2;
/// How long a reader may take no piece.
const READER_SILENCE: Duration = Duration::from_secs(30);

/// Who fetched how much lately, and how many may at once.
pub struct Downloads {
    places: Arc<Semaphore>,
    asked: Mutex<BTreeMap<IpAddr, (Instant, u32)>>,
}

impl Default for Downloads {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(DOWNLOADS_MAX)), asked: Mutex::default() }
    }
}

impl Downloads {
    /// The right to one file; nothing: too many are under way, or went to this address lately.
    pub fn begin(&self, address: IpAddr, now: Instant) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        if asked.len() >= ADDRESSES_MAX && !asked.contains_key(&address) {
            return None;
        }
        let (_, count) = asked.entry(address).or_insert((now, 0));
        *count += 1;
        (*count <= OF_ADDRESS_MAX).then_some(place)
    }
}

/// What is read, as a body. A reader that takes nothing for a while is cut off, and its place is free again.
pub fn body(source: impl AsyncRead + Unpin + Send + 'static, place: OwnedSemaphorePermit) -> Body {
    body_within(READER_SILENCE, source, place)
}

fn body_within(
    silence: Duration,
    source: impl AsyncRead + Unpin + Send + 'static,
    place: OwnedSemaphorePermit,
) -> Body {
    let (sender, mut pieces) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(async move {
        // A failure ends it, and so does a reader that is gone.
        let _ = pump(source, sender, silence).await;
        drop(place);
    });
    Body::from_stream(poll_fn(move |context| pieces.poll_recv(context)))
}

async fn pump(
    mut source: impl AsyncRead + Unpin,
    sender: mpsc::Sender<io::Result<Bytes>>,
    silence: Duration,
) -> Result<(), mpsc::error::SendError<io::Result<Bytes>>> {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = (&mut source).take(PIECE_BYTES as u64).read_to_end(&mut piece).await;
        let end = matches!(read, Ok(0) | Err(_));
        if matches!(read, Ok(0)) {
            return Ok(());
        }
        match timeout(silence, sender.send(read.map(|_| piece.into()))).await {
            Ok(sent) => sent?,
            // Dropping the sender would look like the end: the length that was promised tells it is none.
            Err(_) => return Ok(()),
        }
        if end {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn one_address_gets_so_many_and_no_more_than_so_many_are_under_way() {
        let (downloads, now) = (Downloads::default(), Instant::now());
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().expect("an address"));
        let given = (0..1_000).filter(|_| downloads.begin(one, now).is_some()).count();
        assert_eq!(given, OF_ADDRESS_MAX as usize);
        assert!(downloads.begin(one, now + WINDOW).is_some());
        let held: Vec<_> = (0..1_000).filter_map(|_| downloads.begin(other, now)).collect();
        assert_eq!(held.len(), DOWNLOADS_MAX);
        assert!(downloads.begin(one, now + WINDOW).is_none(), "no place is left");
        drop(held);
        assert!(downloads.begin(one, now + WINDOW).is_some());
    }

    #[tokio::test]
    async fn a_reader_that_stands_still_is_cut_off() {
        let downloads = Downloads::default();
        let begin = || downloads.begin("192.0.2.1".parse().expect("an address"), Instant::now());
        let bytes: Vec<u8> = (0..5 * PIECE_BYTES + 3).map(|at| (at % 251) as u8).collect();
        let whole = body(io::Cursor::new(bytes.clone()), begin().expect("a place"));
        assert_eq!(whole.collect().await.expect("a body").to_bytes(), bytes);
        let still = body_within(Duration::ZERO, io::Cursor::new(bytes.clone()), begin().expect("a place"));
        // All places are free once it is.
        let _all = downloads.places.acquire_many(DOWNLOADS_MAX as u32).await.expect("never closed");
        assert!(still.collect().await.expect("cut off").to_bytes().len() < bytes.len());
    }
}
