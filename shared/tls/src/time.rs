//! By which time a device judges a server's certificate. Its own clock may be at 1970 or in 2099, and then
//! no certificate would ever be good, nor could anybody tell it better. So where time is all that fails
//! under the pinned authority, and no director has confirmed the clock in this run, the certificate is
//! judged at the nearest time of its own validity, never before the device's bound. Such a connection is
//! [`Unsure`]: its server may show a certificate that was stolen and ran out. Nothing but signed documents
//! is taken on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use muster_shared::Digest;
use muster_shared::checks::{self, Check};
use muster_shared::id::UnixMs;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::{ClientIdentity, PinnedCa, client_with, provider};

/// What a device knows of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeKnown {
    /// What its clock says.
    pub clock_ms: UnixMs,
    /// A time that has surely passed.
    pub bound_ms: UnixMs,
    /// Whether a director confirmed the clock in this run.
    pub confirmed: bool,
}

/// When a certificate is good; both ends are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From here on.
    pub from_ms: UnixMs,
    /// Until here.
    pub until_ms: UnixMs,
}

/// When to judge a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// At this time, which is the device's own; the certificate is good or bad by it.
    At(UnixMs),
    /// At this time, since the device's own may be wrong.
    Unsure(UnixMs),
}

/// Decides at which time a certificate is judged.
pub fn judge(known: TimeKnown, validity: Validity) -> Judged {
    let bounded = checks::on(Check::TimeBound);
    let own_ms = if bounded { known.clock_ms.max(known.bound_ms) } else { known.clock_ms };
    let is_good = (validity.from_ms..=validity.until_ms).contains(&own_ms);
    if is_good || known.confirmed {
        return Judged::At(own_ms);
    }
    // Not `clamp`, which panics where the ends are the wrong way round.
    let nearest_ms = own_ms.max(validity.from_ms).min(validity.until_ms);
    if bounded && nearest_ms < known.bound_ms {
        // It ended before a time that has surely passed.
        return Judged::At(own_ms);
    }
    Judged::Unsure(nearest_ms)
}

/// Whether a connection's server was judged at a time that may be wrong.
#[derive(Debug, Clone, Default)]
pub struct Unsure(Arc<AtomicBool>);

impl Unsure {
    /// Whether it was. Ask once the connection stands.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A device's client for one connection: as [`super::client`], by the device's time.
pub fn device_client(
    ca: Digest,
    identity: Option<ClientIdentity>,
    known: TimeKnown,
) -> Result<(ClientConfig, Unsure), Error> {
    let (config, unsure, _) = device_client_behind(ca, None, identity, known)?;
    Ok((config, unsure))
}

/// The same for a device whose owner named a proxy that ends TLS, by the proxy's own authorities: where the
/// server does not show the pinned CA, it may show a certificate of theirs.
pub fn device_client_behind(
    ca: Digest,
    proxy: Option<Arc<RootCertStore>>,
    identity: Option<ClientIdentity>,
    known: TimeKnown,
) -> Result<(ClientConfig, Unsure, ByProxy), Error> {
    let (provider, unsure, by_proxy) = (provider(), Unsure::default(), ByProxy::default());
    let pinned = PinnedCa { ca, provider: provider.clone() };
    let proxy = match proxy {
        Some(roots) => {
            let built = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
            Some(built.map_err(|error| Error::General(error.to_string()))?)
        }
        None => None,
    };
    let verifier = ByDeviceTime { pinned, proxy, known, unsure: unsure.clone(), by_proxy: by_proxy.clone() };
    Ok((client_with(provider, Arc::new(verifier), identity)?, unsure, by_proxy))
}

/// Whether the owner's proxy answered in the server's place. Ask once the connection stands.
#[derive(Debug, Clone, Default)]
pub struct ByProxy(Arc<AtomicBool>);

impl ByProxy {
    /// Whether it did.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct ByDeviceTime {
    pinned: PinnedCa,
    proxy: Option<Arc<WebPkiServerVerifier>>,
    known: TimeKnown,
    unsure: Unsure,
    by_proxy: ByProxy,
}

impl ServerCertVerifier for ByDeviceTime {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (at_ms, unsure) = match judge(self.known, validity(end_entity)?) {
            Judged::At(at_ms) => (at_ms, false),
            Judged::Unsure(at_ms) => (at_ms, true),
        };
        let at = UnixTime::since_unix_epoch(Duration::from_millis(at_ms));
        let pinned = self.pinned.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at);
        let (verified, by_proxy) = match (pinned, &self.proxy) {
            // Whoever shows the pinned CA is held to it.
            (Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)), Some(proxy)) => {
                (proxy.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)?, true)
            }
            (pinned, _) => (pinned?, false),
        };
        self.unsure.0.store(unsure, Ordering::SeqCst);
        self.by_proxy.0.store(by_proxy, Ordering::SeqCst);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.pinned.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.pinned.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.pinned.supported_verify_schemes()
    }
}

/// When a certificate says that it is good.
fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let ms = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000);
    let validity = parsed.validity();
    Ok(Validity { from_ms: ms(validity.not_before), until_ms: ms(validity.not_after) })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use time::OffsetDateTime;

    use super::*;
    use crate::tests::{Authority, authority};

    /// Judges a certificate that is good from 100 to 200.
    fn check(clock_ms: UnixMs, bound_ms: UnixMs, confirmed: bool, expected: Judged) {
        let known = TimeKnown { clock_ms, bound_ms, confirmed };
        assert_eq!(judge(known, Validity { from_ms: 100, until_ms: 200 }), expected, "{known:?}");
    }

    #[test]
    fn only_an_unconfirmed_clock_gives_way_and_never_below_the_bound() {
        use Judged::{At, Unsure};
        for bound_ms in [0, 50, 100] {
            // A clock by which the certificate is good is as good as a confirmed one.
            for confirmed in [false, true] {
                check(100, bound_ms, confirmed, At(100));
                check(150, bound_ms, confirmed, At(150));
                check(200, bound_ms, confirmed, At(200));
            }
            check(201, bound_ms, true, At(201));
            check(201, bound_ms, false, Unsure(200));
            check(u64::MAX, bound_ms, false, Unsure(200));
        }
        // The bound lifts a clock that is behind.
        check(0, 150, false, At(150));
        check(0, 150, true, At(150));
        // Not yet good by either.
        check(0, 50, false, Unsure(100));
        check(0, 50, true, At(50));
        check(99, 0, false, Unsure(100));
        // The bound says that it is over: the clock may say what it likes.
        for clock_ms in [0, 150, 200, 201, 300] {
            for confirmed in [false, true] {
                check(clock_ms, 201, confirmed, At(clock_ms.max(201)));
            }
        }
        // At the bound itself it was still good.
        check(300, 200, false, Unsure(200));
    }

    #[test]
    fn a_certificate_that_ends_before_it_begins_panics_nobody() {
        let known = TimeKnown { clock_ms: 150, bound_ms: 0, confirmed: false };
        assert_eq!(judge(known, Validity { from_ms: 200, until_ms: 100 }), Judged::Unsure(100));
    }

    const BEGIN: i64 = 1_700_000_000;
    const END: i64 = 1_800_000_000;

    fn leaf(authority: &Authority, name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("params");
        params.not_before = OffsetDateTime::from_unix_timestamp(BEGIN).expect("a time");
        params.not_after = OffsetDateTime::from_unix_timestamp(END).expect("a time");
        params.signed_by(&key, &authority.issuer).expect("a certificate").der().clone()
    }

    /// What a device with this clock says of a certificate; none: it is refused.
    fn verdict(
        pinned: &Authority,
        leaf: &CertificateDer<'_>,
        chain: &CertificateDer<'_>,
        (clock, bound, confirmed): (i64, i64, bool),
    ) -> Option<bool> {
        let known = TimeKnown { clock_ms: clock as u64 * 1000, bound_ms: bound as u64 * 1000, confirmed };
        let pinned = PinnedCa { ca: Digest::of(&pinned.certificate), provider: provider() };
        let (unsure, by_proxy) = Default::default();
        let verifier = ByDeviceTime { pinned, proxy: None, known, unsure, by_proxy };
        let name = ServerName::try_from("localhost").expect("a name");
        let chain = std::slice::from_ref(chain);
        let verified = verifier.verify_server_cert(leaf, chain, &name, &[], UnixTime::now());
        verified.is_ok().then(|| verifier.unsure.is_set())
    }

    #[test]
    fn a_real_certificate_is_judged_at_both_ends_of_its_life() {
        let ours = authority();
        let good = leaf(&ours, "localhost");
        let check =
            |known, expected| assert_eq!(verdict(&ours, &good, &ours.certificate, known), expected, "{known:?}");
        check((BEGIN, 0, true), Some(false));
        check((END, BEGIN, true), Some(false));
        check((BEGIN - 1, 0, true), None);
        check((END + 1, 0, true), None);
        check((0, 0, false), Some(true));
        check((4_070_908_800, 0, false), Some(true));
        check((0, BEGIN + 1, false), Some(false));
        check((0, END + 1, false), None);
        check((BEGIN, END + 1, false), None);
    }

    #[test]
    fn a_wrong_clock_excuses_time_and_nothing_else() {
        let (ours, theirs) = (authority(), authority());
        for clock in [0, BEGIN, 4_070_908_800] {
            let known = (clock, 0, false);
            assert_eq!(verdict(&ours, &leaf(&ours, "elsewhere"), &ours.certificate, known), None, "another name");
            assert_eq!(verdict(&ours, &leaf(&theirs, "localhost"), &theirs.certificate, known), None, "another CA");
            assert_eq!(verdict(&ours, &leaf(&theirs, "localhost"), &ours.certificate, known), None, "forged");
        }
    }

    #[test]
    fn the_owners_proxy_counts_where_the_pinned_authority_is_not_shown_and_is_told_apart() {
        let (ours, proxys, others) = (authority(), authority(), authority());
        let mut roots = RootCertStore::empty();
        roots.add(proxys.certificate.clone()).expect("a CA");
        let roots = Arc::new(roots);
        let known = TimeKnown { clock_ms: BEGIN as u64 * 1000, bound_ms: 0, confirmed: true };
        let check = |leaf: &CertificateDer<'_>, chain: &CertificateDer<'_>, proxy: bool| {
            let proxy = proxy.then(|| {
                WebPkiServerVerifier::builder_with_provider(roots.clone(), provider()).build().expect("a verifier")
            });
            let pinned = PinnedCa { ca: Digest::of(&ours.certificate), provider: provider() };
            let (unsure, by_proxy) = Default::default();
            let verifier = ByDeviceTime { pinned, proxy, known, unsure, by_proxy };
            let name = ServerName::try_from("localhost").expect("a name");
            let chain = std::slice::from_ref(chain);
            let verified = verifier.verify_server_cert(leaf, chain, &name, &[], UnixTime::now());
            verified.is_ok().then(|| verifier.by_proxy.is_set())
        };
        let good = leaf(&ours, "localhost");
        assert_eq!(check(&good, &ours.certificate, true), Some(false));
        let proxied = leaf(&proxys, "localhost");
        assert_eq!(check(&proxied, &proxys.certificate, true), Some(true));
        assert_eq!(check(&proxied, &proxys.certificate, false), None, "the owner named none");
        assert_eq!(check(&leaf(&proxys, "elsewhere"), &proxys.certificate, true), None, "another name");
        assert_eq!(check(&leaf(&others, "localhost"), &others.certificate, true), None, "another CA");
        assert_eq!(check(&proxied, &ours.certificate, true), None, "our CA beside it is no excuse");
    }
}
