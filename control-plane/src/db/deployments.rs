//! Deployments: what operators want.

use muster_shared::DeploymentName;
use muster_shared::api::deployment::Spec;
use muster_shared::id::{Labels, UnixMs};
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, execute, json, name, one, to_json, unsigned};

/// A deployment as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct DeploymentRecord {
    /// Its name.
    pub name: DeploymentName,
    /// Grows with each change of `spec`.
    pub generation: u64,
    /// Its own labels.
    pub labels: Labels,
    /// What is wanted.
    pub spec: Spec,
}

#[derive(FromQueryResult)]
struct Row {
    name: String,
    generation: i64,
    labels: String,
    spec: String,
}

#[derive(FromQueryResult)]
struct NameRow {
    name: String,
}

const COLUMNS: &str = "SELECT name, generation, labels, spec FROM deployments";

/// Every deployment, by name.
pub async fn list(db: &impl ConnectionTrait) -> Result<Vec<DeploymentRecord>, DbError> {
    let doing = "list the deployments";
    let rows: Vec<Row> = all(db, doing, &format!("{COLUMNS} ORDER BY name"), []).await?;
    rows.into_iter().map(|row| record(doing, row)).collect()
}

/// One deployment.
pub async fn get(db: &impl ConnectionTrait, of: &DeploymentName) -> Result<Option<DeploymentRecord>, DbError> {
    let doing = "look up a deployment";
    let row: Option<Row> = one(db, doing, &format!("{COLUMNS} WHERE name = $1"), [of.as_str().into()]).await?;
    row.map(|row| record(doing, row)).transpose()
}

/// Whether there is such a deployment.
pub async fn exists(db: &impl ConnectionTrait, of: &DeploymentName) -> Result<bool, DbError> {
    let sql = "SELECT name FROM deployments WHERE name = $1";
    let row: Option<NameRow> = one(db, "look up a deployment", sql, [of.as_str().into()]).await?;
    Ok(row.is_some_and(|row| row.name == of.as_str()))
}

/// Creates a deployment, or puts it in the place of the one with its name.
pub async fn put(db: &impl ConnectionTrait, deployment: &DeploymentRecord, now_ms: UnixMs) -> Result<(), DbError> {
    let sql = "INSERT INTO deployments (name, generation, labels, spec, created_ms, changed_ms) \
               VALUES ($1, $2, $3, $4, $5, $5) \
               ON CONFLICT (name) DO UPDATE SET generation = excluded.generation, labels = excluded.labels, \
               spec = excluded.spec, changed_ms = excluded.changed_ms";
    let values = [
        deployment.name.as_str().into(),
        big(deployment.generation).into(),
        to_json(&deployment.labels).into(),
        to_json(&deployment.spec).into(),
        big(now_ms).into(),
    ];
    execute(db, "store a deployment", sql, values).await.map(drop)
}

/// Removes a deployment; says whether there was one.
pub async fn delete(db: &impl ConnectionTrait, of: &DeploymentName) -> Result<bool, DbError> {
    let sql = "DELETE FROM deployments WHERE name = $1";
    let removed = execute(db, "remove a deployment", sql, [of.as_str().into()]).await?;
    Ok(removed > 0)
}

fn record(doing: &'static str, row: Row) -> Result<DeploymentRecord, DbError> {
    Ok(DeploymentRecord {
        name: name(doing, &row.name)?,
        generation: unsigned(row.generation),
        labels: json(doing, &row.labels)?,
        spec: json(doing, &row.spec)?,
    })
}
