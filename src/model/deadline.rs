//! A moment after which an activity is no longer worth finishing, and which of its limits said so.

use std::time::Duration;

use super::clock::Instant;

/// Which limit a [`Deadline`] comes from; the name goes into logs and error details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `timeout.request`: from the first byte of the request to the last byte of the response.
    Request,
    /// `timeout.attempt`: from the last byte of the request to the head of the response, for each attempt.
    Attempt,
    /// `timeout.idle`: between two reads or writes that make progress.
    Idle,
    /// `connect_timeout` of the upstream: TCP, TLS and HTTP/2 handshakes together.
    Connect,
    /// `timeout.stream`: like [`Limit::Request`], for long-lived streams.
    Stream,
    /// The client's `grpc-timeout`.
    Grpc,
    /// `concurrency.queue_timeout` of the upstream.
    Queue,
}

impl Limit {
    /// Whether it ends the whole exchange, not only an attempt.
    #[must_use]
    pub const fn ends_exchange(self) -> bool {
        matches!(self, Self::Request | Self::Stream | Self::Grpc)
    }

    /// The name of the setting, or of the field that said it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "timeout.request",
            Self::Attempt => "timeout.attempt",
            Self::Idle => "timeout.idle",
            Self::Connect => "connect_timeout",
            Self::Stream => "timeout.stream",
            Self::Grpc => "grpc-timeout",
            Self::Queue => "concurrency.queue_timeout",
        }
    }
}

/// An instant and the limit that set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// When it is over.
    pub at: Instant,
    /// Which limit is over then.
    pub limit: Limit,
}

impl Deadline {
    /// The deadline `after` from `now`.
    #[must_use]
    pub fn new(now: Instant, after: Duration, limit: Limit) -> Self {
        Self { at: now.after(after), limit }
    }

    /// The earlier of the two; `self` when they fall together.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        if other.at < self.at { other } else { self }
    }

    /// Time left at `now`; zero when it is over.
    #[must_use]
    pub fn left(self, now: Instant) -> Duration {
        self.at.since(now)
    }

    /// Whether it is over at `now`.
    #[must_use]
    pub fn is_over(self, now: Instant) -> bool {
        now >= self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_limit_wins() {
        let now = Instant::from_nanos(0);
        let request = Deadline::new(now, Duration::from_secs(30), Limit::Request);
        let attempt = Deadline::new(now, Duration::from_secs(10), Limit::Attempt);
        assert_eq!(request.min(attempt).limit, Limit::Attempt);
        assert_eq!(attempt.min(request).limit, Limit::Attempt);
        assert!(attempt.is_over(now.after(Duration::from_secs(10))));
        assert_eq!(attempt.left(now.after(Duration::from_secs(4))), Duration::from_secs(6));
    }
}
