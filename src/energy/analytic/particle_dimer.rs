//! The bistable dimer in a box of soft particles of Noé, Olsson, Köhler and Wu, Science 365, eaaw1147 (2019), as their
//! code has it.

use super::clusters::clear;
use super::finite;
use super::particles::{ParticleSymmetry, add_pair, pairs};
use crate::compute::fused::{InstructionSet, Lane, ROWS};
use crate::energy::lanewise::Lanewise;
use crate::energy::potential::EnergyError;

/// Particles in the plane; the first two are the dimer.
const PARTICLES: usize = 38;
const SPACE: usize = 2;
/// Half the side of the box, and the stiffness of its walls.
const BOX: f64 = 3.0;
const WALL: f64 = 200.0;
/// What holds the dimer in the middle of the box and along the x axis.
const CENTRE: f64 = 20.0;
/// D = 2(d − 1.5), d being the dimer's length; its energy is slope·D − 25D² + 10D⁴.
const LENGTH: f64 = 1.5;
const QUADRATIC: f64 = -25.0;
const QUARTIC: f64 = 10.0;
/// Where the repulsion (r_m/r)¹² between all other pairs is 1.
const R_M: f64 = 1.1;

/// U = 20(x₀ + x₁)² + 20y₀² + 20y₁² + s·D − 25D² + 10D⁴ + Σ (1.1/r)¹² over all pairs but the dimer's + 200 Σ (|x| − 3)²
/// over coordinates outside of the box. (Their code trains with walls twice as stiff as it weights with: these are the
/// latter.)
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticleDimer {
    /// The slope s, which makes the open (negative) or the closed (positive) dimer the better one.
    pub slope: f64,
}

impl Default for ParticleDimer {
    fn default() -> Self {
        Self { slope: 2.0 }
    }
}

impl ParticleDimer {
    pub(super) fn checked(self) -> Result<Self, EnergyError> {
        finite("slope", self.slope, false)?;
        Ok(self)
    }

    /// The dimer closed, the others on a square lattice around it.
    pub(super) fn start(&self) -> Vec<f64> {
        let mut x = vec![-0.5, 0.0, 0.5, 0.0];
        let place = |i: usize| 1.05 * (-4.0 + 8.0 / 7.0 * (1 + i) as f64);
        for row in 0..6 {
            for column in 0..6 {
                x.extend([place(column), place(row)]);
            }
        }
        x
    }

    pub(super) fn extent(&self) -> Vec<(f64, f64)> {
        let start = self.start();
        (0..PARTICLES * SPACE).map(|k| (start[k].clamp(-BOX, BOX), if k < 4 { 0.3 } else { 0.5 })).collect()
    }

    pub(super) fn symmetry(&self) -> ParticleSymmetry {
        ParticleSymmetry::Exchange { space: SPACE, identical: vec![0..2, 2..PARTICLES] }
    }
}

impl Lanewise for ParticleDimer {
    fn name(&self) -> &'static str {
        "ParticleDimer"
    }

    fn dimension(&self) -> usize {
        PARTICLES * SPACE
    }

    #[inline(always)]
    fn evaluate<I: InstructionSet>(
        &self,
        x: &[Lane<f64>],
        energy: &mut Lane<f64>,
        mut gradient: Option<&mut [Lane<f64>]>,
    ) {
        let [x0, y0, x1, y1] = [x[0], x[1], x[2], x[3]];
        clear(gradient.as_deref_mut());
        for r in 0..ROWS {
            energy[r] = CENTRE * ((x0[r] + x1[r]) * (x0[r] + x1[r]) + y0[r] * y0[r] + y1[r] * y1[r]);
        }
        if let Some(gradient) = gradient.as_deref_mut() {
            for r in 0..ROWS {
                gradient[0][r] = 2.0 * CENTRE * (x0[r] + x1[r]);
                gradient[1][r] = 2.0 * CENTRE * y0[r];
                gradient[2][r] = gradient[0][r];
                gradient[3][r] = 2.0 * CENTRE * y1[r];
            }
        }
        let dimer = |squared: f64| {
            let length = squared.sqrt();
            let s = 2.0 * (length - LENGTH);
            let slope = self.slope + (2.0 * QUADRATIC + 4.0 * QUARTIC * s * s) * s;
            ((self.slope + (QUADRATIC + QUARTIC * s * s) * s) * s, 2.0 * slope / length)
        };
        add_pair(x, (0, 1), SPACE, energy, gradient.as_deref_mut(), dimer);
        let repulsion = |squared: f64| {
            let inverse = 1.0 / squared;
            let s = R_M * R_M * inverse;
            let s12 = (s * s * s) * (s * s * s);
            (s12, -12.0 * s12 * inverse)
        };
        for pair in pairs(0..PARTICLES).filter(|&pair| pair != (0, 1)) {
            add_pair(x, pair, SPACE, energy, gradient.as_deref_mut(), repulsion);
        }
        for (k, x) in x.iter().enumerate() {
            let mut pull = [0.0; ROWS];
            for r in 0..ROWS {
                let beyond = (x[r].abs() - BOX).max(0.0);
                energy[r] += WALL * beyond * beyond;
                pull[r] = (2.0 * WALL * beyond).copysign(x[r]);
            }
            if let Some(gradient) = gradient.as_deref_mut() {
                for r in 0..ROWS {
                    gradient[k][r] += pull[r];
                }
            }
        }
    }
}
