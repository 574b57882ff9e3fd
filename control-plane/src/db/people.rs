//! People's passwords, by hash, and the sessions of their browsers, by digest: a stolen database opens
//! no door.

use muster_shared::Digest;
use muster_shared::id::UnixMs;
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, big, execute, one};

/// Sessions that one user may have; the oldest give way.
const SESSIONS_MAX: u64 = 100;

#[derive(FromQueryResult)]
struct Password {
    phc: String,
}

#[derive(FromQueryResult)]
struct User {
    user_name: String,
}

/// The hash of a user's password, as a PHC string; none: there is no such user.
pub async fn password(db: &impl ConnectionTrait, user: &str) -> Result<Option<String>, DbError> {
    let sql = "SELECT phc FROM passwords WHERE user_name = $1";
    let row: Option<Password> = one(db, "look up a password", sql, [user.into()]).await?;
    Ok(row.map(|row| row.phc))
}

/// Puts a password in the place of any before it.
pub async fn set_password(db: &impl ConnectionTrait, user: &str, phc: &str, now_ms: UnixMs) -> Result<(), DbError> {
    let sql = "INSERT INTO passwords (user_name, phc, changed_ms) VALUES ($1, $2, $3) \
               ON CONFLICT (user_name) DO UPDATE SET phc = excluded.phc, changed_ms = excluded.changed_ms";
    execute(db, "store a password", sql, [user.into(), phc.into(), big(now_ms).into()]).await.map(drop)
}

/// Adds a session; those that ended go, and the oldest of a user that has too many. In a transaction.
pub async fn insert_session(
    db: &impl ConnectionTrait,
    session: Digest,
    user: &str,
    (now_ms, ends_ms): (UnixMs, UnixMs),
) -> Result<(), DbError> {
    let doing = "store a session";
    execute(db, doing, "DELETE FROM sessions WHERE ends_ms <= $1", [big(now_ms).into()]).await?;
    let sql = "DELETE FROM sessions WHERE sha256 IN (SELECT sha256 FROM sessions WHERE user_name = $1 \
               ORDER BY ends_ms DESC, sha256 LIMIT $2 OFFSET $3)";
    // PostgreSQL knows no OFFSET without end in SQLite's spelling; so many rows are without end.
    let values = [user.into(), i64::MAX.into(), big(SESSIONS_MAX - 1).into()];
    execute(db, doing, sql, values).await?;
    let sql = "INSERT INTO sessions (sha256, user_name, ends_ms) VALUES ($1, $2, $3)";
    execute(db, doing, sql, [session.0.to_vec().into(), user.into(), big(ends_ms).into()]).await.map(drop)
}

/// Whose session this is, if it has not ended.
pub async fn session(db: &impl ConnectionTrait, session: Digest, now_ms: UnixMs) -> Result<Option<String>, DbError> {
    let sql = "SELECT user_name FROM sessions WHERE sha256 = $1 AND ends_ms > $2";
    let values = [session.0.to_vec().into(), big(now_ms).into()];
    let row: Option<User> = one(db, "look up a session", sql, values).await?;
    Ok(row.map(|row| row.user_name))
}

/// Ends one session.
pub async fn end_session(db: &impl ConnectionTrait, session: Digest) -> Result<(), DbError> {
    let sql = "DELETE FROM sessions WHERE sha256 = $1";
    execute(db, "end a session", sql, [session.0.to_vec().into()]).await.map(drop)
}

/// Ends all sessions of a user but one.
pub async fn end_other_sessions(db: &impl ConnectionTrait, user: &str, keep: Option<Digest>) -> Result<(), DbError> {
    let keep = keep.map_or_else(Vec::new, |keep| keep.0.to_vec());
    let sql = "DELETE FROM sessions WHERE user_name = $1 AND sha256 <> $2";
    execute(db, "end sessions", sql, [user.into(), keep.into()]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::tests::state;

    #[tokio::test]
    async fn sessions_end_and_the_oldest_give_way() {
        let (db, _folder) = state().await;
        let name = |number: u64| Digest::of(number.to_string());
        for number in 0..=SESSIONS_MAX {
            insert_session(db.write(), name(number), "admin", (1, 1000 + number)).await.expect("stores");
        }
        let whose = async |number: u64, now_ms| session(db.read(), name(number), now_ms).await.expect("asks");
        assert_eq!(whose(0, 1).await, None, "the oldest gave way");
        assert_eq!(whose(1, 1).await.as_deref(), Some("admin"));
        assert_eq!(whose(1, 1001).await, None, "it has ended");
        end_session(db.write(), name(1)).await.expect("ends");
        assert_eq!(whose(1, 1).await, None);
        end_other_sessions(db.write(), "admin", Some(name(3))).await.expect("ends");
        assert_eq!((whose(2, 1).await, whose(3, 1).await.as_deref()), (None, Some("admin")));
    }

    #[tokio::test]
    async fn the_newest_password_counts() {
        let (db, _folder) = state().await;
        assert_eq!(password(db.read(), "admin").await.expect("asks"), None);
        for phc in ["old", "new"] {
            set_password(db.write(), "admin", phc, 1).await.expect("stores");
        }
        assert_eq!(password(db.read(), "admin").await.expect("asks").as_deref(), Some("new"));
    }
}
