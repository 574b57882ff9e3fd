//! Who gets in.

use std::process::Command;

use anyhow::Result;
use muster_tests::world;
use muster_world::World;

/// What `muster-agent enrol` says when it fails.
fn fails_to_enrol(world: &World, device: &str, claim: &str) -> Result<String> {
    let mut enrol = Command::new(&world.programs().agent);
    enrol.args(["enrol", "--name", device, "--url", &world.plane().http, "--claim", claim.trim(), "--data"]);
    let done = enrol.arg(world.folder().join(device)).output()?;
    assert!(!done.status.success(), "{device} was enrolled");
    Ok(String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn a_claim_enrols_one_device_and_no_second_one() -> Result<()> {
    let world = world(&[])?;
    let claim = world.muster(&["claim", "new"])?;
    let enrol = |device: &str| {
        let mut enrol = Command::new(&world.programs().agent);
        enrol.args(["enrol", "--name", device, "--url", &world.plane().http, "--claim", claim.trim(), "--data"]);
        enrol.arg(world.folder().join(device)).output()
    };
    assert!(enrol("edge-1")?.status.success());
    let error = fails_to_enrol(&world, "edge-2", &claim)?;
    assert!(error.contains("claim"), "{error}");

    // A reply that was lost costs nothing: the same key gets its certificate again.
    std::fs::remove_file(world.folder().join("edge-1/identity/enrolment.json"))?;
    assert!(enrol("edge-1")?.status.success());
    assert_eq!(world.devices()?.len(), 1);
    Ok(())
}

#[test]
fn a_wrong_claim_or_a_foreign_plane_is_refused_with_the_reason() -> Result<()> {
    let world = world(&[])?;
    let claim = world.muster(&["claim", "new"])?;
    let mut token: muster_shared::claim::ClaimToken = claim.parse()?;
    token.secret[0] ^= 1;
    let error = fails_to_enrol(&world, "wrong-secret", &token.to_string())?;
    assert!(error.contains("claim"), "{error}");

    let mut token: muster_shared::claim::ClaimToken = claim.parse()?;
    token.ca.0[0] ^= 1;
    let error = fails_to_enrol(&world, "wrong-ca", &token.to_string())?;
    assert!(error.contains("cannot reach"), "{error}");

    let mut token: muster_shared::claim::ClaimToken = claim.parse()?;
    token.root.0[0] ^= 1;
    let error = fails_to_enrol(&world, "wrong-root", &token.to_string())?;
    assert!(error.contains("root"), "{error}");

    let error = fails_to_enrol(&world, "no-claim", "nonsense")?;
    assert!(error.contains("muster claim new"), "{error}");
    Ok(())
}

#[test]
fn a_device_that_was_given_no_root_and_no_ca_does_not_enrol() -> Result<()> {
    let world = world(&[])?;
    let digest = "00".repeat(32);
    let enrol = |more: &[&str]| -> Result<String> {
        let mut enrol = Command::new(&world.programs().agent);
        enrol.args(["enrol", "--url", &world.plane().http, "--data"]).arg(world.folder().join("edge-1")).args(more);
        let done = enrol.output()?;
        assert!(!done.status.success(), "{more:?} was enrolled");
        Ok(String::from_utf8_lossy(&done.stderr).into_owned())
    };
    assert!(enrol(&[])?.contains("--root-digest"));
    assert!(enrol(&["--ca-digest", &digest])?.contains("--root-digest"));
    assert!(enrol(&["--root-digest", &digest])?.contains("--ca-digest"));
    let error = enrol(&["--root-digest", &digest, "--ca-digest", &digest])?;
    assert!(error.contains("does not show the CA"), "{error}");
    // The right CA, and no claim: the key is not on the factory list.
    let error = enrol(&["--root-digest", &digest, "--ca-digest", &world.plane().ca_fingerprint, "--no-wait"])?;
    assert!(error.contains("factory list"), "{error}");
    Ok(())
}

#[test]
fn a_device_sets_no_label_that_its_claim_does_not_allow() -> Result<()> {
    let world = world(&[])?;
    let claim = world.muster(&["claim", "new", "--site", "north", "--may-label", "rack", "--uses", "2"])?;
    let enrol = |device: &str, label: &str| {
        let mut enrol = Command::new(&world.programs().agent);
        enrol.args(["enrol", "--name", device, "--label", label, "--url", &world.plane().http]);
        enrol.args(["--claim", claim.trim(), "--data"]).arg(world.folder().join(device)).output()
    };
    let refused = enrol("edge-1", "gpu=1")?;
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && error.contains("label gpu") && error.contains("--may-label"), "{error}");
    assert!(enrol("edge-1", "rack=7")?.status.success());
    world.muster(&["revoke", "edge-1", "--reason", "stolen"])?;
    assert!(world.muster(&["get", "devices"])?.contains("revoked"));
    world.muster(&["delete", "device", "edge-1"])?;
    assert!(enrol("edge-2", "rack=7")?.status.success());
    Ok(())
}
