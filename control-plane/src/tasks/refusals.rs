//! Writes down who was not let in: a line for each address, at most once a minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use muster_shared::api::fleet::Happening;
use tokio::sync::Notify;

use crate::db::{self, DbError};
use crate::plane::Plane;
use crate::trust::members::event;

const PERIOD: Duration = Duration::from_secs(1);

/// Writes until the plane stops.
pub async fn run(plane: Arc<Plane>) {
    // Nobody nudges it.
    let wake = Notify::new();
    super::repeat(&plane, "refusals", &wake, (Duration::ZERO, PERIOD), async |plane: &Plane| write(plane).await).await;
}

async fn write(plane: &Plane) -> Result<(), DbError> {
    let lines = plane.refusals.due(Instant::now());
    if lines.is_empty() {
        return Ok(());
    }
    let transaction = plane.db.begin().await?;
    for line in lines {
        tracing::warn!(line, "tries to enrol were refused");
        db::events::insert(&transaction, &event(None, Happening::EnrolmentRefused, line)).await?;
    }
    db::commit(transaction).await
}
