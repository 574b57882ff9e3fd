//! Names to addresses, whatever the resolver does: asking takes a bounded time (the system's own function does
//! not), and the address at which a control plane was last proven to be is tried where a resolver is dead or lies.
//!
//! Only an address behind which the pinned CA was shown is remembered, so a resolver that lies once is not
//! believed for ever.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;

use super::fault::{Cause, Fault};
use super::target::Target;
use crate::identity::write_durably;

/// How long the resolver may take where there is nothing else to try: two of its own attempts.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long where there is.
const PATIENCE_WITH_REMEMBERED: Duration = Duration::from_secs(3);
/// Lookups that the system has not come back from. Each holds a thread.
const LOOKUPS_MAX: usize = 4;
/// Addresses of one name that are tried; the first ones count.
const ADDRESSES_MAX: usize = 8;
/// Names whose addresses are remembered: the API's, the broker's, the tunnel's, and their successors.
const REMEMBERED_MAX: usize = 8;
/// Where they are remembered, below the data.
pub const FILE: &str = "addresses.json";
/// That file.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// Finds addresses.
#[derive(Debug, Clone)]
pub struct Resolver {
    file: Option<PathBuf>,
    remembered: Arc<Mutex<BTreeMap<String, IpAddr>>>,
    lookups: Arc<AtomicUsize>,
}

/// What there is to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In this order, the families taking turns.
    pub addresses: Vec<SocketAddr>,
    /// The last good address, if it is not among them.
    pub remembered: Option<SocketAddr>,
    /// Why the resolver gave none, if it did not.
    pub unresolved: Option<String>,
}

impl Resolver {
    /// With what an earlier run remembered below `data`.
    pub fn open(data: &Path) -> Self {
        let file = data.join(FILE);
        let remembered = match read(&file) {
            Ok(remembered) => remembered,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                warn!(path = %file.display(), %error, "the last good addresses cannot be read; the resolver is asked");
                BTreeMap::new()
            }
        };
        Self { file: Some(file), remembered: Arc::new(Mutex::new(remembered)), lookups: Arc::default() }
    }

    /// What to try for `target`.
    pub async fn find(&self, target: &Target) -> Result<Found, Fault> {
        if let Ok(ip) = target.host.parse::<IpAddr>() {
            let addresses = vec![SocketAddr::new(ip, target.port)];
            return Ok(Found { addresses, remembered: None, unresolved: None });
        }
        let last = self.lock().get(&target.host).map(|ip| SocketAddr::new(*ip, target.port));
        let patience = if last.is_some() { PATIENCE_WITH_REMEMBERED } else { PATIENCE };
        let found = match timeout(patience, self.look_up(target)).await {
            Ok(found) => found,
            Err(_) => Err(format!("the resolver did not answer within {patience:?}")),
        };
        match (found, last) {
            (Ok(addresses), last) => {
                let addresses = in_turns(addresses);
                let remembered = last.filter(|last| !addresses.contains(last));
                Ok(Found { addresses, remembered, unresolved: None })
            }
            (Err(why), Some(last)) => Ok(Found { addresses: vec![last], remembered: None, unresolved: Some(why) }),
            (Err(why), None) => {
                let next = "check the name, and the resolver in /etc/resolv.conf";
                Err(Fault::new(Cause::Dns, format!("{} has no address here: {why}; {next}", target.host)))
            }
        }
    }

    /// The pinned CA was shown at this address.
    pub fn proven(&self, target: &Target, address: SocketAddr) {
        if target.host.parse::<IpAddr>().is_ok() {
            return;
        }
        let remembered = {
            let mut remembered = self.lock();
            if remembered.get(&target.host) == Some(&address.ip()) {
                return;
            }
            if remembered.len() >= REMEMBERED_MAX && !remembered.contains_key(&target.host) {
                // Which one goes does not matter much: names in use come back.
                remembered.pop_first();
            }
            remembered.insert(target.host.clone(), address.ip());
            remembered.clone()
        };
        let Some(file) = &self.file else { return };
        let written = serde_json::to_vec(&remembered).map_err(io::Error::from);
        if let Err(error) = written.and_then(|bytes| write_durably(file, &bytes, 0o644)) {
            warn!(path = %file.display(), %error, "cannot keep the last good address");
        }
    }

    /// The system's own lookup, on a thread that nobody waits for longer than is bearable: it may take minutes,
    /// and must not hold up the end of the process.
    async fn look_up(&self, target: &Target) -> Result<Vec<SocketAddr>, String> {
        if self.lookups.fetch_add(1, Ordering::AcqRel) >= LOOKUPS_MAX {
            self.lookups.fetch_sub(1, Ordering::AcqRel);
            return Err("the resolver still owes answers to earlier questions".to_owned());
        }
        let (sender, answer) = oneshot::channel();
        let (lookups, host, port) = (self.lookups.clone(), target.host.clone(), target.port);
        let asked = std::thread::Builder::new().name("resolve".to_owned()).spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs();
            lookups.fetch_sub(1, Ordering::AcqRel);
            // Whoever asked may have given up.
            let _ = sender.send(found.map(|found| found.take(4 * ADDRESSES_MAX).collect::<Vec<_>>()));
        });
        if let Err(error) = asked {
            self.lookups.fetch_sub(1, Ordering::AcqRel);
            return Err(format!("cannot ask the resolver: {error}"));
        }
        match answer.await {
            Ok(Ok(found)) if found.is_empty() => Err("the resolver knows no address of it".to_owned()),
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the resolver failed".to_owned()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, IpAddr>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(file: &Path) -> io::Result<BTreeMap<String, IpAddr>> {
    if fs::metadata(file)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is longer than it ever is"));
    }
    Ok(remembered(&fs::read(file)?)?)
}

/// What the file of them says.
pub fn remembered(bytes: &[u8]) -> serde_json::Result<BTreeMap<String, IpAddr>> {
    let read: BTreeMap<String, IpAddr> = serde_json::from_slice(bytes)?;
    Ok(read.into_iter().take(REMEMBERED_MAX).collect())
}

/// The families in turns, beginning with the one that the system puts first, each address once: where one
/// family leads nowhere the other is tried second, not last.
fn in_turns(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = found.first().copied() else { return vec![] };
    let (one, other): (Vec<_>, Vec<_>) = found.into_iter().partition(|it| it.is_ipv4() == first.is_ipv4());
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = vec![];
    loop {
        let pair = [one.next(), other.next()];
        if pair == [None, None] {
            return all;
        }
        for address in pair.into_iter().flatten() {
            if all.len() < ADDRESSES_MAX && !all.contains(&address) {
                all.push(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn families_take_turns_and_their_number_is_bounded() {
        let found = ["[fd::1]:1", "[fd::2]:1", "10.0.0.1:1", "[fd::1]:1", "10.0.0.2:1"].map(address).to_vec();
        assert_eq!(in_turns(found), ["[fd::1]:1", "10.0.0.1:1", "[fd::2]:1", "10.0.0.2:1"].map(address));
        let many = (1..200).map(|port| SocketAddr::new(IpAddr::from([10, 0, 0, 1]), port)).collect();
        assert_eq!(in_turns(many).len(), ADDRESSES_MAX);
        assert_eq!(in_turns(vec![]), vec![]);
    }

    #[tokio::test]
    async fn the_last_good_address_is_kept_and_tried_where_the_resolver_knows_nothing() {
        let data = tempfile::tempdir().expect("a folder");
        let target: Target = "plane.invalid:443".parse().expect("a target");
        let resolver = Resolver::open(data.path());
        let fault = resolver.find(&target).await.expect_err("no such name");
        assert!(fault.cause == Cause::Dns && fault.text.contains("plane.invalid"), "{fault:?}");
        resolver.proven(&target, address("10.0.0.7:443"));
        let found = Resolver::open(data.path()).find(&target).await.expect("the last good one");
        assert_eq!(found.addresses, [address("10.0.0.7:443")]);
        assert!(found.unresolved.is_some());
        // A damaged file is no reason not to start.
        fs::write(data.path().join("addresses.json"), "damaged").expect("writes");
        assert!(Resolver::open(data.path()).find(&target).await.is_err());
    }

    #[tokio::test]
    async fn an_address_needs_no_resolver() {
        let data = tempfile::tempdir().expect("a folder");
        let found = Resolver::open(data.path()).find(&"[::1]:443".parse().expect("a target")).await.expect("itself");
        assert_eq!(found.addresses, [address("[::1]:443")]);
    }

    #[test]
    fn only_so_many_addresses_are_remembered() {
        let data = tempfile::tempdir().expect("a folder");
        let resolver = Resolver::open(data.path());
        for number in 0..3 * REMEMBERED_MAX {
            resolver.proven(&format!("plane-{number}.invalid:443").parse().expect("a target"), address("10.0.0.7:443"));
        }
        assert_eq!(read(&data.path().join("addresses.json")).expect("readable").len(), REMEMBERED_MAX);
    }
}
