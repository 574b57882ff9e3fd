//! A TCP connection to the first of several addresses that answers: one that does not is given little time
//! alone, so that a network without IPv4, or without IPv6, costs moments and not minutes (RFC 8305 in short).

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::fault::{Cause, Fault};

/// How long one address may take.
const ADDRESS_TIME: Duration = Duration::from_secs(5);
/// After this the next address is tried beside it.
const NEXT_AFTER: Duration = Duration::from_millis(300);

/// Connects.
pub async fn dial(addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), Fault> {
    let (mut waiting, mut faults) = (addresses.iter().copied(), vec![]);
    let mut attempts = FuturesUnordered::new();
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(attempt(address));
        }
        let stagger = async {
            match waiting.len() {
                0 => std::future::pending().await,
                _ => sleep(NEXT_AFTER).await,
            }
        };
        tokio::select! {
            () = stagger => {}
            ended = attempts.next() => match ended {
                Some(Ok(connected)) => return Ok(connected),
                // The next one need not wait any longer.
                Some(Err(fault)) => faults.push(fault),
                None => return Err(all_failed(faults)),
            }
        }
    }
}

async fn attempt(address: SocketAddr) -> Result<(TcpStream, SocketAddr), Fault> {
    match timeout(ADDRESS_TIME, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // A prediction is a small message each way: held back for an acknowledgement it takes 40 ms.
            let _ = stream.set_nodelay(true);
            Ok((stream, address))
        }
        Ok(Err(error)) => Err(Fault::of_io(&error).at(&address.to_string())),
        Err(_) => Err(Fault::new(Cause::Timeout, format!("{address}: no answer within {ADDRESS_TIME:?}"))),
    }
}

/// One fault for all: a time-out only where all timed out, since a refusal says that the network works.
fn all_failed(faults: Vec<Fault>) -> Fault {
    let cause = match faults.iter().all(|fault| fault.cause == Cause::Timeout) {
        true => Cause::Timeout,
        false => Cause::Refused,
    };
    let texts: Vec<_> = faults.into_iter().map(|fault| fault.text).collect();
    match texts.is_empty() {
        true => Fault::new(Cause::Dns, "there is no address to connect to"),
        false => Fault::new(cause, texts.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_first_that_answers_is_taken_and_all_that_failed_are_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let good = listener.local_addr().expect("an address");
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            listener.local_addr().expect("an address")
        };
        let (_, address) = dial(&[closed, good]).await.expect("the second one");
        assert_eq!(address, good);
        let fault = dial(&[closed, closed]).await.expect_err("nobody listens");
        assert_eq!(fault.cause, Cause::Refused);
        assert!(fault.text.contains(&closed.to_string()), "{fault:?}");
        assert_eq!(dial(&[]).await.expect_err("none").cause, Cause::Dns);
    }
}
