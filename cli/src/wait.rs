//! Asking again until something is so.

use std::time::Duration;

use crate::error::{Result, warn};

/// How often is asked.
const PERIOD: Duration = Duration::from_millis(500);

/// Looks until there is something to give back; nothing if that takes longer than `timeout`. A
/// failure that may pass is told once, and the next look may do better.
pub async fn until<T>(timeout: Option<Duration>, look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    match timeout {
        None => look_again(look).await.map(Some),
        Some(timeout) => match tokio::time::timeout(timeout, look_again(look)).await {
            Ok(found) => found.map(Some),
            Err(_) => Ok(None),
        },
    }
}

async fn look_again<T>(mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let mut failing = false;
    loop {
        match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => failing = false,
            Err(failure) if !failure.is_passing() => return Err(failure),
            Err(_) if failing => {}
            Err(failure) => {
                warn(format_args!("{failure}; asking again"));
                failing = true;
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;

    #[tokio::test]
    async fn it_looks_until_something_is_there_or_time_is_up() {
        let mut looks = 0;
        let second = async || {
            looks += 1;
            Ok((looks == 2).then_some(looks))
        };
        assert_eq!(until(None, second).await.expect("found"), Some(2));
        let nothing: Option<u32> = until(Some(Duration::ZERO), async || Ok(None)).await.expect("no failure");
        assert_eq!(nothing, None);
    }

    #[tokio::test]
    async fn a_failure_that_will_not_pass_ends_it() {
        let failed = until(None, async || Err::<Option<()>, _>(Failure::new("no such thing"))).await;
        assert_eq!(failed.expect_err("fails").to_string(), "no such thing");
    }
}
