//! What can be wrong between a device and its control plane, named so that a person at the console, a program
//! and the choice of the next way all mean the same.

use std::io;

use rustls::{CertificateError, InvalidMessage};

use crate::status::ErrorKind;

/// What is wrong, as far as it decides what is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A name has no address, or nobody answers for names.
    Dns,
    /// The other side says no, hangs up, or there is no way to it.
    Refused,
    /// No answer in time.
    Timeout,
    /// TLS fails for another reason than those below.
    Tls,
    /// The server's certificate is not good at this time.
    ServerTime,
    /// The server does not take our certificate: expired, or not of its authority.
    Certificate,
    /// It knows who this is and does not let it in.
    NotLetIn,
    /// The proxy does not do what it is asked to.
    Proxy,
    /// Something else answers in the server's place: a login page of this network, or a proxy that ends TLS.
    Captive,
}

impl Cause {
    /// Whether another way to the same control plane may do better.
    pub fn is_of_the_way(self) -> bool {
        match self {
            Self::Dns | Self::Refused | Self::Timeout | Self::Tls | Self::Proxy | Self::Captive => true,
            Self::ServerTime | Self::Certificate | Self::NotLetIn => false,
        }
    }

    /// As the status says it.
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Dns => ErrorKind::Dns,
            Self::Refused => ErrorKind::Refused,
            Self::Timeout => ErrorKind::Timeout,
            Self::Tls | Self::Certificate => ErrorKind::Tls,
            Self::ServerTime => ErrorKind::Time,
            Self::NotLetIn => ErrorKind::NotLetIn,
            Self::Proxy => ErrorKind::Proxy,
            Self::Captive => ErrorKind::Captive,
        }
    }
}

/// What went wrong on one way, in words with the next move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// What kind of thing.
    pub cause: Cause,
    /// For a person.
    pub text: String,
}

impl Fault {
    /// A fault.
    pub fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self { cause, text: text.into() }
    }

    /// The same, with what was attempted in front.
    pub fn at(self, what: &str) -> Self {
        Self { text: format!("{what}: {}", self.text), ..self }
    }

    /// From an error of a socket or of TLS on it.
    pub fn of_io(error: &io::Error) -> Self {
        match tls_cause(error) {
            Some(tls) => Self::of_tls(tls),
            None => {
                let cause = match error.kind() {
                    io::ErrorKind::TimedOut => Cause::Timeout,
                    _ => Cause::Refused,
                };
                Self::new(cause, error.to_string())
            }
        }
    }

    /// From an error of TLS.
    pub fn of_tls(error: &rustls::Error) -> Self {
        let (cause, next) = match error {
            rustls::Error::InvalidCertificate(why) if is_of_time(why) => {
                let next = "its certificate ran out before the time that this device is sure of: restart the control \
                            plane, which makes a new one";
                (Cause::ServerTime, next)
            }
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                let next = "it does not show the CA that this device pins: a login page of this network or a proxy \
                            that ends TLS answers in its place, or the URL is of another server; check the URL; if \
                            the control plane has a new CA, make a new claim with `muster claim new`; if it is your \
                            proxy, name its CA in agent.toml: `[network] proxy-ca`";
                (Cause::Captive, next)
            }
            rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
                let next = "it shows the CA that this device pins beside a certificate of somebody else: check the \
                            URL; if the control plane has a new CA, make a new claim with `muster claim new`";
                (Cause::Tls, next)
            }
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => {
                let next = "its certificate is not for this name: start the control plane with `--name` and the name \
                            in the URL";
                (Cause::Tls, next)
            }
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                let next = "what answers there does not speak TLS: a login page of this network (a captive portal) \
                            answers in its place; log in to the network with a browser, or ask whoever runs it";
                (Cause::Captive, next)
            }
            rustls::Error::AlertReceived(alert) if is_about_our_certificate(*alert) => {
                return Self::new(
                    Cause::Certificate,
                    format!("{error:?}: the server does not take this device's certificate; a new one is asked for"),
                );
            }
            _ => return Self::new(Cause::Tls, error.to_string()),
        };
        Self::new(cause, next)
    }
}

/// An alert about the certificate that we showed: expired, or not (or no longer) one that it knows. A renewal
/// may help.
fn is_about_our_certificate(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription::{
        BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown, UnknownCA, UnsupportedCertificate,
    };
    [BadCertificate, CertificateExpired, CertificateRevoked, CertificateUnknown, UnknownCA, UnsupportedCertificate]
        .contains(&alert)
}

fn is_of_time(why: &CertificateError) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(why, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

/// The TLS error behind an error, if there is one.
pub fn tls_cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        cause = match error.downcast_ref::<io::Error>() {
            // An I/O error hides the error that it is made of: its source is that one's source.
            Some(io) => io.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;

    use super::*;

    #[test]
    fn what_ends_a_connection_is_named() {
        let tls = |error: rustls::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let alert = |alert| tls(rustls::Error::AlertReceived(alert));
        let certificate = |why| tls(rustls::Error::InvalidCertificate(why));
        for (error, expected) in [
            (alert(AlertDescription::CertificateExpired), Cause::Certificate),
            (alert(AlertDescription::UnknownCA), Cause::Certificate),
            (alert(AlertDescription::BadCertificate), Cause::Certificate),
            (alert(AlertDescription::InternalError), Cause::Tls),
            (tls(rustls::Error::DecryptError), Cause::Tls),
            (tls(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)), Cause::Captive),
            (certificate(CertificateError::UnknownIssuer), Cause::Captive),
            (certificate(CertificateError::NotValidForName), Cause::Tls),
            (certificate(CertificateError::Expired), Cause::ServerTime),
            (certificate(CertificateError::NotValidYet), Cause::ServerTime),
            (io::ErrorKind::ConnectionReset.into(), Cause::Refused),
            (io::ErrorKind::NetworkUnreachable.into(), Cause::Refused),
            (io::ErrorKind::TimedOut.into(), Cause::Timeout),
        ] {
            let text = error.to_string();
            assert_eq!(Fault::of_io(&error).cause, expected, "{text}");
            assert_eq!(Fault::of_io(&io::Error::other(error)).cause, expected.for_nested(), "{text}");
        }
    }

    impl Cause {
        /// What is left of a cause inside another error: TLS is found at any depth, kinds of sockets are not.
        fn for_nested(self) -> Self {
            if self == Self::Timeout { Self::Refused } else { self }
        }
    }
}
