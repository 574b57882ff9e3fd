//! Forgets what is old: telemetry, events, claims that ended.

use std::sync::Arc;
use std::time::Duration;

use muster_shared::id::UnixMs;
use tokio::sync::Notify;

use crate::db::{self, DbError};
use crate::now_ms;
use crate::plane::Plane;

const PAUSE: Duration = Duration::from_secs(60);
const PERIOD: Duration = Duration::from_secs(600);
/// How long telemetry is kept.
const TELEMETRY_MS: UnixMs = 7 * 86_400_000;
/// How many events are kept.
const EVENTS_MAX: u64 = 100_000;
/// How long a claim is kept after its end: its keys can still get a lost certificate.
const CLAIMS_MS: UnixMs = 30 * 86_400_000;

/// Tidies up until the plane stops.
pub async fn run(plane: Arc<Plane>) {
    // Nobody nudges it.
    let wake = Notify::new();
    super::repeat(&plane, "retention", &wake, (PAUSE, PERIOD), async |plane: &Plane| tidy(plane).await).await;
}

async fn tidy(plane: &Plane) -> Result<(), DbError> {
    let now = now_ms();
    let telemetry = db::telemetry::forget(plane.telemetry.connection(), now.saturating_sub(TELEMETRY_MS)).await?;
    let events = db::events::trim(plane.db.write(), EVENTS_MAX).await?;
    let claims = db::claims::forget(plane.db.write(), now.saturating_sub(CLAIMS_MS)).await?;
    if telemetry + events + claims > 0 {
        tracing::info!(telemetry, events, claims, "forgot what is old");
    }
    Ok(())
}
