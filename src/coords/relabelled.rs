//! Identical particles in one order.

use super::cartesian::CartesianCoordinates;
use super::transform::{CoordinateKind, CoordinateTransform, CoordinatesError, CoordinatesSpec};
use crate::math::{assign, is_own_best};
use std::ops::Range;

/// Cartesian coordinates of particles of which those of each range in `identical` can be exchanged: only that order has a
/// density in which they are assigned to the places of `reference` with the least sum of squared distances (as Noé et al.,
/// Science 365, eaaw1147 (2019), relabel their training data by the Hungarian method).
///
/// One of N! orders has that property, almost everywhere: log Z counts all, so that it is that of all configurations.
/// Positions in another order are put into this one. The transform has no form for a GPU.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RelabelledCoordinates {
    cartesian: CartesianCoordinates,
    space: usize,
    identical: Vec<Range<usize>>,
    reference: Vec<f64>,
    #[serde(skip)]
    log_orders: f64,
}

impl RelabelledCoordinates {
    /// From coordinates of particles in a space of `space` dimensions, and positions (D) to which particles belong.
    pub fn new(
        cartesian: CartesianCoordinates,
        space: usize,
        identical: Vec<Range<usize>>,
        reference: Vec<f64>,
    ) -> Result<Self, CoordinatesError> {
        Self { cartesian, space, identical, reference, log_orders: 0.0 }.checked()
    }

    pub(super) fn checked(mut self) -> Result<Self, CoordinatesError> {
        self.cartesian = self.cartesian.checked()?;
        let d = self.cartesian.position_dimension();
        let particles = d / self.space.max(1);
        let mut ends = self.identical.iter().map(|range| (range.start, range.end));
        let sound = self.space > 0
            && particles * self.space == d
            && self.reference.len() == d
            && self.reference.iter().all(|x| x.is_finite())
            && ends
                .try_fold(0, |last, (start, end)| (last <= start && start < end).then_some(end))
                .is_some_and(|last| last <= particles);
        if !sound {
            return Err(CoordinatesError::Stored("ranges of identical particles do not fit the reference".into()));
        }
        let log_factorial = |range: &Range<usize>| (2..=range.len()).map(|k| (k as f64).ln()).sum::<f64>();
        self.log_orders = self.identical.iter().map(log_factorial).sum();
        Ok(self)
    }

    /// Squared distances of the particles of a range (rows) to the places of that range (columns).
    fn costs(&self, x: &[f64], range: &Range<usize>) -> Vec<f64> {
        let s = self.space;
        let squared = |i: usize, j: usize| -> f64 {
            let (a, b) = (&x[i * s..(i + 1) * s], &self.reference[j * s..(j + 1) * s]);
            a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
        };
        range.clone().flat_map(|i| range.clone().map(move |j| squared(i, j))).collect()
    }

    /// Puts identical particles in order.
    pub(super) fn put_in_order(&self, x: &mut [f64]) {
        let s = self.space;
        for range in &self.identical {
            let costs = self.costs(x, range);
            if is_own_best(&costs, range.len()) {
                continue;
            }
            let before = x[range.start * s..range.end * s].to_vec();
            for (row, column) in assign(&costs, range.len()).into_iter().enumerate() {
                let to = (range.start + column) * s;
                x[to..to + s].copy_from_slice(&before[row * s..(row + 1) * s]);
            }
        }
    }
}

impl CoordinateTransform for RelabelledCoordinates {
    fn kinds(&self) -> &[CoordinateKind] {
        self.cartesian.kinds()
    }

    fn position_dimension(&self) -> usize {
        self.cartesian.position_dimension()
    }

    fn to_positions(&self, y: &[f64], x: &mut [f64]) -> f64 {
        let ladj = self.cartesian.to_positions(y, x);
        let in_order = self.identical.iter().all(|range| is_own_best(&self.costs(x, range), range.len()));
        if in_order { ladj + self.log_orders } else { f64::NEG_INFINITY }
    }

    fn to_coordinates(&self, x: &[f64], y: &mut [f64]) -> f64 {
        let mut x = x.to_vec();
        self.put_in_order(&mut x);
        self.cartesian.to_coordinates(&x, y) + self.log_orders
    }

    fn pull_back(&self, y: &[f64], x: &[f64], gradient_x: &mut [f64], gradient_y: &mut [f64]) {
        self.cartesian.pull_back(y, x, gradient_x, gradient_y);
    }

    fn spec(&self) -> CoordinatesSpec {
        CoordinatesSpec::Relabelled(self.clone())
    }

    fn description(&self) -> String {
        let ranges: Vec<String> = self.identical.iter().map(|r| format!("{} to {}", r.start, r.end - 1)).collect();
        format!(
            "{}; of the identical particles {} only that order is made in which they are assigned to a reference's places \
             with the least squared distances, and data in another are relabelled: log Z counts all orders",
            self.cartesian.description(),
            ranges.join(", and "),
        )
    }
}
