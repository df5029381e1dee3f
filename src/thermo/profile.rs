//! Profiles: which bin a sample falls into, and what comes out.

use super::bootstrap::Estimate;
use super::collective_variable::BoundVariable;
use super::density::{BandwidthRule, KernelDensity};

/// Equal bins of a variable over [low, high).
#[derive(Clone, Debug)]
pub struct ProfileAxis {
    pub variable: BoundVariable,
    /// Both are finite; of a periodic variable they are at most a period apart.
    pub low: f64,
    pub high: f64,
    /// At least one.
    pub bins: usize,
}

/// A free-energy profile in one variable or two.
#[derive(Clone, Debug)]
pub struct ProfileQuery {
    pub first: ProfileAxis,
    pub second: Option<ProfileAxis>,
    /// In one variable, a kernel density is made beside the histogram.
    pub kernel: Option<KernelDensity>,
}

/// A profile as estimated.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// bins + 1 edges.
    pub edges: Vec<f64>,
    /// The same of the second variable; empty if there is none.
    pub second_edges: Vec<f64>,
    /// −log of the probability density in each bin, in kT, its smallest value being zero; +∞ in empty bins. With two
    /// variables all bins of the second follow one another for each of the first.
    pub free_energy: Vec<Estimate>,
    /// The probability of being inside.
    pub covered: f64,
    pub kernel: Option<KernelProfile>,
}

/// A profile by kernel density.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelProfile {
    /// −log of the density at the centre of each bin, in kT, its smallest value being zero; +∞ where no sample is near.
    pub free_energy: Vec<Estimate>,
    /// Standard deviation of the kernel, in the variable's unit.
    pub bandwidth: f64,
    pub rule: BandwidthRule,
}

impl ProfileQuery {
    /// How many bins the histogram has.
    pub fn bins(&self) -> usize {
        self.first.bins * self.second.as_ref().map_or(1, |second| second.bins)
    }

    /// The bin that the values of the variables are in.
    pub(super) fn bin(&self, first: f64, second: Option<f64>) -> Option<usize> {
        let row = self.first.bin(first)?;
        match (&self.second, second) {
            (Some(axis), Some(value)) => Some(row * axis.bins + axis.bin(value)?),
            _ => Some(row),
        }
    }
}

impl ProfileAxis {
    fn bin(&self, value: f64) -> Option<usize> {
        let value = match self.variable.description().period() {
            Some(period) => self.low + (value - self.low).rem_euclid(period),
            None => value,
        };
        if !(self.low..self.high).contains(&value) {
            return None;
        }
        let bin = ((value - self.low) / (self.high - self.low) * self.bins as f64) as usize;
        Some(bin.min(self.bins - 1))
    }

    /// bins + 1 edges.
    pub(super) fn edges(&self) -> Vec<f64> {
        (0..=self.bins).map(|i| self.low + (self.high - self.low) * i as f64 / self.bins as f64).collect()
    }

    /// The middle of each bin.
    pub(super) fn centres(&self) -> impl Iterator<Item = f64> {
        let width = (self.high - self.low) / self.bins as f64;
        (0..self.bins).map(move |i| self.low + (i as f64 + 0.5) * width)
    }
}
