//! A new fleet from login to prediction, against a control plane that only remembers.

mod common;

use common::plane::{CODE, Plane};
use common::{Desk, fixture};
use muster_shared::Digest;
use muster_shared::claim::ClaimToken;

#[track_caller]
fn login(desk: &Desk, plane: &Plane) {
    desk.ok(&["login", &plane.url, "--ca-fingerprint", &plane.ca.to_string(), "--code", CODE]);
}

fn pack(desk: &Desk, key: &str) -> String {
    let bundle = desk.path("digits.bundle").display().to_string();
    let (model, golden) = (fixture("digits/v1/model.onnx"), fixture("digits/v1/golden.json"));
    let args = ["pack", &model, "--name", "digits", "--version", "1", "--golden", &golden, "--key", key, "-o", &bundle];
    desk.ok(&args);
    bundle
}

fn publisher_key(desk: &Desk) -> String {
    desk.path("home/keys/home/publisher.pem").display().to_string()
}

#[test]
fn login_believes_the_pinned_ca_only() {
    let (desk, plane) = (Desk::new(), Plane::start());
    let (url, ca, other) = (plane.url.as_str(), plane.ca.to_string(), Digest::of("another").to_string());
    let login = |ca: &str, code: &str, error: &str, hint: &str| {
        desk.refused(&["login", url, "--ca-fingerprint", ca, "--code", code], error, hint);
    };
    login(&other, CODE, "is not from the pinned CA", "compare the fingerprint");
    login(&ca, "wrong", "the code is wrong or spent", "restart with --new-code");
    desk.refused(&["login", url, "--ca-fingerprint", &ca], "no code is given", "--code");
    assert!(!desk.path("home/contexts.toml").exists(), "nothing is stored before it worked");
    let said = desk.ok(&["login", url, "--ca-fingerprint", &ca, "--code", CODE]);
    assert!(said.contains("as admin") && said.contains("\"127.0.0.1\""), "{said}");
    assert_eq!(desk.json(&["whoami", "-o", "json"])["user"], "admin");
}

#[test]
fn keys_init_signs_uploads_and_pins_one_root() {
    let (desk, plane) = (Desk::new(), Plane::start());
    login(&desk, &plane);
    desk.refused(&["claim", "new"], "no root is pinned", "muster keys init");
    plane.break_down_once();
    desk.refused(&["keys", "init"], "cannot upload the root", "run `muster keys init` again");
    let signed = std::fs::read(desk.path("home/keys/home/root-1.json")).expect("root 1");
    let made = desk.json(&["keys", "init", "-o", "json"]);
    assert_eq!(std::fs::read(desk.path("home/keys/home/root-1.json")).expect("root 1"), signed, "it goes on");
    assert_eq!(made["directors"][0], Plane::director().public().to_string());
    assert_eq!(desk.json(&["keys", "init", "-o", "json"]), made, "a second run changes nothing");
    assert_eq!(desk.json(&["keys", "show", "-o", "json"]), made);
    let trust = desk.json(&["trust", "show", "-o", "json"]);
    assert_eq!(
        (&trust["digest"], &trust["fleet"], &trust["version"]),
        (&made["rootDigest"], &"home".into(), &1.into())
    );

    let printed = desk.ok(&["claim", "new", "--label", "site=north"]);
    let token: ClaimToken = printed.parse().expect("the token alone");
    assert_eq!(serde_json::json!(token.root), made["rootDigest"]);
    assert_eq!((token.ca, token.id), (plane.ca, [1, 2, 3, 4, 5, 6, 7, 8]));
    let file = desk.path("claim").display().to_string();
    assert_eq!(desk.ok(&["claim", "new", "-o", &file]), "");
    assert!(std::fs::read_to_string(&file).expect("a token").parse::<ClaimToken>().is_ok());
    assert!(desk.ok(&["get", "claims"]).contains("0102030405060708"));

    // The root key is moved away, as advised: showing still works.
    std::fs::remove_file(desk.path("home/keys/home/root.pem")).expect("removes");
    assert!(desk.ok(&["keys", "show"]).contains("not here"));
}

#[test]
fn a_second_person_pins_the_root_by_its_digest() {
    let (desk, plane) = (Desk::new(), Plane::start());
    login(&desk, &plane);
    let digest = desk.json(&["keys", "init", "-o", "json"])["rootDigest"].as_str().expect("a digest").to_owned();

    let second = Desk::new();
    let ca = plane.ca.to_string();
    let base = ["login", &plane.url, "--ca-fingerprint", &ca, "--code", CODE];
    second.refused(&base, &digest, "--root-digest");
    let other = Digest::of("another root").to_string();
    second.refused(&[&base[..], &["--root-digest", &other]].concat(), "has the digest", "not the fleet");
    second.ok(&[&base[..], &["--root-digest", &digest]].concat());
    assert_eq!(second.json(&["trust", "show", "-o", "json"])["digest"], digest.as_str());
    // What was pinned once is not asked for again.
    second.ok(&base);
    Desk::new().ok(&[&base[..], &["--trust-root-on-first-use"]].concat());

    // Keys of another fleet cannot take over.
    desk.refused(&["keys", "init", "--fleet", "away"], "has a root already", "--dir");
    second.refused(&["keys", "init"], "has a root already", "--dir");
    assert!(!second.path("home/keys").exists(), "no stray keys are made");
}

#[test]
fn a_bundle_is_pushed_once() {
    let (desk, plane) = (Desk::new(), Plane::start());
    login(&desk, &plane);
    let strange = pack(&desk, &desk.strange_key());
    desk.refused(&["push", &strange], "no root is pinned", "muster keys init");
    desk.ok(&["keys", "init"]);
    desk.refused(&["push", &strange], "no publisher", "muster trust show");
    assert!(plane.blobs().is_empty());

    let bundle = pack(&desk, &publisher_key(&desk));
    let said = desk.ok(&["push", &bundle]);
    assert!(said.starts_with("bundle digits 1 pushed: 2 files"), "{said}");
    let model = std::fs::read(fixture("digits/v1/model.onnx")).expect("the model");
    assert_eq!(plane.blobs().get(&Digest::of(&model)), Some(&model.len()));
    assert_eq!(desk.ok(&["push", &bundle]), "bundle digits 1 was there already\n");
    let inspected = desk.ok(&["inspect", &bundle]);
    assert!(inspected.contains("a publisher of fleet home, root 1"), "{inspected}");
    assert!(desk.ok(&["inspect", &pack(&desk, &desk.strange_key())]).contains("NOT a publisher"));
    assert!(desk.ok(&["get", "bundles", "-o", "wide"]).contains("x f32[?, 64]"));
    assert!(desk.ok(&["describe", "bundle", "digits/1"]).contains("complete"));
    desk.refused(&["get", "bundle", "digits/2"], "there is no bundle \"digits/2\"", "muster get bundles");
}

#[test]
fn deployments_come_change_and_go() {
    let (desk, plane) = (Desk::new(), Plane::start());
    login(&desk, &plane);
    let yaml = "apiVersion: muster.dev/v1\nkind: Deployment\nmetadata: {name: digits}\nspec: {model: digits}\n";
    let file = desk.write("digits.yaml", yaml);
    assert_eq!(desk.ok(&["apply", "-f", &file]), "deployment digits created\n");
    assert_eq!(desk.ok(&["apply", "-f", &file]), "deployment digits unchanged\n");
    let two = desk.write(
        "two.yaml",
        &format!(
            "{}---\n{}",
            yaml.replace("model: digits", "model: digits, version: 2"),
            yaml.replace("name: digits", "name: other")
        ),
    );
    assert_eq!(desk.ok(&["apply", "-f", &two]), "deployment digits configured\ndeployment other created\n");

    let table = desk.ok(&["get", "deploy"]);
    assert_eq!(table.lines().next(), Some("NAME     MODEL    VERSION   READY   ROLLOUT   DEVICES   STATUS"));
    assert!(table.contains("digits   digits   1         1/1     -         -         Serving"), "{table}");
    let yaml = desk.ok(&["get", "deployments", "-o", "yaml"]);
    let again = desk.muster_reading(&yaml, &["apply", "-f", "-"]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), "deployment digits unchanged\ndeployment other unchanged\n");
    assert_eq!(desk.json(&["get", "deployment", "digits", "-o", "json"])["spec"]["version"], 2);
    assert!(desk.ok(&["describe", "deployment", "digits"]).contains("1 of 1 replicas"));

    assert_eq!(desk.ok(&["delete", "deployment", "other"]), "deployment other deleted\n");
    desk.refused(&["delete", "deployment", "other"], "no such deployment", "look again");
    desk.refused(&["get", "deployment", "other"], "there is no deployment \"other\"", "muster get deployments");
}

#[test]
fn devices_events_and_predictions_are_shown() {
    let (desk, plane) = (Desk::new(), Plane::start());
    login(&desk, &plane);
    assert!(desk.ok(&["get", "devices", "-o", "wide"]).contains("site=north"));
    let device = desk.ok(&["describe", "device", "edge-1"]);
    assert!(device.contains("digits Serving: -, 1.50 ms and 1.00 MiB measured, restarted 2 times"), "{device}");
    let events = desk.ok(&["get", "events", "digits"]);
    assert!(events.ends_with("digits 1 serves\n") && !events.contains("agent 0.1.0"), "{events}");

    let data = desk.write("rows.json", "[[1.0], [2.0]]");
    assert_eq!(desk.ok(&["predict", "digits", "--data", &format!("@{data}")]), "{\"predictions\":[7,7]}\n");
    let json = desk.json(&["predict", "digits", "--data", "{\"instances\": [[1]]}", "-o", "json"]);
    assert_eq!(json, serde_json::json!({"device": "edge-1", "version": 3, "answer": {"predictions": [7]}}));
    desk.refused(&["predict", "other", "--data", "[[1]]"], "Servable not found", "muster get deployments");
}

#[test]
fn a_watcher_sees_what_changes_until_it_is_interrupted() {
    let (desk, plane) = (Desk::new(), Plane::start());
    login(&desk, &plane);
    let yaml = "apiVersion: muster.dev/v1\nkind: Deployment\nmetadata: {name: digits}\nspec: {model: digits}\n";
    let file = desk.write("digits.yaml", yaml);
    let out = std::fs::File::create(desk.path("out")).expect("a file");
    let mut watcher = std::process::Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["get", "deployments", "--watch", "-o", "json"])
        .env("MUSTER_HOME", desk.path("home"))
        .stdout(out)
        .spawn()
        .expect("starts");
    desk.ok(&["apply", "-f", &file]);
    let seen = |words: &str| {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::time::Instant::now() < until {
            if std::fs::read_to_string(desk.path("out")).is_ok_and(|text| text.contains(words)) {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        false
    };
    let appeared = seen("\"name\":\"digits\"");
    let id = watcher.id().to_string();
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -INT {id}")]).status();
    let ended = watcher.wait().expect("ends");
    assert!(appeared, "the new deployment is printed");
    assert!(sent.is_ok_and(|status| status.success()) && ended.success(), "Ctrl-C ends it well: {ended}");
}
