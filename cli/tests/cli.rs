//! The binary as a person meets it, without a control plane: exit codes, what goes to which
//! stream, and that every error ends with the next move.

mod common;

use common::{Desk, fixture};

#[test]
fn help_names_every_command_and_exits_0() {
    let desk = Desk::new();
    let help = desk.ok(&["--help"]);
    for command in [
        "login", "whoami", "context", "keys", "trust", "claim", "pack", "inspect", "push", "apply", "get", "describe",
        "delete", "predict", "explain", "plan", "rollout", "scale", "cordon", "uncordon", "drain",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in: {help}");
        desk.ok(&[command, "--help"]);
    }
    assert!(desk.ok(&["--version"]).starts_with("muster 0."));
}

#[test]
fn a_wrong_command_line_exits_2() {
    let desk = Desk::new();
    for args in [
        &["fly"][..],
        &["get", "unicorns"],
        &["claim", "new", "--uses", "0"],
        &["claim", "new", "--ttl", "1x"],
        &["scale", "digits"],
        &["scale", "digits", "--replicas", "-1"],
        &["drain", "Edge_1"],
        &["drain", "edge-1", "--timeout", "5m"],
        &["rollout", "status", "digits", "--wait", "--timeout", "soon"],
        &["rollout", "digits"],
        &["plan", "-f", "digits.yaml", "approve"],
        &["explain", "bundle/digits"],
        &[],
    ] {
        assert_eq!(desk.muster(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn without_a_context_the_way_to_one_is_shown() {
    let desk = Desk::new();
    for args in [&["whoami"][..], &["get", "devices"], &["keys", "init"], &["claim", "new"], &["trust", "show"]] {
        desk.refused(args, "no control plane is known yet", "muster login URL --ca-fingerprint F");
    }
    desk.refused(&["--context", "x", "whoami"], "there is no context \"x\"", "log in first");
    desk.context(None);
    desk.refused(&["--context", "x", "whoami"], "there is no context \"x\"", "known are: here");
    desk.refused(&["context", "use", "x"], "there is no context \"x\"", "known are: here");
    assert!(desk.ok(&["context"]).contains("here"));
    let json = desk.ok(&["context", "-o", "json"]);
    assert!(json.contains("\"current\": true") && !json.contains("token"), "{json}");
}

#[test]
fn an_unreachable_control_plane_is_an_error_with_a_hint() {
    let desk = Desk::new();
    desk.context(Some(&"b".repeat(64)));
    let refused = "https://127.0.0.1:9 refused the connection";
    for args in [
        &["whoami"][..],
        &["get", "devices"],
        &["describe", "device", "edge"],
        &["delete", "deployment", "digits"],
        &["claim", "new"],
        &["trust", "show"],
        &["predict", "digits", "--data", "[[1]]"],
        &["explain", "digits"],
        &["plan"],
        &["plan", "approve"],
        &["rollout", "undo", "digits"],
        &["rollout", "history", "digits"],
        &["scale", "digits", "--replicas", "2"],
        &["cordon", "edge-1"],
        &["uncordon", "edge-1"],
        &["drain", "edge-1", "--wait"],
    ] {
        desk.refused(args, refused, "is the control plane running?");
    }
}

#[test]
fn login_takes_only_what_can_be_trusted() {
    let desk = Desk::new();
    let ca = "a".repeat(64);
    desk.refused(&["login", "http://plane:1", "--code", "c"], "plain http is for loopback only", "https://HOST:PORT");
    desk.refused(&["login", "plane", "--ca-fingerprint", &ca, "--code", "c"], "no URL", "https://HOST:PORT");
    desk.refused(&["login", "https://127.0.0.1:9", "--code", "c"], "no CA is pinned", "--ca-fingerprint");
    let url = "https://127.0.0.1:9";
    desk.refused(&["login", url, "--ca-fingerprint", &ca, "--code", "c"], "refused the connection", "running?");
}

#[test]
fn no_keys_are_made_for_a_control_plane_that_cannot_be_reached() {
    let desk = Desk::new();
    desk.context(None);
    desk.refused(&["keys", "init"], "cannot ask for the roots", "is the control plane running?");
    assert!(!desk.path("home/keys").exists());
    desk.refused(&["keys", "show"], "there are no keys", "muster keys init");
    desk.refused(&["claim", "new"], "no root is pinned", "muster keys init");
}

#[test]
fn a_model_is_packed_inspected_and_compared() {
    let desk = Desk::new();
    let key = desk.strange_key();
    let pack = |version: &str, file: &str| {
        let (model, golden) =
            (format!("linear_regression/v{version}/model.onnx"), format!("linear_regression/v{version}/golden.json"));
        let (model, golden, file) = (fixture(&model), fixture(&golden), desk.path(file).display().to_string());
        let said = desk.ok(&[
            "pack",
            &model,
            "--name",
            "linear_regression",
            "--version",
            version,
            "--golden",
            &golden,
            "--key",
            &key,
            "-o",
            &file,
        ]);
        assert!(said.contains("3 golden cases"), "{said}");
        file
    };
    let (one, two) = (pack("1", "one.bundle"), pack("2", "two.bundle"));
    let again = pack("1", "again.bundle");
    assert_eq!(std::fs::read(&one).expect("reads"), std::fs::read(&again).expect("reads"), "the same bytes");

    let shown = desk.ok(&["inspect", &one]);
    for words in
        ["x f32[?, 10]", "y f32[?, 1]", "(2 tensors)", "2023-11-14T22:13:20Z", "not checked: no root is pinned"]
    {
        assert!(shown.contains(words), "{words:?} is not in: {shown}");
    }
    let compared = desk.ok(&["inspect", &two, "--against", &one]);
    assert!(compared.contains("fp32: f same, θ changed in 2 of 2 tensors"), "{compared}");
    let json = desk.ok(&["inspect", &one, "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["manifest"]["model"], "linear_regression");

    let mut damaged = std::fs::read(&one).expect("reads");
    let middle = damaged.len() - 2048;
    damaged[middle] ^= 1;
    std::fs::write(&one, damaged).expect("writes");
    desk.refused(&["inspect", &one], "damaged", "muster pack");
}

#[test]
fn what_cannot_be_packed_is_explained() {
    let desk = Desk::new();
    let key = desk.strange_key();
    let model = fixture("digits/v1/model.onnx");
    let out = desk.path("x.bundle").display().to_string();
    let pack = |model: &str, key: &str, golden: Option<&str>| {
        let mut args = vec!["pack", model, "--name", "digits", "--version", "1", "--key", key, "-o", &out];
        args.extend(golden.iter().flat_map(|golden| ["--golden", golden]));
        args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>()
    };
    let refused = |args: Vec<String>, error: &str, hint: &str| {
        desk.refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), error, hint);
    };
    refused(pack("/no/model.onnx", &key, None), "cannot read /no/model.onnx", "check the path");
    refused(pack(&model, "/no/key.pem", None), "cannot read the key /no/key.pem", "check the path");
    let text = desk.write("notes.txt", "no model at all");
    refused(pack(&text, &key, None), "this is no ONNX model", "ONNX format");
    refused(pack(&model, &text, None), "no Ed25519 private key", "muster keys init");
    let other = fixture("linear_regression/v1/golden.json");
    refused(pack(&model, &key, Some(&other)), "case 1: input \"x\" has the shape [1, 10]", "cases");
    assert!(!desk.path("x.bundle").exists(), "nothing half-made is left");
    refused(vec!["inspect".into(), text], "no bundle", "muster pack");

    let output = desk.muster(&pack(&model, &key, None).iter().map(String::as_str).collect::<Vec<_>>());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && stderr.contains("warning: without --golden"), "{stderr}");
}

#[test]
fn yaml_errors_say_line_and_column() {
    let desk = Desk::new();
    desk.context(None);
    let yaml = "apiVersion: muster.dev/v1\nkind: Deployment\nmetadata: { name: digits }\nspec:\n  modell: digits\n";
    let file = desk.write("digits.yaml", yaml);
    desk.refused(&["apply", "-f", &file], "line 5, column 3", "muster get deployments -o yaml");
    desk.refused(&["apply", "-f", "/no/file.yaml"], "cannot read /no/file.yaml", "check the path");
    let file = desk.write("service.yaml", "apiVersion: v1\nkind: Service\n");
    desk.refused(&["apply", "-f", &file], "kind Service", "kind: Deployment");
    let file = desk.write("good.yaml", &yaml.replace("modell", "model"));
    desk.refused(&["apply", "-f", &file], "cannot apply deployment digits", "running?");
}
