//! Background tasks: idempotent, woken by a nudge or by time, reading the truth themselves.

pub mod departures;
mod floors;
pub mod planner;
pub mod publisher;
pub mod refusals;
pub mod retention;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::plane::Plane;

/// Runs `work` when woken and at least every `period`, at most once in `pause`, until the plane stops.
async fn repeat<E: std::error::Error + 'static>(
    plane: &Arc<Plane>,
    name: &'static str,
    wake: &Notify,
    (pause, period): (Duration, Duration),
    mut work: impl AsyncFnMut(&Plane) -> Result<(), E>,
) {
    loop {
        if let Err(error) = work(plane).await {
            tracing::warn!(task = name, error = &error as &dyn std::error::Error, "task failed; will retry");
        }
        let rest = async {
            // Many nudges in a row are one.
            sleep(pause).await;
            let _ = timeout(period, wake.notified()).await;
        };
        tokio::select! {
            () = plane.stop.cancelled() => return,
            () = rest => {}
        }
    }
}

/// Starts them all.
pub fn start(plane: &Arc<Plane>) {
    plane.tasks.spawn(planner::run(plane.clone()));
    plane.tasks.spawn(publisher::run(plane.clone()));
    plane.tasks.spawn(retention::run(plane.clone()));
    plane.tasks.spawn(refusals::run(plane.clone()));
    plane.tasks.spawn(departures::run(plane.clone()));
}
