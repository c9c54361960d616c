//! Finds how many requests an app of unknown capacity can have under way: the limit grows while responses come as
//! quickly as at a lower concurrency, and shrinks by as much as they come later.
//!
//! This is a gradient controller in the manner of Envoy's adaptive concurrency filter and of Netflix's
//! concurrency-limits (Gradient2): `limit × clamp(1.25 × baseline / mean, ½, 1) + √limit`. Three things differ, each
//! because of how those are known to go wrong:
//! - Only responses count whose requests were admitted under the limit that is being judged. Otherwise a limit is cut
//!   again for the latency of the limit before it, and swings.
//! - The baseline is measured and not averaged over time: an average drifts up under lasting overload, and the limit with
//!   it. Every 30 seconds the limit is halved, and halved again as long as that makes responses come sooner; the mean
//!   at the end is the baseline. Unlike a drop to the minimum this sheds little.
//! - When the limit has fallen to less than half of what it was at the last measurement, it is measured at once: either
//!   the app has less room now, or it does slower work, and only a measurement tells these apart.
//!
//! Responses that failed have no meaning as a latency (a refusal is quick). A window with a tenth of them cuts the limit
//! by a tenth.

use std::time::Duration;

use crate::model::clock::Instant;

/// How much slower than the baseline is still as quick: noise, and a little use of the app's own queue.
const TOLERANCE: f64 = 1.25;
/// A window holds at least so many responses; more when the limit is high.
const MIN_SAMPLES: u32 = 10;
/// A window lasts at least this long.
const MIN_WINDOW: Duration = Duration::from_millis(100);
/// The baseline is measured this often, or every hundred response times when that is longer.
const MEASURE_EVERY: Duration = Duration::from_secs(30);
/// A step of a measurement ends after this long, or four response times when that is longer, whatever it has seen.
const MAX_STEP: Duration = Duration::from_secs(1);
/// Half the concurrency has to bring down the response time to less than this, else the app was not busy with itself.
const SOONER: f64 = 0.9;

/// Between what the limit is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The lowest limit, where it starts.
    pub min: u32,
    /// The highest.
    pub max: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { min: 4, max: 1000 }
    }
}

/// The limit as it is now, and what it was learnt from.
#[derive(Debug)]
pub(super) struct Adaptive {
    bounds: Bounds,
    /// What is enforced; a fraction is kept for the next step.
    limit: f64,
    /// Mean seconds to the response head without contention.
    baseline: Option<f64>,
    /// Counts the changes of the limit: a response belongs to the round in which its request was admitted.
    round: u32,
    window: Window,
    stage: Stage,
    measured_at: Instant,
    /// The limit when the baseline was measured.
    measured_under: f64,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Following,
    /// The limit is lowered to see whether responses come sooner.
    Measuring {
        /// What the limit was, and the mean under it.
        before: (f64, f64),
        /// The mean at the step before.
        last: f64,
    },
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    succeeded: u32,
    failed: u32,
    sum: f64,
    /// The most that were under way.
    peak: u32,
}

impl Window {
    /// Mean seconds to the response head; `None` when none succeeded.
    fn mean(&self) -> Option<f64> {
        (self.succeeded > 0).then(|| (self.sum / f64::from(self.succeeded)).max(1e-9))
    }
}

impl Adaptive {
    pub(super) fn new(bounds: Bounds) -> Self {
        let limit = f64::from(bounds.min);
        Self {
            bounds,
            limit,
            baseline: None,
            round: 0,
            window: Window::default(),
            stage: Stage::Following,
            measured_at: Instant::default(),
            measured_under: limit,
        }
    }

    /// How many may be under way.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between the bounds, which are u32")]
    pub(super) fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// The round that a request is admitted in.
    pub(super) fn round(&self) -> u32 {
        self.round
    }

    /// Ends a step of a measurement that gets no responses: while all places are held by streams it would never end.
    pub(super) fn tick(&mut self, now: Instant) {
        let Stage::Measuring { before: (limit, mean), .. } = self.stage else { return };
        let longest = MAX_STEP.max(Duration::from_secs_f64((4.0 * mean).min(60.0)));
        match self.window.began {
            None => self.window.began = Some(now),
            Some(began) if now.since(began) >= longest => match self.window.mean() {
                Some(mean) => self.step(mean, now),
                None => self.follow(limit, now),
            },
            Some(_) => {}
        }
    }

    /// Takes in a response that came after `took`, to a request that was admitted in `round`, while `in_flight` are
    /// under way.
    pub(super) fn sample(&mut self, round: u32, took: Duration, success: bool, in_flight: u32, now: Instant) {
        if round == self.round {
            let window = &mut self.window;
            window.began.get_or_insert(now);
            window.peak = window.peak.max(in_flight);
            if success {
                window.succeeded = window.succeeded.saturating_add(1);
                window.sum += took.as_secs_f64();
            } else {
                window.failed = window.failed.saturating_add(1);
            }
            if self.is_enough(now) {
                self.judge(now);
            }
        }
        self.tick(now);
    }

    /// Whether the window says enough of the limit.
    fn is_enough(&self, now: Instant) -> bool {
        let Window { began, succeeded, failed, .. } = self.window;
        let wanted = MIN_SAMPLES.max(self.limit() / 2);
        let lasted = began.map_or(Duration::ZERO, |began| now.since(began));
        match self.stage {
            Stage::Following => succeeded.saturating_add(failed) >= wanted && lasted >= MIN_WINDOW,
            Stage::Measuring { .. } => succeeded >= wanted,
        }
    }

    fn judge(&mut self, now: Instant) {
        let mean = self.window.mean();
        match (self.stage, mean) {
            (Stage::Measuring { .. }, Some(mean)) => self.step(mean, now),
            (Stage::Following, Some(mean)) if !self.is_failing() => self.adjust(mean, now),
            _ => {
                let cut = self.limit * 0.9;
                self.set(cut);
            }
        }
    }

    fn is_failing(&self) -> bool {
        u64::from(self.window.failed) * 10 >= u64::from(self.window.succeeded) + u64::from(self.window.failed)
    }

    /// Moves the limit by what a window says of it.
    fn adjust(&mut self, mean: f64, now: Instant) {
        let baseline = match self.baseline {
            None => {
                // the first window, at the lowest limit
                self.measured_at = now;
                mean
            }
            // quicker than ever: the app, or what is asked of it, has changed; by steps, for it may be noise
            Some(baseline) if mean < baseline => baseline + (mean - baseline) * 0.2,
            Some(baseline) => baseline,
        };
        self.baseline = Some(baseline);
        let gradient = (TOLERANCE * baseline / mean).clamp(0.5, 1.0);
        let target = self.limit * gradient + self.limit.sqrt();
        // a limit that nobody reaches has not been tried: it grows no further
        let is_used = u64::from(self.window.peak) * 2 >= u64::from(self.limit());
        if target < self.limit || is_used {
            self.set(target);
        } else {
            self.set(self.limit);
        }
        if self.wants_measurement(mean, gradient, now) {
            self.measure(mean);
        }
    }

    fn wants_measurement(&self, mean: f64, gradient: f64, now: Instant) -> bool {
        let since = now.since(self.measured_at);
        let every = MEASURE_EVERY.max(Duration::from_secs_f64((100.0 * mean).min(3600.0)));
        let fell = self.limit < self.measured_under / 2.0;
        let stuck = gradient < 1.0 && self.limit() <= self.bounds.min && since >= MAX_STEP;
        since >= every || fell || stuck
    }

    fn measure(&mut self, mean: f64) {
        self.stage = Stage::Measuring { before: (self.limit, mean), last: mean };
        self.set(self.limit / 2.0);
    }

    /// A step of the measurement has ended with this mean.
    fn step(&mut self, mean: f64, now: Instant) {
        let Stage::Measuring { before, last } = self.stage else { return };
        if mean < last * SOONER && self.limit() > self.bounds.min {
            self.stage = Stage::Measuring { before, last: mean };
            self.set(self.limit / 2.0);
            return;
        }
        let baseline = mean.min(last);
        self.baseline = Some(baseline);
        let (limit, under_load) = before;
        // Little's law: what was under way, less what waited inside the app
        self.follow(limit * (TOLERANCE * baseline / under_load).min(1.0), now);
    }

    fn follow(&mut self, limit: f64, now: Instant) {
        self.stage = Stage::Following;
        self.set(limit);
        self.measured_at = now;
        self.measured_under = self.limit;
    }

    /// A new limit, judged by what is admitted from now on.
    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(f64::from(self.bounds.min), f64::from(self.bounds.max.max(self.bounds.min)));
        self.round = self.round.wrapping_add(1);
        self.window = Window::default();
    }
}
