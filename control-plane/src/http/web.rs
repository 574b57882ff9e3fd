//! The dashboard's page, as the build found it in `web/dist`: nothing is read from the disk while the
//! plane runs. Where it was not built, a page says how to.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use muster_shared::DeviceId;

use super::error::{ApiError, ApiPath};
use crate::plane::Plane;

/// What a browser may load and run for this page: what came from here, nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Names under `/assets/` hold a digest of what they name.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Everything else is asked for again.
const ASK_AGAIN: &str = "no-cache";

/// A page for a plane that was built without one.
const NOT_BUILT: &str = include_str!("not_built.html");

/// One file of the page.
struct File {
    path: &'static str,
    kind: &'static str,
    plain: &'static [u8],
    gzip: Option<&'static [u8]>,
    brotli: Option<&'static [u8]>,
}

// `static FILES: &[File]`, written by build.rs.
include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// The page; it needs no session, what it shows does.
pub fn routes() -> Router<Arc<Plane>> {
    Router::new()
        .route("/", get(async |headers: HeaderMap| index(FILES, &headers)))
        .route("/d/{device}", get(device))
        .route("/favicon.svg", get(file))
        .route("/assets/{name}", get(file))
}

fn index(files: &'static [File], headers: &HeaderMap) -> Response {
    match files.iter().find(|file| file.path == "/index.html") {
        Some(index) => answer(index, headers),
        None => {
            let mut response = (StatusCode::NOT_FOUND, NOT_BUILT).into_response();
            decorate(&mut response, "text/html; charset=utf-8", ASK_AGAIN);
            response
        }
    }
}

/// The address on a device's label: it leads to the device's page.
async fn device(ApiPath(id): ApiPath<DeviceId>) -> Redirect {
    Redirect::to(&format!("/#/devices/{id}"))
}

async fn file(uri: Uri, headers: HeaderMap) -> Response {
    match FILES.iter().find(|file| file.path == uri.path()) {
        Some(file) => answer(file, &headers),
        None => ApiError::not_found("file", &uri.path()).hint("load the page again: it was replaced").into_response(),
    }
}

fn answer(file: &'static File, headers: &HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (bytes, encoding) = match (file.brotli, file.gzip) {
        (Some(brotli), _) if accepts(accepted, "br") => (brotli, Some("br")),
        (_, Some(gzip)) if accepts(accepted, "gzip") => (gzip, Some("gzip")),
        _ => (file.plain, None),
    };
    let mut response = bytes.into_response();
    let caching = if file.path.starts_with("/assets/") { FOR_EVER } else { ASK_AGAIN };
    decorate(&mut response, file.kind, caching);
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(encoding) = encoding {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

/// Whether `Accept-Encoding` names this one, and not to refuse it.
fn accepts(accepted: &str, encoding: &str) -> bool {
    accepted.split(',').any(|item| {
        let (name, quality) = item.split_once(';').unwrap_or((item, ""));
        let refused = quality.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case(encoding) && !refused
    })
}

fn decorate(response: &mut Response, kind: &'static str, caching: &'static str) {
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, caching),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PAGE: [File; 2] = [
        File { path: "/index.html", kind: "text/html", plain: b"plain", gzip: Some(b"gzip"), brotli: Some(b"brotli") },
        File { path: "/assets/a-1.js", kind: "text/javascript", plain: b"js", gzip: None, brotli: None },
    ];

    fn asked(encodings: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(encodings))])
    }

    #[test]
    fn the_smallest_form_that_the_browser_takes_is_sent() {
        for (encodings, encoding) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("gzip, br;q=0", Some("gzip")),
            ("gzip;q=0.5", Some("gzip")),
            ("identity", None),
            ("", None),
        ] {
            let response = index(&PAGE, &asked(encodings));
            let sent = response.headers().get(header::CONTENT_ENCODING).map(|value| value.to_str().expect("text"));
            assert_eq!(sent, encoding, "{encodings}");
            assert_eq!(response.headers()[header::CACHE_CONTROL], ASK_AGAIN);
            assert!(!POLICY.contains("unsafe"));
        }
        assert_eq!(answer(&PAGE[1], &HeaderMap::new()).headers()[header::CACHE_CONTROL], FOR_EVER);
    }

    #[tokio::test]
    async fn a_label_leads_to_its_device() {
        let response = device(ApiPath("edge-1".parse().expect("a name"))).await.into_response();
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        assert_eq!(response.headers()[header::LOCATION], "/#/devices/edge-1");
    }

    #[test]
    fn a_plane_without_a_page_says_how_to_build_it() {
        let response = index(&[], &HeaderMap::new());
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
        assert!(NOT_BUILT.contains("cargo xtask web"));
    }
}
