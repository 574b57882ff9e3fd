//! Closed-loop load: each connection asks again as soon as it is answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;
use mio::{Events, Poll, Token};

use crate::connection::{Answered, Connection};

/// How long no answer at all may come.
const STALL_MAX: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Refusals after which nothing is learnt from going on.
const REFUSED_MAX: u64 = 100;

/// What to ask, how, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Load<'a> {
    /// The server.
    pub address: SocketAddr,
    /// The whole request, head and body.
    pub request: &'a [u8],
    /// Requests in flight, each on its own kept-alive connection.
    pub connections: usize,
    /// Time before anything counts.
    pub warm_up: Duration,
    /// Time that counts.
    pub duration: Duration,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Measured {
    /// From the last answer that did not count to the last one that did.
    pub elapsed: Duration,
    /// Answers with another status than 200.
    pub refused: u64,
    /// Processor time that `cpu` told, over the same window.
    pub cpu: Duration,
    /// Of each counted answer, the shortest first.
    latencies: Vec<Duration>,
}

impl Measured {
    /// Answers that count.
    pub fn answered(&self) -> usize {
        self.latencies.len()
    }

    /// Answers per second.
    pub fn rate(&self) -> f64 {
        self.answered() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the answers did not exceed.
    pub fn percentile(&self, share: f64) -> Duration {
        let rank = (share * self.latencies.len() as f64).ceil() as usize;
        self.latencies.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// Drives the load. `cpu` tells the server's processor time so far; it is asked when counting begins
/// and ends.
pub fn drive(load: &Load<'_>, cpu: &dyn Fn() -> anyhow::Result<Duration>) -> anyhow::Result<Measured> {
    let mut poll = Poll::new()?;
    let open = |index| Connection::open(load.address, poll.registry(), Token(index));
    let mut connections = (0..load.connections).map(open).collect::<anyhow::Result<Vec<_>>>()?;
    for connection in &mut connections {
        connection.ask(load.request)?;
    }
    let warm = pump(load, &mut poll, &mut connections, Instant::now(), load.warm_up)?;
    let cpu_before = cpu()?;
    let mut counted = pump(load, &mut poll, &mut connections, Instant::now(), load.duration)?;
    let cpu = cpu()?.saturating_sub(cpu_before);
    counted.latencies.sort_unstable();
    // From answer to answer: of slow requests only whole ones count, over whole times.
    let elapsed = counted.last_answer.saturating_duration_since(warm.last_answer);
    Ok(Measured { elapsed, refused: warm.refused + counted.refused, cpu, latencies: counted.latencies })
}

struct Counted {
    latencies: Vec<Duration>,
    refused: u64,
    last_answer: Instant,
}

/// Answers and asks until `duration` after `began`, and until something was answered. Every answer of that time counts: in a closed loop
/// those asked for before are as many as those still missing at the end.
fn pump(
    load: &Load<'_>,
    poll: &mut Poll,
    connections: &mut [Connection],
    began: Instant,
    duration: Duration,
) -> anyhow::Result<Counted> {
    let mut events = Events::with_capacity(connections.len().max(1));
    // A long run's worth, so that nothing is copied while it is measured.
    let mut counted = Counted { latencies: Vec::with_capacity(1 << 18), refused: 0, last_answer: began };
    let mut last_sign = Instant::now();
    // On a busy machine a slow request may take longer than that; one answer is waited for.
    while began.elapsed() < duration || counted.latencies.is_empty() {
        if let Err(error) = poll.poll(&mut events, Some(POLL_EVERY)) {
            if error.kind() == std::io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error.into());
        }
        for event in &events {
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            let Some(answered) = connection.advance(load.request)? else { continue };
            connection.ask(load.request)?;
            last_sign = answered.answered_at;
            counted.take(&answered);
        }
        if counted.refused > REFUSED_MAX {
            bail!("more than {REFUSED_MAX} requests were refused");
        }
        if last_sign.elapsed() > STALL_MAX {
            bail!("no answer for {STALL_MAX:?}");
        }
    }
    Ok(counted)
}

impl Counted {
    fn take(&mut self, answered: &Answered) {
        self.last_answer = answered.answered_at;
        if answered.status == 200 {
            self.latencies.push(answered.answered_at.duration_since(answered.asked_at));
        } else {
            self.refused += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";

    /// A server that gives every whole request the same answer, a thread for each connection.
    fn server(answer: &'static [u8], pause: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut request = [0; REQUEST.len()];
                    while stream.read_exact(&mut request).is_ok() {
                        std::thread::sleep(pause);
                        if stream.write_all(answer).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    fn load(address: SocketAddr, connections: usize) -> Load<'static> {
        let (warm_up, duration) = (Duration::from_millis(20), Duration::from_millis(200));
        Load { address, request: REQUEST, connections, warm_up, duration }
    }

    #[test]
    fn every_connection_is_busy() {
        let pause = Duration::from_millis(10);
        let address = server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", pause);
        let measured = drive(&load(address, 8), &|| Ok(Duration::ZERO)).expect("answers");
        // A slow machine may do less; more than one answer per pause and connection would be wrong. The time
        // that is measured begins between two answers: one more of each connection may fall into it.
        assert!(measured.latencies.iter().all(|latency| *latency >= pause), "{:?}", measured.latencies.iter().min());
        let most = 8.0 * (measured.elapsed.div_duration_f64(pause) + 1.0);
        assert!(measured.answered() as f64 <= most, "{} answers in {:?}", measured.answered(), measured.elapsed);
        assert!(measured.answered() > 8, "{}", measured.answered());
        assert!(measured.percentile(0.5) >= pause, "{:?}", measured.percentile(0.5));
        assert!(measured.percentile(0.99) >= measured.percentile(0.5));
        assert_eq!(measured.refused, 0);
    }

    #[test]
    fn refusals_do_not_count_as_answers() {
        let address = server(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", Duration::ZERO);
        let error = drive(&load(address, 2), &|| Ok(Duration::ZERO)).expect_err("nothing but refusals");
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn percentiles_are_ranks() {
        let latencies = (1..=100).map(Duration::from_millis).collect();
        let measured = Measured { elapsed: Duration::from_secs(1), refused: 0, cpu: Duration::ZERO, latencies };
        assert_eq!(measured.percentile(0.5), Duration::from_millis(50));
        assert_eq!(measured.percentile(0.99), Duration::from_millis(99));
        assert_eq!(measured.percentile(1.0), Duration::from_millis(100));
    }
}
