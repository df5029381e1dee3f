//! Numbers that change over a stage of training.

use std::f64::consts::PI;

/// How a number goes from its start to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RampShape {
    #[default]
    Linear,
    /// In equal ratios; both ends must be positive.
    Exponential,
    /// Half a period of a cosine: slow at both ends.
    Cosine,
}

/// A number that goes from `start` to `end`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    pub start: f64,
    pub end: f64,
    #[serde(default)]
    pub shape: RampShape,
}

impl Ramp {
    pub fn constant(value: f64) -> Self {
        Self { start: value, end: value, shape: RampShape::Linear }
    }

    pub fn new(start: f64, end: f64, shape: RampShape) -> Self {
        Self { start, end, shape }
    }

    /// The value at a fraction of the stage, from 0 to 1.
    pub fn at(&self, fraction: f64) -> f64 {
        let Self { start, end, shape } = *self;
        match shape {
            RampShape::Linear => start + (end - start) * fraction,
            RampShape::Exponential => start * (end / start).powf(fraction),
            RampShape::Cosine => end + 0.5 * (start - end) * (1.0 + (PI * fraction).cos()),
        }
    }

    /// Whether it is anything but zero, of a number that is never negative.
    pub(super) fn is_used(&self) -> bool {
        self.start > 0.0 || self.end > 0.0
    }

    /// That both ends are finite, not below `least`, and positive where the shape needs it.
    pub(super) fn check(&self, name: &str, least: f64) -> Result<(), String> {
        for (end, value) in [("start", self.start), ("end", self.end)] {
            if !value.is_finite() || value < least {
                return Err(format!("{name}.{end} is {value}; it must be a finite number, at least {least}"));
            }
            if self.shape == RampShape::Exponential && value <= 0.0 {
                return Err(format!("{name}.{end} is {value}; an exponential ramp needs positive ends"));
            }
        }
        Ok(())
    }
}
