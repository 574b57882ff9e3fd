//! Where a control plane is: only where a token may be sent.

use reqwest::Url;

use crate::client::ClientError;

/// The URL of a control plane: https anywhere, http on loopback.
pub fn parse(text: &str) -> Result<Url, ClientError> {
    let bad = |why: &'static str| ClientError::BadUrl { text: text.chars().take(200).collect(), why };
    let url = Url::parse(text).map_err(|_| bad("it does not parse"))?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err(bad("plain http is for loopback only")),
        _ => return Err(bad("the scheme is neither https nor http")),
    }
    if !url.has_host() {
        return Err(bad("it has no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("it carries a user or a password"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(bad("something follows the port"));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A URL as contexts store it.
pub fn origin(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_https_or_loopback_only() {
        for good in
            ["https://plane:8443", "https://plane/", "http://127.0.0.1:80", "http://[::1]:1", "http://localhost"]
        {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in
            ["plane:8443", "http://plane", "http://10.0.0.1", "ftp://plane", "https://u:p@plane", "https://plane/x", ""]
        {
            assert!(matches!(parse(bad), Err(ClientError::BadUrl { .. })), "{bad}");
        }
    }
}
