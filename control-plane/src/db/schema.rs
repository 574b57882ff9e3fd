//! The schema, as migrations for either dialect. A migration that was released is never changed.
//! SQLite runs one outside of a transaction, so each can be run again after a crash in its middle.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, blob, blob_null, text, text_null};

/// Migrations of the state.
pub struct State;

/// Migrations of the telemetry.
pub struct Telemetry;

impl MigratorTrait for State {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(FirstState),
            Box::new(Rollouts),
            Box::new(People),
            Box::new(Members),
            Box::new(Floors),
            Box::new(Releases),
            Box::new(Provisioning),
        ]
    }
}

impl MigratorTrait for Telemetry {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(FirstTelemetry), Box::new(History)]
    }
}

struct FirstState;

impl MigrationName for FirstState {
    fn name(&self) -> &str {
        "state_0001"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for FirstState {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            // One-time secrets and the like, by name.
            table("secrets", ["name"], vec![text("name"), blob("sha256"), big_integer("created_ms")]),
            table("tokens", ["sha256"], vec![blob("sha256"), text("user_name"), big_integer("created_ms")]),
            table("roots", ["version"], vec![big_integer("version"), text("envelope"), big_integer("added_ms")]),
            table(
                "claims",
                ["id"],
                vec![
                    blob("id"),
                    blob("secret_sha256"),
                    big_integer("uses"),
                    text("labels"),
                    big_integer("created_ms"),
                    big_integer("expires_ms"),
                ],
            ),
            // Which keys spent a claim.
            table(
                "claim_keys",
                ["claim", "fingerprint"],
                vec![blob("claim"), blob("fingerprint"), big_integer("spent_ms")],
            ),
            table(
                "devices",
                ["id"],
                vec![
                    text("id"),
                    blob("fingerprint").unique_key().take(),
                    blob("spki"),
                    big_integer("enrolled_ms"),
                    big_integer("cordoned"),
                    big_integer_null("last_seen_ms"),
                    blob_null("reported"),
                    // Earlier runs of the agent, 16 bytes each: what they said is over.
                    blob("past_boots"),
                ],
            ),
            // `source`: whose label it is, claim or owner.
            table(
                "device_labels",
                ["device", "source", "label"],
                vec![text("device"), text("source"), text("label"), text("content")],
            ),
            table(
                "bundles",
                ["model", "version"],
                vec![
                    text("model"),
                    big_integer("version"),
                    blob("manifest"),
                    blob("payload"),
                    blob("envelope_sha256"),
                    big_integer("envelope_bytes"),
                    big_integer("complete"),
                    big_integer("pushed_ms"),
                ],
            ),
            table(
                "bundle_files",
                ["manifest", "sha256"],
                vec![blob("manifest"), blob("sha256"), big_integer("bytes"), blob("chunk_index")],
            ),
            table(
                "deployments",
                ["name"],
                vec![
                    text("name"),
                    big_integer("generation"),
                    text("labels"),
                    text("spec"),
                    big_integer("created_ms"),
                    big_integer("changed_ms"),
                ],
            ),
            // What the planner wants of each device.
            table("placements", ["device"], vec![text("device"), text("slots"), blob("sha256")]),
            // What the planner has to say of each deployment.
            table(
                "plans",
                ["deployment"],
                vec![
                    text("deployment"),
                    big_integer("generation"),
                    big_integer_null("version"),
                    text_null("waiting_word"),
                    text_null("waiting"),
                ],
            ),
            table(
                "conditions",
                ["deployment", "kind"],
                vec![text("deployment"), text("kind"), big_integer("holds"), big_integer("since_ms")],
            ),
            // The newest desired state of each device, as committed before it was signed.
            table(
                "desired",
                ["device"],
                vec![
                    text("device"),
                    big_integer("epoch"),
                    big_integer("number"),
                    blob("payload"),
                    blob("slots_sha256"),
                    blob_null("nonce"),
                    big_integer("issued_ms"),
                    big_integer("expires_ms"),
                ],
            ),
            table(
                "events",
                ["id"],
                vec![
                    text("id"),
                    big_integer("at_ms"),
                    text_null("device"),
                    text("kind"),
                    text_null("deployment"),
                    text("particulars"),
                ],
            ),
        ] {
            manager.create_table(table).await?;
        }
        for (name, table, column) in [
            ("bundle_files_sha256", "bundle_files", "sha256"),
            ("bundles_manifest", "bundles", "manifest"),
            ("events_at", "events", "at_ms"),
        ] {
            let index = Index::create().if_not_exists().name(name).table(table).col(column).to_owned();
            manager.create_index(index).await?;
        }
        Ok(())
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration("there is nothing before the first schema".to_owned()))
    }
}

struct Rollouts;

impl MigrationName for Rollouts {
    fn name(&self) -> &str {
        "state_0002_rollouts"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Rollouts {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            // Every rollout of a deployment; the one with the highest number is the one in force.
            table(
                "rollouts",
                ["deployment", "number"],
                vec![text("deployment"), big_integer("number"), text("rollout")],
            ),
            // Why each replica is on its device.
            table("placement_notes", ["device"], vec![text("device"), text("notes")]),
            // What the planner has to say of each deployment; it says it again at each start, so nothing is
            // carried over from `plans`.
            table(
                "verdicts",
                ["deployment"],
                vec![
                    text("deployment"),
                    big_integer("generation"),
                    big_integer_null("version"),
                    big_integer("wanted"),
                    text_null("waiting_word"),
                    text_null("waiting"),
                ],
            ),
            // Whole documents of which there is one.
            table("documents", ["name"], vec![text("name"), text("document")]),
        ] {
            manager.create_table(table).await?;
        }
        manager.drop_table(Table::drop().table("plans").if_exists().to_owned()).await
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration("rollouts cannot be taken out again".to_owned()))
    }
}

struct People;

impl MigrationName for People {
    fn name(&self) -> &str {
        "state_0003_people"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for People {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            table("passwords", ["user_name"], vec![text("user_name"), text("phc"), big_integer("changed_ms")]),
            table("sessions", ["sha256"], vec![blob("sha256"), text("user_name"), big_integer("ends_ms")]),
        ] {
            manager.create_table(table).await?;
        }
        Ok(())
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration("people cannot be taken out again".to_owned()))
    }
}

struct Members;

impl MigrationName for Members {
    fn name(&self) -> &str {
        "state_0004_members"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Members {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            // What a claim allows beside enrolling; one without a row is of a time when labels were free.
            table(
                "claim_terms",
                ["claim"],
                vec![blob("claim"), text("may_label"), big_integer("anything"), big_integer("needs_approval")],
            ),
            // Claims that count no more.
            table("claim_ends", ["claim"], vec![blob("claim"), big_integer("at_ms")]),
            // Devices that are not simply members.
            table(
                "standings",
                ["device"],
                vec![text("device"), text("standing"), text("reason"), big_integer("since_ms")],
            ),
            // Keys that never come back; the file beside the database has them too.
            table(
                "revocations",
                ["fingerprint"],
                vec![blob("fingerprint"), text("device"), text("reason"), big_integer("at_ms")],
            ),
            // Keys that may enrol without a claim.
            table(
                "factory_keys",
                ["fingerprint"],
                vec![
                    blob("fingerprint"),
                    text_null("device"),
                    text("labels"),
                    big_integer("added_ms"),
                    big_integer_null("spent_ms"),
                ],
            ),
        ] {
            manager.create_table(table).await?;
        }
        Ok(())
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration("who is in the fleet cannot be taken out again".to_owned()))
    }
}

struct Floors;

impl MigrationName for Floors {
    fn name(&self) -> &str {
        "state_0005_floors"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Floors {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // The newest version floor of each model.
        let columns = vec![text("model"), big_integer("version"), text("envelope"), big_integer("added_ms")];
        manager.create_table(table("floors", ["model"], columns)).await
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration("floors cannot be taken out again".to_owned()))
    }
}

struct Releases;

impl MigrationName for Releases {
    fn name(&self) -> &str {
        "state_0006_releases"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Releases {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Releases of the agent; their files are blobs.
        let columns = vec![text("version"), text("envelope"), big_integer("pushed_ms")];
        manager.create_table(table("releases", ["version"], columns)).await
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration("releases cannot be taken out again".to_owned()))
    }
}

struct Provisioning;

impl MigrationName for Provisioning {
    fn name(&self) -> &str {
        "state_0007_provisioning"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Provisioning {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            // The names of devices that are to come.
            table("claim_names", ["claim"], vec![blob("claim"), text("device")]),
            // Devices that were told to empty themselves, and when they said that they had.
            table(
                "departures",
                ["device"],
                vec![text("device"), text("reason"), big_integer("asked_ms"), big_integer_null("confirmed_ms")],
            ),
        ] {
            manager.create_table(table).await?;
        }
        let index =
            Index::create().if_not_exists().name("claim_names_device").table("claim_names").col("device").to_owned();
        manager.create_index(index).await
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration("names of devices to come cannot be taken out again".to_owned()))
    }
}

struct History;

impl MigrationName for History {
    fn name(&self) -> &str {
        "telemetry_0002_history"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for History {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One device's batches of a time, without a look at all the others.
        let index = Index::create()
            .if_not_exists()
            .name("batches_until")
            .table("batches")
            .col("device")
            .col("until_ms")
            .to_owned();
        manager.create_index(index).await
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration("an index does no harm".to_owned()))
    }
}

struct FirstTelemetry;

impl MigrationName for FirstTelemetry {
    fn name(&self) -> &str {
        "telemetry_0001"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for FirstTelemetry {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            table(
                "batches",
                ["device", "boot", "sequence"],
                vec![
                    text("device"),
                    blob("boot"),
                    big_integer("sequence"),
                    big_integer("received_ms"),
                    big_integer("until_ms"),
                    blob("batch"),
                ],
            ),
            // The newest sample of each machine.
            table("hosts", ["device"], vec![text("device"), big_integer("until_ms"), text("sample")]),
            // Each model on each device, summed up.
            table(
                "models",
                ["device", "deployment", "version"],
                vec![
                    text("device"),
                    text("deployment"),
                    big_integer("version"),
                    big_integer("requests"),
                    big_integer("errors"),
                    big_integer("cpu_us"),
                    blob("latency"),
                    big_integer("received_ms"),
                ],
            ),
        ] {
            manager.create_table(table).await?;
        }
        let index =
            Index::create().if_not_exists().name("batches_received").table("batches").col("received_ms").to_owned();
        manager.create_index(index).await
    }

    async fn down(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Err(DbErr::Migration("there is nothing before the first schema".to_owned()))
    }
}

fn table<const N: usize>(name: &'static str, key: [&'static str; N], columns: Vec<ColumnDef>) -> TableCreateStatement {
    let mut table = Table::create();
    table.table(name).if_not_exists();
    for column in columns {
        table.col(column);
    }
    let mut primary = Index::create();
    for column in key {
        primary.col(column);
    }
    table.primary_key(&mut primary);
    table
}
