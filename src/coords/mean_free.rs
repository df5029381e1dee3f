//! Particles without their motion as a whole.

use super::transform::{CoordinateKind, CoordinateTransform, CoordinatesError, CoordinatesSpec};

/// Identical particles that nothing holds: their energy does not change if they are moved, turned or mirrored together, or
/// exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeParticles {
    pub particles: usize,
    /// The dimension of the space that they are in.
    pub space: usize,
}

/// Cartesian coordinates of N particles about their mean, in the orthonormal basis of Helmert: along each axis
///
/// x_i = scale · (Σ_{k>i} y_k / √(k(k+1)) − i·y_i / √(i(i+1))),  k = 1 … N − 1,
///
/// so that coordinate k is particle k's distance to the mean of those before it. The density is that in the subspace in
/// which the mean is zero, with the volume element of its orthonormal coordinates. The transform has no form for a GPU.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MeanFreeCoordinates {
    particles: usize,
    space: usize,
    scale: f64,
    #[serde(skip)]
    kinds: Vec<CoordinateKind>,
}

/// What a particle counts for in coordinate k ≥ 1 about the mean, in Helmert's orthonormal basis.
pub fn helmert(k: usize, particle: usize) -> f64 {
    let norm = MeanFreeCoordinates::norm(k);
    match particle {
        i if i < k => 1.0 / norm,
        i if i == k => -(k as f64) / norm,
        _ => 0.0,
    }
}

impl MeanFreeCoordinates {
    /// `particles` in a space of `space` dimensions, with the scale of all coordinates.
    pub fn new(particles: usize, space: usize, scale: f64) -> Result<Self, CoordinatesError> {
        Self { particles, space, scale, kinds: Vec::new() }.checked()
    }

    pub(super) fn checked(mut self) -> Result<Self, CoordinatesError> {
        let d = self.particles.saturating_sub(1).checked_mul(self.space);
        match d {
            Some(d @ 1..=crate::energy::analytic::MAX_DIMENSION) if self.scale.is_finite() && self.scale > 0.0 => {
                self.kinds = vec![CoordinateKind::Real; d];
                Ok(self)
            }
            _ => {
                let reason = "two particles or more have a mean, and the scale must be a positive number";
                Err(CoordinatesError::Stored(reason.into()))
            }
        }
    }

    fn ladj(&self) -> f64 {
        self.kinds.len() as f64 * self.scale.ln()
    }

    /// √(k(k+1)).
    fn norm(k: usize) -> f64 {
        (k as f64 * (k as f64 + 1.0)).sqrt()
    }

    /// Writes what each of Helmert's vectors makes of x, over `divisor`.
    fn project(&self, x: &[f64], divisor: f64, y: &mut [f64]) {
        for axis in 0..self.space {
            let mut before = 0.0;
            for k in 0..self.particles {
                let own = x[k * self.space + axis];
                if k > 0 {
                    y[(k - 1) * self.space + axis] = (before - k as f64 * own) / Self::norm(k) / divisor;
                }
                before += own;
            }
        }
    }
}

impl CoordinateTransform for MeanFreeCoordinates {
    fn kinds(&self) -> &[CoordinateKind] {
        &self.kinds
    }

    fn position_dimension(&self) -> usize {
        self.particles * self.space
    }

    fn to_positions(&self, y: &[f64], x: &mut [f64]) -> f64 {
        for axis in 0..self.space {
            let mut after = 0.0;
            for i in (0..self.particles).rev() {
                let own = if i > 0 { y[(i - 1) * self.space + axis] / Self::norm(i) } else { 0.0 };
                x[i * self.space + axis] = self.scale * (after - i as f64 * own);
                after += own;
            }
        }
        self.ladj()
    }

    fn to_coordinates(&self, x: &[f64], y: &mut [f64]) -> f64 {
        self.project(x, self.scale, y);
        self.ladj()
    }

    fn pull_back(&self, _y: &[f64], _x: &[f64], gradient_x: &mut [f64], gradient_y: &mut [f64]) {
        self.project(gradient_x, 1.0 / self.scale, gradient_y);
    }

    fn spec(&self) -> CoordinatesSpec {
        CoordinatesSpec::MeanFree(self.clone())
    }

    fn description(&self) -> String {
        format!(
            "{} Cartesian coordinates of {} particles about their mean (orthonormal, scaled): the motion of all together is \
             left out, rotations and all orders of the particles are part of the density",
            self.kinds.len(),
            self.particles
        )
    }
}
