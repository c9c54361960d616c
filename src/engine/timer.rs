//! One timer per connection (or HTTP/2 stream) for all its deadlines.
//!
//! Deadlines mostly move later with each request, so the runtime's timer is left where it is and asked again when it
//! fires: a keep-alive connection touches the timer wheel about once per `timeout.attempt`, not per request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Sleep;

use crate::model::clock::{Clock, Instant};

/// A timer that is polled with the deadline of the moment.
#[derive(Debug, Default)]
pub struct Timer {
    sleep: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Timer {
    /// `Ready` when `at` has come. The task is woken at `at` at the latest, and maybe before.
    pub fn poll_until(&mut self, cx: &mut Context<'_>, clock: &Clock, at: Instant) -> Poll<()> {
        // A timer that is set for no later than `at` and has not fired says that `at` has not come: no look at the clock.
        let is_early = |(fires, _): &(Instant, _)| *fires <= at;
        if self.sleep.as_ref().is_some_and(is_early)
            && let Some((_, sleep)) = &mut self.sleep
            && sleep.as_mut().poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        let now = clock.now();
        if now >= at {
            return Poll::Ready(());
        }
        let wake_at = || tokio::time::Instant::now() + at.since(now);
        let (fires, sleep) = self.sleep.get_or_insert_with(|| (at, Box::pin(tokio::time::sleep_until(wake_at()))));
        if *fires > at {
            *fires = at;
            sleep.as_mut().reset(wake_at());
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if clock.now() >= at {
                return Poll::Ready(());
            }
            *fires = at;
            sleep.as_mut().reset(wake_at());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn fires_at_the_deadline_even_when_it_was_armed_for_an_earlier_one() {
        let clock = Clock::manual();
        let mut timer = Timer::default();
        let early = clock.now().after(Duration::from_secs(1));
        let late = clock.now().after(Duration::from_secs(5));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(timer.poll_until(&mut cx, &clock, early).is_pending());
        clock.advance(Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(timer.poll_until(&mut cx, &clock, late).is_pending());
        assert!(timer.poll_until(&mut cx, &clock, early).is_ready());
        clock.advance(Duration::from_secs(3));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(timer.poll_until(&mut cx, &clock, late).is_ready());
    }
}
