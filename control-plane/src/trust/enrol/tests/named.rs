//! Devices whose names are known before they come: one claim each.

use muster_provisioning::bulk::{self, Row};
use muster_provisioning::enrolment::{By, Enrolment};
use muster_shared::api::ClaimedDevice;
use muster_shared::claim::ClaimToken;

use super::*;

fn asked(rows: &[Row]) -> NewClaims {
    let device = |row: &Row| ClaimedDevice { name: row.name.clone(), labels: row.labels.clone() };
    NewClaims { devices: rows.iter().map(device).collect(), ttl_seconds: 60, needs_approval: false, replace: false }
}

fn row(name: &str) -> Row {
    Row { name: name.parse().expect("a name"), labels: labels(&[("site", "north")]) }
}

/// What the CLI makes of a claim, and what lies on the card then.
fn card(row: &Row, claim: &Claim) -> String {
    let bytes = |text: &str| hex::decode(text).expect("hex");
    let token = ClaimToken {
        id: bytes(&claim.id).try_into().expect("8 bytes"),
        secret: bytes(&claim.secret).try_into().expect("16 bytes"),
        root: Digest::of("root"),
        ca: Digest::of("ca"),
        issued_ms: 1,
    };
    let url = "https://plane:8443".parse().expect("a URL");
    Enrolment { url, by: By::Claim(token), name: Some(row.name.clone()), labels: Labels::new() }.to_string()
}

/// What a device asks with the file that it finds on its card.
fn from_card(text: &str, key: &KeyPair) -> Enrol {
    let found = Enrolment::parse(text).expect("an enrolment file");
    let By::Claim(token) = found.by else { panic!("no claim") };
    let (claim, secret) = (Some(token.id_hex()), Some(token.secret_hex()));
    Enrol { claim, secret, csr: csr(key), name: found.name, labels: found.labels }
}

#[tokio::test]
async fn a_thousand_devices_of_one_table_each_enrol_once() {
    const DEVICES: usize = 1_000;
    let sites = ["north", "south", "east"];
    let lines: String =
        (1..=DEVICES).map(|number| format!("edge-{number:04},{},{number}\n", sites[number % 3])).collect();
    let rows = bulk::read(&format!("name,site,rack\n{lines}")).expect("a table");
    let (plane, _folder) = testing::plane().await;
    let claims = new_claims(&plane, &asked(&rows)).await.expect("claims");
    assert_eq!(claims.len(), DEVICES);
    let (thief, _) = device_key();
    for (row, claim) in rows.iter().zip(&claims) {
        let text = card(row, claim);
        let (key, _) = device_key();
        let first = let_in(&plane, &from_card(&text, &key)).await.expect("enrolled");
        assert_eq!(first.device, row.name);
        // The reply was lost: the same key asks again. Who copied the card is no other device.
        assert_eq!(let_in(&plane, &from_card(&text, &key)).await.expect("again").device, row.name);
        let copied = let_in(&plane, &from_card(&text, &thief)).await;
        assert!(matches!(copied, Err(EnrolError::Spent(1))), "{copied:?}");
    }
    let devices = db::devices::list(plane.db.read()).await.expect("lists");
    assert_eq!(devices.len(), DEVICES);
    for (device, row) in devices.iter().zip(&rows) {
        assert_eq!((&device.id, &device.labels), (&row.name, &row.labels));
    }
    let spent = db::claims::list(plane.db.read(), 2_000).await.expect("lists");
    assert!(spent.iter().all(|claim| (claim.uses, claim.used) == (1, 1) && claim.name.is_some()));
}

#[tokio::test]
async fn a_name_that_is_promised_is_nobody_elses() {
    let (plane, _folder) = testing::plane().await;
    let rows = [row("edge-1"), row("edge-2")];
    let first = new_claims(&plane, &asked(&rows)).await.expect("claims");
    // Neither by a claim without a name, nor by another one's.
    let (key, _) = device_key();
    let open = claim_for(&plane, 5).await;
    let taken = let_in(&plane, &ask(&open, &key, Some("edge-1"))).await;
    assert!(matches!(taken, Err(EnrolError::NameReserved(_))), "{taken:?}");
    let other = Enrol { name: Some("edge-2".parse().expect("a name")), ..from_card(&card(&rows[0], &first[0]), &key) };
    assert!(matches!(let_in(&plane, &other).await, Err(EnrolError::OtherName(_))));
    // All or none: edge-3 was not made either.
    let again = new_claims(&plane, &asked(&[row("edge-3"), row("edge-1")])).await;
    assert!(matches!(again, Err(EnrolError::NameReserved(_))), "{again:?}");
    assert_eq!(db::claims::list(plane.db.read(), 10).await.expect("lists").len(), 3);
    // Replaced: the first card's claim counts no more.
    let replaced = NewClaims { replace: true, ..asked(&rows) };
    let second = new_claims(&plane, &replaced).await.expect("claims");
    let void = let_in(&plane, &from_card(&card(&rows[0], &first[0]), &key)).await;
    assert!(matches!(void, Err(EnrolError::Void)), "{void:?}");
    let device = let_in(&plane, &from_card(&card(&rows[0], &second[0]), &key)).await.expect("enrolled").device;
    assert_eq!(device.as_str(), "edge-1");
    let taken = new_claims(&plane, &replaced).await;
    assert!(matches!(taken, Err(EnrolError::NameTaken(_))), "{taken:?}");
}

#[tokio::test]
async fn lists_have_bounds() {
    let (plane, _folder) = testing::plane().await;
    let refused = async |asked: NewClaims| new_claims(&plane, &asked).await.map(drop).expect_err("refused");
    assert!(matches!(refused(asked(&[])).await, EnrolError::HowMany));
    let many: Vec<Row> = (0..=1_000).map(|number| row(&format!("edge-{number}"))).collect();
    assert!(matches!(refused(asked(&many)).await, EnrolError::HowMany));
    assert!(matches!(refused(asked(&[row("a"), row("a")])).await, EnrolError::NameTwice(_)));
    assert!(matches!(refused(NewClaims { ttl_seconds: 0, ..asked(&[row("a")]) }).await, EnrolError::BadClaim));
}
