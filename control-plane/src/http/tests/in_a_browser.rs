//! A browser's way in: password, cookie, stream.

use futures_util::StreamExt;

use super::*;

/// Logs in as a browser does; gives back the cookie.
async fn log_in(client: &Client, password: &str) -> (Answer, String) {
    let body = json!({ "user": "admin", "password": password });
    let request = Request::post("/api/v1/session").header(header::CONTENT_TYPE, "application/json");
    let answer = client.raw(request.body(Body::from(body.to_string())).expect("a request")).await;
    let cookie = answer.headers.get(header::SET_COOKIE).map(|value| value.to_str().expect("text").to_owned());
    let cookie = cookie.unwrap_or_default().split(';').next().unwrap_or_default().to_owned();
    (answer, cookie)
}

fn with_cookie(method: Method, path: &str, cookie: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::COOKIE, cookie).header(header::HOST, "muster.test")
}

#[tokio::test]
async fn a_session_does_what_a_token_does_and_ends() {
    let client = Client::start().await;
    let password = session::draw_admin_password(&client.plane, false).await.expect("draws").expect("the first");
    assert!(session::draw_admin_password(&client.plane, false).await.expect("asks").is_none());
    let (wrong, none) = log_in(&client, "not the password").await;
    assert_eq!((wrong.status, none.as_str()), (401, ""));
    assert_eq!(wrong.problem().detail, "the user name or the password is wrong");
    let (right, cookie) = log_in(&client, &password).await;
    assert_eq!((right.status, right.json()), (200, json!({"user": "admin"})));
    let sent = right.headers[header::SET_COOKIE].to_str().expect("text");
    assert!(sent.contains("; HttpOnly; SameSite=Strict; Path=/; ") && sent.ends_with("; Secure"), "{sent}");
    let empty = |request: axum::http::request::Builder| request.body(Body::empty()).expect("a request");
    for (path, status) in [("/api/v1/session", 200), ("/api/v1/devices", 200), ("/metrics", 200)] {
        assert_eq!(client.raw(empty(with_cookie(Method::GET, path, &cookie))).await.status, status, "{path}");
    }
    // A change needs JSON and an origin of ours: another site's page can send neither.
    let cordon = || with_cookie(Method::POST, "/api/v1/devices/edge-1/cordon", &cookie);
    let json = "application/json";
    let own = cordon().header(header::CONTENT_TYPE, json).header(header::ORIGIN, "https://muster.test");
    let foreign = cordon().header(header::CONTENT_TYPE, json).header(header::ORIGIN, "https://example.org");
    let form = cordon().header(header::CONTENT_TYPE, "text/plain");
    for (request, status) in [(cordon(), 415), (form, 415), (foreign, 403), (own, 404)] {
        assert_eq!(client.raw(empty(request)).await.problem().status, status);
    }
    let out = with_cookie(Method::DELETE, "/api/v1/session", &cookie).header(header::CONTENT_TYPE, json);
    let out = client.raw(empty(out)).await;
    assert!(out.status == 204 && out.headers[header::SET_COOKIE].to_str().is_ok_and(|it| it.contains("Max-Age=0")));
    assert_eq!(client.raw(empty(with_cookie(Method::GET, "/api/v1/session", &cookie))).await.status, 401);
}

#[tokio::test]
async fn guesses_are_limited_and_a_password_can_be_changed() {
    let client = Client::start().await;
    let password = session::draw_admin_password(&client.plane, false).await.expect("draws").expect("the first");
    let (_, cookie) = log_in(&client, &password).await;
    let (_, other) = log_in(&client, &password).await;
    let change = async |current: &str, next: &str| {
        let body = json!({ "current": current, "next": next }).to_string();
        let request = with_cookie(Method::PUT, "/api/v1/password", &cookie);
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body));
        client.raw(request.expect("a request")).await.status
    };
    assert_eq!(change("wrong", "correct horse battery").await, 401);
    assert_eq!(change(&password, "too short").await, 422);
    assert_eq!(change(&password, "correct horse battery").await, 204);
    let alive = async |cookie: &str| {
        let request = with_cookie(Method::GET, "/api/v1/session", cookie).body(Body::empty());
        client.raw(request.expect("a request")).await.status
    };
    assert_eq!((alive(&cookie).await, alive(&other).await), (200, 401), "other sessions end");
    assert_eq!(log_in(&client, &password).await.0.status, 401);
    assert_eq!(log_in(&client, "correct horse battery").await.0.status, 200);
    let mut seen = vec![];
    for _ in 0..12 {
        seen.push(log_in(&client, "guess").await.0.status);
    }
    assert_eq!((seen[0], seen[11]), (401, 429), "{seen:?}");
    assert_eq!(log_in(&client, "correct horse battery").await.0.status, 429, "not even the right one");
}

#[tokio::test]
async fn the_stream_begins_with_everything_and_goes_on_with_changes() {
    let client = Client::start().await;
    client.send(Method::PUT, "/api/v1/deployments/a", Some(deployment("a", 1))).await;
    let request = Request::get("/api/v1/feed").header(header::AUTHORIZATION, format!("Bearer {}", client.token));
    let request = request.body(Body::empty()).expect("a request");
    let response = client.router.clone().oneshot(request).await.expect("infallible");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let mut next = async || {
        let bytes = stream.next().await.expect("a message").expect("no error");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
        (field("event: "), field("id: "), serde_json::from_str::<Value>(&field("data: ")).expect("JSON"))
    };
    let (event, id, snapshot) = next().await;
    assert_eq!((event.as_str(), id.as_str()), ("snapshot", "0"));
    assert_eq!(snapshot["deployments"][0]["resource"]["metadata"]["name"], "a");
    client.send(Method::PUT, "/api/v1/deployments/a", Some(deployment("a", 2))).await;
    let (event, id, change) = next().await;
    assert_eq!((event.as_str(), id.as_str()), ("change", "1"));
    assert_eq!(change["deployments"][0]["resource"]["spec"]["replicas"], 2);
    client.send(Method::DELETE, "/api/v1/deployments/a", None).await;
    assert_eq!(next().await.2["deploymentsGone"], json!(["a"]));
    client.plane.stop.cancel();
    assert!(stream.next().await.is_none(), "the plane stops and lets its readers go");
    let mut page = client.raw(Request::get("/").body(Body::empty()).expect("a request")).await;
    assert!(page.headers.remove(header::CONTENT_SECURITY_POLICY).is_some());
}
