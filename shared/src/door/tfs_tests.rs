use super::*;

fn check(method: &str, path: &str) -> String {
    match TfsRequest::parse(method, path) {
        Ok(TfsRequest { model, choice, verb }) => {
            let choice = match choice {
                VersionChoice::Latest => "latest".to_owned(),
                VersionChoice::Version(version) => format!("version {version}"),
                VersionChoice::Label(label) => format!("label {label}"),
            };
            format!("{verb:?} {model}, {choice}")
        }
        Err(error) => format!("{}: {error}", error.status),
    }
}

const RESERVED: &str = "%21%23%24%25%26%27%28%29%2A%2B%2C%2F%3A%3B%3D%3F%40%5B%5D";

/// The paths of TF Serving's `HttpRestApiUtilTest.TestParseModelInfoForGet` and `…ForPost` and of
/// `HttpRestApiHandlerTest.UnsupportedApiCalls`, then what its regular expressions say beside them.
#[test]
fn paths_are_read_as_tf_serving_reads_them() {
    let get = [
        ("/v1/models/modelname/versions/99", "Status modelname, version 99"),
        ("/v1/models/modelname/labels/latest", "Status modelname, label latest"),
        ("/v1/models/modelname/labels/latest/metadata", "Metadata modelname, label latest"),
        ("/v1/models/foo:predict", "400: Malformed request: GET /v1/models/foo:predict"),
        ("/v1/models/foo/version/50:predict", "400: Malformed request: GET /v1/models/foo/version/50:predict"),
        ("/v1/foo", "400: Malformed request: GET /v1/foo"),
        ("/v1/models", "400: Missing model name in request."),
        ("/v1/models/debug/model_name", "400: Malformed request: GET /v1/models/debug/model_name"),
        // Beside them.
        ("/v1/models/m", "Status m, latest"),
        ("/V1/Models/M/Versions/2", "Status M, version 2"),
        ("/v1/models/m/LABELS/Canary/metadata", "Metadata m, label Canary"),
        ("/v1/models/m/metadata", "Metadata m, latest"),
        ("/v1/models/m/METADATA", "Status m, latest"),
        ("/v1/models/m/versions/3/metadata", "Metadata m, version 3"),
        ("/v1/models/m?verbose=1", "Status m, latest"),
        ("/v1/models/", "400: Malformed request: GET /v1/models/"),
        ("/v1/models/m/", "400: Malformed request: GET /v1/models/m/"),
        ("/v1/models//versions/1", "400: Malformed request: GET /v1/models//versions/1"),
        ("/v1/models/versions/1", "400: Missing model name in request."),
        ("/v1/models/labels/a/metadata", "400: Missing model name in request."),
        ("/v1/models/metadata", "Status metadata, latest"),
        ("/v1/models/labels/metadata", "Metadata labels, latest"),
        ("/v1/models/labels/labels/a", "Status labels, label a"),
        ("/v1/models/m/versions/", "400: Malformed request: GET /v1/models/m/versions/"),
        ("/v1/models/m/versions/-1", "400: Malformed request: GET /v1/models/m/versions/-1"),
        ("/v1/models/m/versions/1/labels/a", "400: Malformed request: GET /v1/models/m/versions/1/labels/a"),
        ("/v1/models/m/labels/a/versions/1", "400: Malformed request: GET /v1/models/m/labels/a/versions/1"),
        ("/v1/models/m/versions/1/x", "400: Malformed request: GET /v1/models/m/versions/1/x"),
        ("/v1/models/m/versions/0", "404: Could not find version 0 of model m"),
        ("/v1/models/m/versions/0/metadata", "404: Servable not found for request: Specific(m, 0)"),
        ("/v1/models/m/versions/007", "Status m, version 7"),
        ("/v1/models/m/versions/9223372036854775807", "Status m, version 9223372036854775807"),
        (
            "/v1/models/m/versions/9223372036854775808",
            "400: Failed to convert version: 9223372036854775808 to numeric.",
        ),
        ("/v1/models/a%2", "Status a%2, latest"),
        ("/v1/models/%zz%C3%BC", "Status %zzü, latest"),
        ("/v1/models/%FF", "Status \u{fffd}, latest"),
        ("/statuspage", "404: Not found: GET /statuspage"),
        ("/index", "404: Not found: GET /index"),
        ("/v1", "404: Not found: GET /v1"),
        ("", "404: Not found: GET "),
        ("/v1ü", "404: Not found: GET /v1ü"),
    ];
    for (path, expected) in get {
        assert_eq!(check("GET", path), expected, "{path}");
    }
    let post = [
        ("/v1/models/modelname/versions/99:predict", "Predict modelname, version 99"),
        ("/v1/models/modelname/labels/latest:predict", "Predict modelname, label latest"),
        ("/v1/foo", "400: Malformed request: POST /v1/foo"),
        ("/v1/models", "400: Malformed request: POST /v1/models"),
        ("/v1/models/foo/version/50:predict", "400: Malformed request: POST /v1/models/foo/version/50:predict"),
        ("/v1/models/foo/version/50:regress", "400: Malformed request: POST /v1/models/foo/version/50:regress"),
        ("/v1/models/foo/versions/HELLO:regress", "400: Malformed request: POST /v1/models/foo/versions/HELLO:regress"),
        (
            "/v1/models/foo/versions/18446744073709551615:regress",
            "400: Failed to convert version: 18446744073709551615 to numeric.",
        ),
        ("/v1/models/foo/metadata", "400: Malformed request: POST /v1/models/foo/metadata"),
        (
            "/v1/models/foo/label/some_label:regress",
            "400: Malformed request: POST /v1/models/foo/label/some_label:regress",
        ),
        (
            "/v1/models/foo/versions/50/labels/some_label:regress",
            "400: Malformed request: POST /v1/models/foo/versions/50/labels/some_label:regress",
        ),
        // Beside them.
        ("/v1/models/m:classify", "Classify m, latest"),
        ("/v1/models/m:regress", "Regress m, latest"),
        ("/V1/MODELS/m/VERSIONS/1:predict", "Predict m, version 1"),
        ("/v1/models/m:PREDICT", "400: Malformed request: POST /v1/models/m:PREDICT"),
        ("/v1/models/m:explain", "400: Malformed request: POST /v1/models/m:explain"),
        ("/v1/models/m:predict:predict", "400: Malformed request: POST /v1/models/m:predict:predict"),
        ("/v1/models/m:predict/", "400: Malformed request: POST /v1/models/m:predict/"),
        ("/v1/models/:predict", "400: Malformed request: POST /v1/models/:predict"),
        ("/v1/models/m/labels/:predict", "400: Malformed request: POST /v1/models/m/labels/:predict"),
        ("/v1/models/m", "400: Malformed request: POST /v1/models/m"),
        ("/v1/models/m/versions/0:predict", "404: Servable not found for request: Specific(m, 0)"),
        ("/statuspage", "404: Not found: POST /statuspage"),
    ];
    for (path, expected) in post {
        assert_eq!(check("POST", path), expected, "{path}");
    }
    for method in ["PUT", "DELETE", "HEAD", "get", ""] {
        assert_eq!(check(method, "/v1/models/m"), format!("400: Malformed request: {method} /v1/models/m"));
    }
}

/// As `HttpRestApiUtilTest` has them.
#[test]
fn names_may_hold_reserved_letters_if_they_are_encoded() {
    let letters = "!#$%&'()*+,/:;=?@[]";
    for (method, path, expected) in [
        ("GET", format!("/v1/models/modelname{RESERVED}"), format!("Status modelname{letters}, latest")),
        (
            "GET",
            format!("/v1/models/modelname/labels/latest{RESERVED}"),
            format!("Status modelname, label latest{letters}"),
        ),
        (
            "GET",
            format!("/v1/models/modelname{RESERVED}/labels/latest{RESERVED}/metadata"),
            format!("Metadata modelname{letters}, label latest{letters}"),
        ),
        ("POST", format!("/v1/models/modelname{RESERVED}:predict"), format!("Predict modelname{letters}, latest")),
        (
            "POST",
            format!("/v1/models/modelname/labels/latest{RESERVED}:predict"),
            format!("Predict modelname, label latest{letters}"),
        ),
        (
            "POST",
            format!("/v1/models/modelname{RESERVED}/labels/latest{RESERVED}:predict"),
            format!("Predict modelname{letters}, label latest{letters}"),
        ),
    ] {
        assert_eq!(check(method, &path), expected, "{path}");
    }
}

#[test]
fn what_is_not_there_is_said_in_tf_servings_words() {
    for (method, path, expected) in [
        ("GET", "/v1/models/m", "404: Could not find any versions of model m"),
        ("GET", "/v1/models/m/labels/a", "404: Could not find any versions of model m"),
        ("GET", "/v1/models/m/versions/5", "404: Could not find version 5 of model m"),
        ("GET", "/v1/models/m/metadata", "404: Servable not found for request: Latest(m)"),
        ("POST", "/v1/models/m:predict", "404: Servable not found for request: Latest(m)"),
        ("POST", "/v1/models/m/versions/5:predict", "404: Servable not found for request: Specific(m, 5)"),
        ("POST", "/v1/models/m/labels/a:predict", "400: Unrecognized servable version label: a"),
    ] {
        let error = TfsRequest::parse(method, path).map(|request| request.not_served());
        let error = error.expect(path);
        assert_eq!(format!("{}: {error}", error.status), expected, "{path}");
    }
}

/// `MakeJsonFromTensors.StatusError`.
#[test]
fn an_error_is_laid_out_as_tf_serving_lays_it_out() {
    assert_eq!(TfsError::invalid("Bad key: \"key\"").body(), "{\n    \"error\": \"Bad key: \\\"key\\\"\"\n}");
    assert_eq!(TfsError::invalid("Bad key: 'key'").body(), "{\n    \"error\": \"Bad key: 'key'\"\n}");
}

proptest::proptest! {
    #[test]
    fn no_path_is_too_strange(method in "GET|POST|X", path in "(/v1/models)?[/a-zA-Z0-9:%?ü]{0,40}|\\PC{0,40}") {
        let _ = TfsRequest::parse(&method, &path);
    }
}
