//! An operator's day with a fleet, against a control plane that answers what it is told to.

mod common;

use common::Desk;
use common::plane::{CODE, Plane};
use muster_shared::Digest;
use serde_json::{Value, json};

#[track_caller]
fn start() -> (Desk, Plane) {
    let (desk, plane) = (Desk::new(), Plane::start());
    desk.ok(&["login", &plane.url, "--ca-fingerprint", &plane.ca.to_string(), "--code", CODE]);
    (desk, plane)
}

fn deployment(replicas: u32, observed: u64) -> Value {
    json!({
        "apiVersion": "muster.dev/v1", "kind": "Deployment", "metadata": {"name": "digits", "generation": 2},
        "spec": {"model": "digits", "replicas": replicas}, "status": {"observedGeneration": observed},
    })
}

fn rollout(stage: &str, wave: u32, message: &str) -> Value {
    json!({
        "number": 2, "stage": stage, "version": 2, "previous": 1, "wave": wave, "waves": 3, "granted": wave,
        "healthy": wave - 1, "devices": 3, "failed": [], "message": message, "beganMs": 0, "changedMs": 0,
    })
}

fn device(schedule: &str) -> Value {
    json!({
        "id": "edge-1", "connected": true, "schedule": schedule, "enrolledMs": 1000, "labels": {}, "slots": [],
        "fingerprint": Digest::of("key"), "refusals": [], "models": [],
    })
}

/// What is left on the device: deployments whose replicas leave, and why they do not yet.
fn left(replicas: &[(&str, Value)]) -> Value {
    let replica = |(name, reason): &(&str, Value)| {
        let replica = json!({
            "device": "edge-1", "phase": "serving", "running": 1, "version": 1, "manifest": Digest::of("m"), "why": "kept",
            "leaving": true, "reason": reason,
        });
        json!({"deployment": name, "replica": replica})
    };
    json!({
        "id": "edge-1", "schedule": "draining", "presence": "connected", "cpuMilliGranted": 0,
        "memoryBytesGranted": 0, "replicas": replicas.iter().map(replica).collect::<Vec<_>>(),
        "obstacles": ["edge-1 is being drained"],
    })
}

#[test]
fn a_deployment_is_scaled() {
    let (desk, plane) = start();
    plane.script("PUT /deployments/digits/scale", [deployment(3, 1)]);
    assert_eq!(desk.ok(&["scale", "digits", "--replicas", "3"]), "deployment digits scaled to 3 replicas\n");
    assert_eq!(plane.heard(), [("PUT /deployments/digits/scale".to_owned(), json!({"replicas": 3}))]);
    assert_eq!(desk.json(&["scale", "digits", "--replicas", "3", "-o", "json"])["spec"]["replicas"], 3);
    plane.refuse("PUT /deployments/other/scale", 404, "there is no deployment other");
    let other = ["scale", "other", "--replicas", "1"];
    desk.refused(&other, "cannot scale deployment other: there is no deployment other", "muster get deployments");
}

#[test]
fn a_device_is_cordoned_and_opened() {
    let (desk, plane) = start();
    plane.script("POST /devices/edge-1/cordon", [device("cordoned")]);
    plane.script("POST /devices/edge-1/uncordon", [device("open")]);
    assert!(desk.ok(&["cordon", "edge-1"]).starts_with("device edge-1 is cordoned: "));
    assert_eq!(desk.ok(&["uncordon", "edge-1"]), "device edge-1 is open: replicas may be placed on it\n");
    assert_eq!(desk.json(&["cordon", "edge-1", "-o", "json"])["schedule"], "cordoned");
    plane.refuse("POST /devices/edge-9/cordon", 404, "there is no device edge-9");
    desk.refused(&["cordon", "edge-9"], "cannot cordon device edge-9: there is no device", "muster get devices");
}

#[test]
fn draining_waits_until_the_device_is_empty() {
    let (desk, plane) = start();
    plane.script("POST /devices/edge-1/drain", [device("draining")]);
    assert!(desk.ok(&["drain", "edge-1"]).starts_with("device edge-1 is draining: "));
    let no_room = json!("edge-2: 64Mi wanted, 10Mi of 64Mi free");
    let explain = "GET /devices/edge-1/explain";
    plane.script(
        explain,
        [left(&[("a", Value::Null), ("b", no_room.clone())]), left(&[("b", no_room.clone())]), left(&[])],
    );
    assert_eq!(
        desk.ok(&["drain", "edge-1", "--wait"]),
        "\
device edge-1 is draining: nothing new comes to it, and what is there moves elsewhere
waits: a: it goes as soon as another one serves
waits: b: edge-2: 64Mi wanted, 10Mi of 64Mi free
device edge-1 is empty
"
    );
    plane.script("GET /devices/edge-1", [device("draining")]);
    assert_eq!(desk.json(&["drain", "edge-1", "--wait", "-o", "json"])["id"], "edge-1");

    plane.script(explain, [left(&[("b", no_room)])]);
    let late = ["drain", "edge-1", "--wait", "--timeout", "700ms", "-o", "json"];
    desk.refused(&late, "device edge-1 is not empty after 700ms: b: edge-2: 64Mi wanted", "muster uncordon edge-1");
}

#[test]
fn a_rollout_is_followed_to_its_end() {
    let (desk, plane) = start();
    // The rollout before is over; what was applied is seen only at the second look.
    plane.script("GET /deployments/digits", [deployment(3, 1), deployment(3, 2)]);
    let path = "GET /deployments/digits/rollout";
    plane.script(
        path,
        [
            rollout("running", 1, "it waits for edge-1 (fetching)"),
            rollout("running", 1, "it waits for edge-1 (in probation)"),
            rollout("running", 2, "it waits for edge-2 (fetching)"),
            rollout("done", 3, "every device has it"),
        ],
    );
    assert_eq!(
        desk.ok(&["rollout", "status", "digits", "--wait"]),
        "\
digits: version 2 (from 1), wave 1 of 3: 0 of 1 device healthy (3 in all); it waits for edge-1 (fetching)
digits: version 2 (from 1), wave 2 of 3: 1 of 2 devices healthy (3 in all); it waits for edge-2 (fetching)
digits: version 2 (from 1), done: every device has it
"
    );
    let json = desk.json(&["rollout", "status", "digits", "--wait", "-o", "json"]);
    assert_eq!(json["stage"], "done");

    plane.script(path, [rollout("stopped", 1, "edge-1: refused; devices are back on version 1")]);
    let stopped = desk.muster(&["rollout", "status", "digits", "--wait"]);
    assert_eq!(stopped.status.code(), Some(1));
    let stdout = String::from_utf8_lossy(&stopped.stdout).into_owned();
    assert!(stdout.contains("stopped in wave 1 of 3: edge-1: refused"), "{stdout}");
    let stderr = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(stderr.contains("did not get through: stopped") && stderr.contains("muster rollout resume"), "{stderr}");
    // Without --wait it is only shown.
    assert!(desk.ok(&["rollout", "status", "digits"]).contains("stopped in wave 1"));

    plane.script(path, [rollout("paused", 1, "an operator holds it")]);
    let late = ["rollout", "status", "digits", "--wait", "--timeout", "700ms", "-o", "json"];
    desk.refused(&late, "the rollout of digits is not over after 700ms", "muster explain digits");
}

#[test]
fn a_rollout_that_was_over_before_the_push_is_not_waited_for() {
    let (desk, plane) = start();
    let mut wanted = deployment(3, 2);
    wanted["status"]["version"] = 2.into();
    plane.script("GET /deployments/digits", [wanted]);
    let mut old = rollout("done", 3, "every device has it");
    old["version"] = 1.into();
    plane.script("GET /deployments/digits/rollout", [old, rollout("done", 3, "every device has version 2")]);
    let said = desk.ok(&["rollout", "status", "digits", "--wait"]);
    assert_eq!(said, "digits: version 2 (from 1), done: every device has version 2\n");
}

#[test]
fn waiting_ends_where_there_is_nothing_to_wait_for() {
    let (desk, plane) = start();
    plane.refuse("GET /deployments/other", 404, "there is no deployment other");
    desk.refused(&["rollout", "status", "other", "--wait"], "there is no deployment other", "muster get deployments");
    // A deployment that had no rollout yet may have one soon.
    plane.script("GET /deployments/digits", [deployment(1, 2)]);
    plane.refuse("GET /deployments/digits/rollout", 404, "there was no rollout yet");
    let late = ["rollout", "status", "digits", "--wait", "--timeout", "700ms"];
    desk.refused(&late, "is not over after 700ms", "muster explain digits");
    desk.refused(&["rollout", "status", "digits"], "there was no rollout yet", "muster rollout history digits");
}

#[test]
fn an_operator_has_a_hand_on_a_rollout() {
    let (desk, plane) = start();
    for (verb, stage) in [("pause", "paused"), ("resume", "running"), ("undo", "undone")] {
        plane.script(&format!("POST /deployments/digits/rollout/{verb}"), [rollout(stage, 1, "as asked")]);
        let said = desk.ok(&["rollout", verb, "digits"]);
        assert!(said.starts_with("digits: version 2 (from 1), ") && said.ends_with("as asked\n"), "{said}");
        assert_eq!(desk.json(&["rollout", verb, "digits", "-o", "json"])["stage"], stage);
    }
    plane.refuse("POST /deployments/digits/rollout/pause", 409, "the rollout is over");
    desk.refused(&["rollout", "pause", "digits"], "cannot pause the rollout of digits: the rollout is over", "history");

    plane.script("GET /deployments/digits/rollouts", [json!([rollout("done", 3, "every device has it")])]);
    let history = desk.ok(&["rollout", "history", "digits"]);
    assert!(history.starts_with("NUMBER   VERSION   FROM") && history.contains("every device has it"), "{history}");
    plane.script("GET /deployments/digits/rollouts", [json!([])]);
    assert_eq!(desk.ok(&["rollout", "history", "digits"]), "");
    assert_eq!(desk.json(&["rollout", "history", "digits", "-o", "json"]), json!([]));
}

#[test]
fn a_plan_is_seen_before_it_happens() {
    let (desk, plane) = start();
    let place =
        json!({"deployment": "digits", "device": "edge-1", "change": "place", "version": 1, "why": "most room"});
    plane.script("POST /plan", [json!({"frozen": [], "changes": [place], "waiting": []})]);
    let yaml = "apiVersion: muster.dev/v1\nkind: Deployment\nmetadata: {name: digits}\nspec: {model: digits}\n\
                status: {wanted: 9}\n";
    let file = desk.write("digits.yaml", yaml);
    let planned = desk.ok(&["plan", "-f", &file]);
    assert_eq!(
        planned,
        "DEPLOYMENT   DEVICE   CHANGE   VERSION   WHY\ndigits       edge-1   place    1         most room\n"
    );
    assert_eq!(desk.ok(&["apply", "--dry-run", "-f", &file]), planned);
    let heard = plane.heard();
    assert_eq!(heard[0], heard[1]);
    let asked = &heard[0].1["deployments"][0];
    assert_eq!((&asked["metadata"]["name"], asked.get("status")), (&json!("digits"), None));
    assert!(desk.ok(&["get", "deployments"]).is_empty(), "nothing was applied");
    assert_eq!(desk.json(&["plan", "-o", "json"])["changes"][0]["change"], "place");
    assert_eq!(plane.heard()[0].1, json!({"deployments": []}));
    desk.refused(&["plan", "-f", "/no/file.yaml"], "cannot read /no/file.yaml", "check the path");
    let wrong = desk.write("wrong.yaml", &yaml.replace("model:", "modell:"));
    desk.refused(&["plan", "-f", &wrong], "cannot plan", "muster get deployments -o yaml");
    desk.refused(&["apply", "--dry-run", "-f", &wrong], "cannot apply", "muster get deployments -o yaml");
}

#[test]
fn a_frozen_plan_is_approved() {
    let (desk, plane) = start();
    let freeze =
        json!({"group": "the fleet", "devices": ["edge-1", "edge-2"], "of": 3, "sinceMs": 0, "message": "wait"});
    plane.script("POST /plan", [json!({"frozen": [freeze], "changes": [], "waiting": []})]);
    let output = desk.muster(&["plan"]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("frozen: the fleet: 2 of 3 devices silent"), "{stdout}");
    assert!(stderr.contains("muster plan approve"), "{stderr}");
    plane.script("POST /plan/approve", [json!({"frozen": [], "changes": [], "waiting": []})]);
    let said = desk.ok(&["plan", "approve"]);
    assert_eq!(said, "approved: silent devices are taken for lost, and changes go on\nnothing would change\n");
    assert_eq!(desk.json(&["plan", "approve", "-o", "json"])["frozen"], json!([]));
    // After a backup was put back, nobody is given up by it.
    plane.script("POST /plan", [json!({"frozen": [], "changes": [], "waiting": [], "restored": "put back"})]);
    assert!(desk.ok(&["plan", "approve"]).contains("with the database as it is"));
}

#[test]
fn a_name_is_explained_whatever_it_is() {
    let (desk, plane) = start();
    let digits = json!({"name": "digits", "wanted": 1, "ready": 0, "replicas": [], "waiting": ["no bundle"]});
    plane.script("GET /deployments/digits/explain", [digits]);
    plane.script("GET /devices/edge-1/explain", [left(&[])]);
    let said = desk.ok(&["explain", "digits"]);
    assert_eq!(said, "digits: no version to serve yet, 0 of 1 replica ready\nwaits: no bundle\n");
    assert_eq!(desk.ok(&["explain", "deployment/digits"]), said);
    let device = desk.ok(&["explain", "edge-1"]);
    assert!(device.starts_with("edge-1: connected, draining: "), "{device}");
    assert_eq!(desk.ok(&["explain", "device/edge-1"]), device);
    assert_eq!(desk.json(&["explain", "edge-1", "-o", "json"])["id"], "edge-1");
    assert_eq!(desk.json(&["explain", "digits", "-o", "json"])["name"], "digits");
    desk.refused(&["explain", "other"], "there is no deployment and no device \"other\"", "muster get devices");
    desk.refused(&["explain", "An_Other"], "there is no deployment and no device \"An_Other\"", "muster get devices");
    desk.refused(&["explain", "deployment/edge-1"], "there is no deployment \"edge-1\"", "muster get deployments");
    desk.refused(&["explain", "device/digits"], "there is no device \"digits\"", "muster get devices");
    plane.refuse("GET /deployments/digits/explain", 500, "the disk is gone");
    desk.refused(&["explain", "digits"], "cannot explain digits: the disk is gone", "control plane's log");
}
