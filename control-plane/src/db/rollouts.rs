//! How each deployment's versions changed: the newest rollout is the one in force.

use std::collections::BTreeMap;

use muster_control_plane_core::rollout::Rollout;
use muster_shared::DeploymentName;
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{DbError, all, big, execute, json, name, to_json};

/// Rollouts of one deployment that are remembered; the oldest give way.
pub const REMEMBERED_MAX: u64 = 50;

#[derive(FromQueryResult)]
struct Row {
    deployment: String,
    rollout: String,
}

/// The rollout in force of every deployment.
pub async fn current(db: &impl ConnectionTrait) -> Result<BTreeMap<DeploymentName, Rollout>, DbError> {
    let doing = "read the rollouts";
    let sql = "SELECT deployment, rollout FROM rollouts AS held \
               WHERE number = (SELECT MAX(number) FROM rollouts WHERE deployment = held.deployment)";
    let rows: Vec<Row> = all(db, doing, sql, []).await?;
    rows.iter().map(|row| Ok((name(doing, &row.deployment)?, json(doing, &row.rollout)?))).collect()
}

/// The rollouts of one deployment, the newest first.
pub async fn history(db: &impl ConnectionTrait, of: &DeploymentName) -> Result<Vec<Rollout>, DbError> {
    let doing = "read a deployment's rollouts";
    let sql = "SELECT deployment, rollout FROM rollouts WHERE deployment = $1 ORDER BY number DESC";
    let rows: Vec<Row> = all(db, doing, sql, [of.as_str().into()]).await?;
    rows.iter().map(|row| json(doing, &row.rollout)).collect()
}

/// Stores a rollout under its number; forgets the oldest ones. In a transaction.
pub async fn put(db: &impl ConnectionTrait, of: &DeploymentName, rollout: &Rollout) -> Result<(), DbError> {
    let doing = "store a rollout";
    let sql = "INSERT INTO rollouts (deployment, number, rollout) VALUES ($1, $2, $3) \
               ON CONFLICT (deployment, number) DO UPDATE SET rollout = excluded.rollout";
    execute(db, doing, sql, [of.as_str().into(), big(rollout.number).into(), to_json(rollout).into()]).await?;
    let oldest = rollout.number.saturating_sub(REMEMBERED_MAX);
    let sql = "DELETE FROM rollouts WHERE deployment = $1 AND number <= $2";
    execute(db, doing, sql, [of.as_str().into(), big(oldest).into()]).await.map(drop)
}

/// Forgets the rollouts of a deployment that is gone.
pub async fn forget(db: &impl ConnectionTrait, of: &DeploymentName) -> Result<(), DbError> {
    let sql = "DELETE FROM rollouts WHERE deployment = $1";
    execute(db, "forget a deployment's rollouts", sql, [of.as_str().into()]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use muster_control_plane_core::fleet::Release;
    use muster_control_plane_core::rollout::Stage;
    use muster_shared::desired::Resources;
    use muster_shared::{Digest, Version};

    use super::*;
    use crate::db::tests::state;

    fn rollout(number: u64) -> Rollout {
        let target = Release {
            model: "digits".parse().expect("a name"),
            version: Version::new(number).expect("positive"),
            manifest: Digest::of("manifest"),
            resources: Resources { cpu_milli: 250, memory_bytes: 64 << 20 },
            attempt: 0,
        };
        Rollout {
            number,
            target,
            previous: None,
            stage: Stage::Stopped { reason: "golden vectors".to_owned() },
            granted: BTreeMap::new(),
            failed: BTreeMap::new(),
            lost: 0,
            began_ms: 1,
            changed_ms: 2,
        }
    }

    #[tokio::test]
    async fn the_newest_is_in_force_and_the_oldest_give_way() {
        let (db, _folder) = state().await;
        let digits: DeploymentName = "digits".parse().expect("a name");
        for number in 1..=REMEMBERED_MAX + 5 {
            put(db.write(), &digits, &rollout(number)).await.expect("stored");
        }
        let held = current(db.read()).await.expect("read");
        assert_eq!(held.get(&digits), Some(&rollout(REMEMBERED_MAX + 5)));
        let history = history(db.read(), &digits).await.expect("read");
        assert_eq!((history.len() as u64, history[0].number), (REMEMBERED_MAX, REMEMBERED_MAX + 5));
        forget(db.write(), &digits).await.expect("forgotten");
        assert!(current(db.read()).await.expect("read").is_empty());
    }
}
