//! API tokens and the first run's one-time code, by digest: a stolen database opens no door.

use muster_shared::Digest;
use muster_shared::id::UnixMs;
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, big, execute, one};

/// The name of the first run's one-time code.
const ADMIN_CODE: &str = "admin-code";

#[derive(FromQueryResult)]
struct User {
    user_name: String,
}

#[derive(FromQueryResult)]
struct Count {
    found: i64,
}

/// Whose token has this digest.
pub async fn user(db: &impl ConnectionTrait, token: Digest) -> Result<Option<String>, DbError> {
    let sql = "SELECT user_name FROM tokens WHERE sha256 = $1";
    let row: Option<User> = one(db, "look up a token", sql, [token.0.to_vec().into()]).await?;
    Ok(row.map(|row| row.user_name))
}

/// Whether anyone has ever logged in.
pub async fn any(db: &impl ConnectionTrait) -> Result<bool, DbError> {
    let sql = "SELECT COUNT(*) AS found FROM tokens";
    let row: Option<Count> = one(db, "count the tokens", sql, []).await?;
    Ok(row.is_some_and(|row| row.found > 0))
}

/// Adds a token.
pub async fn insert(db: &impl ConnectionTrait, token: Digest, user: &str, now_ms: UnixMs) -> Result<(), DbError> {
    let sql = "INSERT INTO tokens (sha256, user_name, created_ms) VALUES ($1, $2, $3)";
    let values = [token.0.to_vec().into(), user.into(), big(now_ms).into()];
    execute(db, "store a token", sql, values).await.map(drop)
}

/// Puts a new one-time code in the place of any before it.
pub async fn set_admin_code(db: &impl ConnectionTrait, code: Digest, now_ms: UnixMs) -> Result<(), DbError> {
    let sql = "INSERT INTO secrets (name, sha256, created_ms) VALUES ($1, $2, $3) \
               ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, created_ms = excluded.created_ms";
    let values = [ADMIN_CODE.into(), code.0.to_vec().into(), big(now_ms).into()];
    execute(db, "store the admin code", sql, values).await.map(drop)
}

/// Whether this is the digest of the one-time code.
pub async fn is_admin_code(db: &impl ConnectionTrait, code: Digest) -> Result<bool, DbError> {
    let sql = "SELECT COUNT(*) AS found FROM secrets WHERE name = $1 AND sha256 = $2";
    let values = [ADMIN_CODE.into(), code.0.to_vec().into()];
    let row: Option<Count> = one(db, "look up the admin code", sql, values).await?;
    Ok(row.is_some_and(|row| row.found > 0))
}

/// Spends the one-time code with this digest; says whether it was the one.
pub async fn spend_admin_code(db: &impl ConnectionTrait, code: Digest) -> Result<bool, DbError> {
    let sql = "DELETE FROM secrets WHERE name = $1 AND sha256 = $2";
    let spent = execute(db, "spend the admin code", sql, [ADMIN_CODE.into(), code.0.to_vec().into()]).await?;
    Ok(spent == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::tests::state;

    #[tokio::test]
    async fn a_code_is_spent_once_and_only_the_newest_counts() {
        let (db, _folder) = state().await;
        let (old, new) = (Digest::of("old"), Digest::of("new"));
        set_admin_code(db.write(), old, 1).await.expect("stores");
        set_admin_code(db.write(), new, 2).await.expect("stores");
        assert!(!is_admin_code(db.read(), old).await.expect("asks"));
        assert!(is_admin_code(db.read(), new).await.expect("asks"));
        assert!(!spend_admin_code(db.write(), old).await.expect("asks"));
        assert!(spend_admin_code(db.write(), new).await.expect("asks"));
        assert!(!spend_admin_code(db.write(), new).await.expect("asks"));
        assert!(!any(db.read()).await.expect("asks"));
        insert(db.write(), new, "admin", 3).await.expect("stores");
        assert_eq!(user(db.read(), new).await.expect("asks").as_deref(), Some("admin"));
        assert_eq!(user(db.read(), old).await.expect("asks"), None);
    }
}
