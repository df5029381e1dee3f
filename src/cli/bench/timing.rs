//! Timing calls.

use super::super::client::CliError;
use std::time::{Duration, Instant};

/// How long a workload is measured.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Pace {
    pub warm_up: usize,
    pub least_calls: usize,
    pub seconds: f64,
}

impl Pace {
    /// Three calls to warm up, then calls for so many seconds, five at least.
    pub fn thorough(seconds: f64) -> Self {
        Self { warm_up: 3, least_calls: 5, seconds }
    }

    /// Enough to see that a workload runs, and about how fast.
    pub fn brief() -> Self {
        Self { warm_up: 1, least_calls: 2, seconds: 0.2 }
    }

    /// Seconds of the median call.
    pub fn time(&self, mut call: impl FnMut() -> Result<(), CliError>) -> Result<f64, CliError> {
        for _ in 0..self.warm_up {
            call()?;
        }
        let mut times = Vec::new();
        let mut clock = Clock::start(self);
        while clock.goes_on() {
            let begin = Instant::now();
            call()?;
            times.push(begin.elapsed().as_secs_f64());
        }
        Ok(quantile(&mut times, 0.5))
    }
}

/// Says when enough calls were timed.
pub(super) struct Clock {
    stop: Instant,
    calls_left: usize,
}

impl Clock {
    pub fn start(pace: &Pace) -> Self {
        Self { stop: Instant::now() + Duration::from_secs_f64(pace.seconds), calls_left: pace.least_calls }
    }

    /// Whether another call is to be timed.
    pub fn goes_on(&mut self) -> bool {
        let goes_on = self.calls_left > 0 || Instant::now() < self.stop;
        self.calls_left = self.calls_left.saturating_sub(1);
        goes_on
    }
}

/// The value below which this share of them lies; NaN of nothing.
pub(super) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// Seconds as they are written on the command line.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.0..=3600.0).contains(&s) => Ok(s),
        _ => Err("it must be from 0 to 3600".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut times: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut times, 0.5), 50.0);
        assert_eq!(quantile(&mut times, 0.99), 99.0);
        assert_eq!(quantile(&mut times, 1.0), 100.0);
        assert_eq!(quantile(&mut [7.0], 0.01), 7.0);
        assert!(quantile(&mut [], 0.5).is_nan());
    }
}
