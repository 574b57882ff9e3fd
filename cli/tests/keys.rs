//! The keys that rule a fleet: made, kept with a passphrase or in a token, and replaced.

mod common;

use std::process::Command;

use common::plane::{CODE, Plane};
use common::{Desk, fixture};
use muster_shared::manifest::VerifiedManifest;
use muster_shared::root::TrustedRoot;
use muster_shared::signing::key::{PublicKey, SecretKey};
use serde_json::Value;

fn desk(plane: &Plane) -> Desk {
    let desk = Desk::new();
    desk.ok(&["login", &plane.url, "--ca-fingerprint", &plane.ca.to_string(), "--code", CODE]);
    desk
}

/// The newest root, followed from the first.
fn newest(plane: &Plane) -> TrustedRoot {
    let roots = plane.roots();
    let first = TrustedRoot::self_signed(&roots[0]).expect("root 1");
    roots[1..].iter().fold(first, |held, next| held.follow(next).expect("each root follows the one before"))
}

fn key(desk: &Desk, name: &str) -> String {
    desk.path("home/keys/home").join(name).display().to_string()
}

fn public(desk: &Desk, name: &str) -> PublicKey {
    let pem = std::fs::read_to_string(key(desk, name)).expect("a key");
    SecretKey::from_pem(&pem).expect("a plain key").public()
}

fn pack(desk: &Desk, key: &str, more: &[&str]) -> String {
    let bundle = desk.path("digits.bundle").display().to_string();
    let (model, golden) = (fixture("digits/v1/model.onnx"), fixture("digits/v1/golden.json"));
    let args = ["pack", &model, "--name", "digits", "--version", "1", "--golden", &golden, "--key", key, "-o", &bundle];
    desk.ok(&[&args[..], more].concat());
    bundle
}

#[test]
fn each_role_is_replaced_by_a_root_that_follows_and_the_pin_stays() {
    let plane = Plane::start();
    let desk = desk(&plane);
    desk.ok(&["keys", "init"]);
    let pin = desk.json(&["trust", "show", "-o", "json"])["pinned"].clone();
    desk.refused(&["keys", "rotate", "publisher"], "there is no terminal to ask on", "--yes");
    assert_eq!(plane.roots().len(), 1, "nothing was signed");

    // What is said before the signature is what changes.
    let old = public(&desk, "publisher.pem");
    let done = desk.muster(&["keys", "rotate", "publisher", "--compromised", "--yes"]);
    let told = String::from_utf8(done.stderr).expect("UTF-8");
    assert!(done.status.success() && told.contains("new publisher") && told.contains("counts as stolen"), "{told}");
    let root = newest(&plane);
    assert_eq!(root.publishers(), [public(&desk, "publisher-v2.pem")]);
    assert!(root.is_compromised(old.id()));

    desk.ok(&["keys", "rotate", "release", "--yes"]);
    assert_eq!(newest(&plane).root().release.keys, [public(&desk, "release-v3.pem")]);
    desk.ok(&["keys", "rotate", "root", "--yes"]);
    assert_eq!(newest(&plane).root().root.keys, [public(&desk, "root-v4.pem")]);
    // The old root key signs nothing any more: the new one alone does.
    std::fs::remove_file(key(&desk, "root.pem")).expect("moved away");
    desk.ok(&["keys", "rotate", "director", "--compromised", "--new-epoch", "--yes"]);
    let root = newest(&plane);
    assert_eq!((root.directors(), root.root().epoch), (vec![Plane::next_director().public()], 2));
    assert!(root.is_compromised(Plane::director().public().id()));

    let other = desk.ok(&["keys", "new", &desk.path("second.pem").display().to_string()]);
    desk.ok(&["keys", "add", "publisher", other.trim(), "--models", "digits,letters", "--yes"]);
    let named = newest(&plane).root().publishers.last().cloned().expect("a publisher");
    assert_eq!((named.key.to_string(), named.models.map(|models| models.len())), (other.trim().to_owned(), Some(2)));
    desk.refused(&["keys", "add", "release", other.trim(), "--yes"], "has another role already", "keys new");
    desk.ok(&["keys", "remove", "publisher", other.trim(), "--yes"]);
    let before = newest(&plane).root().expires_ms;
    desk.ok(&["keys", "renew", "--for", "1000d", "--yes"]);
    let root = newest(&plane);
    assert!(root.root().expires_ms > before && root.root().version == 8 && root.root().publishers.len() == 1);
    desk.refused(
        &["keys", "remove", "root", &public(&desk, "root-v4.pem").to_string(), "--yes"],
        "0 root keys",
        "add a key",
    );

    let shown = desk.json(&["trust", "show", "-o", "json"]);
    assert_eq!((&shown["pinned"], shown["version"].as_u64()), (&pin, Some(8)));
    let shown = desk.ok(&["keys", "show"]);
    let groups = root.directors()[0].id().to_string();
    assert!(shown.contains(&format!("{} {}", &groups[..4], &groups[4..8])), "{shown}");
    assert!(
        shown.contains("plane's CA") && shown.contains("publisher-v2.pem") && shown.contains("unused key"),
        "{shown}"
    );
}

#[test]
fn two_of_three_people_sign_a_root() {
    let plane = Plane::start();
    let desk = desk(&plane);
    desk.refused(&["keys", "init", "--root-keys", "2", "--threshold", "3"], "cannot be made to sign", "--threshold");
    desk.ok(&["keys", "init", "--root-keys", "3", "--threshold", "2"]);
    assert_eq!((newest(&plane).root().root.threshold, newest(&plane).root().root.keys.len()), (2, 3));
    // Each takes one key away; at the desk where the change is made there is the first.
    let people = Desk::new();
    for number in [2, 3] {
        let name = format!("root-key-{number}.pem");
        std::fs::rename(key(&desk, &name), people.path(&name)).expect("moved away");
    }
    let file = desk.path("root-2.json").display().to_string();
    let made = desk.json(&["keys", "rotate", "publisher", "--yes", "--out", &file, "-o", "json"]);
    assert_eq!((made["uploaded"].as_bool(), made["missing"].as_array().map(Vec::len)), (Some(false), Some(2)));
    desk.refused(&["keys", "push", &file], "needs 1 more of the keys of root 1", "keys sign");
    assert_eq!(plane.roots().len(), 1);
    let strange = people.strange_key();
    people.refused(&["keys", "sign", &file, "--key", &strange, "--yes"], "is no root key", "keys push");
    let third = people.path("root-key-3.pem").display().to_string();
    let signed = people.muster(&["keys", "sign", &file, "--key", &third, "--yes"]);
    let told = String::from_utf8(signed.stderr).expect("UTF-8");
    assert!(signed.status.success() && told.contains("new publisher") && told.contains("compare the root"), "{told}");
    desk.ok(&["keys", "push", &file]);
    assert_eq!(newest(&plane).root().version, 2);
    desk.refused(&["keys", "push", &file], "has this root already", "");
}

#[test]
fn keys_with_a_passphrase_sign_only_with_it() {
    let plane = Plane::start();
    let mut desk = desk(&plane);
    let (right, wrong) = (desk.write("right", "correct horse\n"), desk.write("wrong", "battery staple\n"));
    desk.ok(&["keys", "init", "--passphrase-file", &right]);
    let publisher = key(&desk, "publisher.pem");
    assert!(std::fs::read_to_string(&publisher).expect("a key").contains("ENCRYPTED PRIVATE KEY"));
    let shown = desk.json(&["keys", "show", "-o", "json"]);
    assert_eq!(shown["keys"][1]["path"], publisher, "shown without the passphrase");
    pack(&desk, &publisher, &["--passphrase-file", &right]);
    let model = fixture("digits/v1/model.onnx");
    let args = ["pack", &model, "--name", "a", "--version", "1", "-o", "a.bundle", "--key", &publisher];
    desk.refused(
        &[&args[..], &["--passphrase-file", &wrong]].concat(),
        "the passphrase is wrong",
        "when the key was made",
    );
    desk.refused(&args, "has a passphrase, and none is given", "MUSTER_PASSPHRASE");
    desk.set("MUSTER_PASSPHRASE", "correct horse");
    desk.ok(&["keys", "rotate", "root", "--yes"]);
    let made = std::fs::read_to_string(key(&desk, "root-v2.pem")).expect("a key");
    assert!(made.contains("ENCRYPTED PRIVATE KEY") && newest(&plane).root().version == 2);
}

#[test]
fn no_key_is_made_in_a_control_planes_folder() {
    let plane = Plane::start();
    let desk = desk(&plane);
    let folder = desk.path("plane");
    std::fs::create_dir_all(&folder).expect("a folder");
    for name in ["state.db", "director.pem", "ca.pem"] {
        std::fs::write(folder.join(name), "").expect("writes");
    }
    let inside = folder.join("keys/root.pem").display().to_string();
    desk.refused(&["keys", "new", &inside], "not put on a server", "--dir");
    desk.refused(&["keys", "init", "--dir", &folder.display().to_string()], "not put on a server", "--dir");
    assert!(plane.roots().is_empty());
}

#[test]
fn a_floor_is_signed_by_a_publisher_of_that_model() {
    let plane = Plane::start();
    let desk = desk(&plane);
    desk.ok(&["keys", "init"]);
    desk.refused(&["trust", "floor", "digits", "2"], "there is no terminal to ask on", "--yes");
    let strange = desk.strange_key();
    desk.refused(&["trust", "floor", "digits", "2", "--key", &strange, "--yes"], "is of no publisher", "trust show");
    let mut device = common::plane::device();
    device["slots"][0]["running"] = serde_json::json!({"model": "digits", "version": 3, "manifest": "a".repeat(64)});
    plane.script("GET /devices", [serde_json::json!([device])]);
    let done = desk.muster(&["trust", "floor", "digits", "4", "--yes"]);
    let told = String::from_utf8(done.stderr).expect("UTF-8");
    assert!(
        done.status.success() && told.contains("edge-1 runs version 3") && told.contains("has no bundle"),
        "{told}"
    );
    assert_eq!(desk.json(&["trust", "show", "-o", "json"])["floors"][0]["version"], 4);
    assert!(desk.ok(&["trust", "show"]).contains("digits below version 4 never runs"));
    assert_eq!(desk.json(&["diagnose", "edge-1", "-o", "json"])["clock"], "trusted");
}

/// Where Debian puts SoftHSM; `cargo xtask test` installs it.
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "1234";

/// A token in the desk's folder.
fn token(desk: &mut Desk) {
    let tokens = desk.path("tokens");
    std::fs::create_dir_all(&tokens).expect("a folder");
    let config =
        desk.write("softhsm2.conf", &format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display()));
    let made = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", "desk", "--so-pin", "12345678", "--pin", PIN])
        .env("SOFTHSM2_CONF", &config)
        .output()
        .expect("softhsm2-util: install it, for example `apt-get install softhsm2`");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    desk.set("SOFTHSM2_CONF", &config);
}

#[test]
fn a_key_in_a_token_signs_bundles_floors_and_roots() {
    let plane = Plane::start();
    let mut desk = desk(&plane);
    token(&mut desk);
    desk.ok(&["keys", "init"]);
    let uri = |name: &str| format!("pkcs11:token=desk;object={name}?module-path={SOFTHSM}");
    let publisher = uri("publisher");
    desk.refused(&["keys", "new", &publisher], "wants a PIN", "MUSTER_PIN");
    desk.set("MUSTER_PIN", PIN);
    let made: Value = desk.json(&["keys", "new", &publisher, "-o", "json"]);
    let public: PublicKey = made["public"].as_str().expect("a key").parse().expect("hex");
    desk.refused(&["keys", "new", &publisher], "has a key publisher already", "another name");
    desk.refused(&["keys", "add", "publisher", &uri("nobody"), "--yes"], "has no private key", "keys new");
    desk.ok(&["keys", "rotate", "publisher", "--new", &publisher, "--yes"]);
    assert_eq!(newest(&plane).publishers(), [public]);
    // The PIN may also come from a file.
    let pin = desk.write("pin", PIN);
    let bundle = pack(&desk, &format!("{publisher}&pin-source={pin}"), &[]);
    let inspected = desk.json(&["inspect", &bundle, "-o", "json"]);
    assert_eq!(inspected["signedBy"]["trusted"], true, "told without a network, also after the change: {inspected}");
    desk.ok(&["push", &bundle]);
    let verified = VerifiedManifest::verify(&plane.manifests()[0], &newest(&plane)).expect("the token signed it");
    assert_eq!(verified.signers(), [public.id()]);
    desk.ok(&["trust", "floor", "digits", "1", "--key", &publisher, "--yes"]);
    // The root key moves into the token, too; from then on it alone signs roots.
    desk.ok(&["keys", "new", &uri("root")]);
    desk.ok(&["keys", "rotate", "root", "--new", &uri("root"), "--yes"]);
    std::fs::remove_file(key(&desk, "root.pem")).expect("removed");
    desk.ok(&["keys", "renew", "--key", &uri("root"), "--yes"]);
    assert_eq!(newest(&plane).root().version, 4);
    desk.set("MUSTER_PIN", "9999");
    desk.refused(&["keys", "renew", "--key", &uri("root"), "--yes"], "cannot log in to the token", "check the PIN");
}
