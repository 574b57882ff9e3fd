//! Whole documents of which there is one each: what is remembered of silence.

use muster_control_plane_core::liveness::Liveness;
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, execute, json, one, to_json};

const LIVENESS: &str = "liveness";

#[derive(FromQueryResult)]
struct Row {
    document: String,
}

/// Who is silent; nobody at the first start.
pub async fn liveness(db: &impl ConnectionTrait) -> Result<Liveness, DbError> {
    let doing = "read who is silent";
    let sql = "SELECT document FROM documents WHERE name = $1";
    let row: Option<Row> = one(db, doing, sql, [LIVENESS.into()]).await?;
    row.map_or_else(|| Ok(Liveness::default()), |row| json(doing, &row.document))
}

/// Remembers who is silent.
pub async fn set_liveness(db: &impl ConnectionTrait, liveness: &Liveness) -> Result<(), DbError> {
    let sql = "INSERT INTO documents (name, document) VALUES ($1, $2) \
               ON CONFLICT (name) DO UPDATE SET document = excluded.document";
    execute(db, "remember who is silent", sql, [LIVENESS.into(), to_json(liveness).into()]).await.map(drop)
}
