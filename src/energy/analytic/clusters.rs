//! Clusters of identical particles that nothing holds in space.

use super::finite;
use super::particles::{ParticleSymmetry, add_pair, check_cluster, lattice, pairs};
use crate::compute::fused::{InstructionSet, Lane, ROWS};
use crate::energy::lanewise::Lanewise;
use crate::energy::potential::EnergyError;

/// U = Σ over pairs of a(r − r₀) + b(r − r₀)² + c(r − r₀)⁴, as in Köhler, Klein and Noé, "Equivariant flows" (ICML 2020):
/// with the defaults DW4, four particles in the plane.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoubleWellCluster {
    pub particles: usize,
    /// Coordinates of a particle: 2 or 3.
    pub space: usize,
    pub a: f64,
    pub b: f64,
    pub c: f64,
    pub offset: f64,
}

impl Default for DoubleWellCluster {
    fn default() -> Self {
        Self { particles: 4, space: 2, a: 0.0, b: -4.0, c: 0.9, offset: 4.0 }
    }
}

impl DoubleWellCluster {
    pub(super) fn checked(self) -> Result<Self, EnergyError> {
        check_cluster(self.particles, self.space)?;
        finite("a", self.a, false)?;
        finite("b", self.b, false)?;
        finite("c", self.c, true)?;
        finite("offset", self.offset, true)?;
        Ok(self)
    }

    /// How far from r₀ the wells are.
    fn well(&self) -> f64 {
        (-self.b / (2.0 * self.c)).max(0.0).sqrt()
    }

    pub(super) fn extent(&self) -> Vec<(f64, f64)> {
        // Σ r² over pairs is N Σ |x − x̄|².
        let squared = self.offset * self.offset + self.well().powi(2);
        vec![(0.0, (squared / (2.0 * self.space as f64)).sqrt()); self.particles * self.space]
    }

    pub(super) fn start(&self) -> Vec<f64> {
        lattice(self.particles, self.space, self.offset)
    }

    pub(super) fn symmetry(&self) -> ParticleSymmetry {
        ParticleSymmetry::Translation { space: self.space }
    }
}

impl Lanewise for DoubleWellCluster {
    fn name(&self) -> &'static str {
        "DoubleWellCluster"
    }

    fn dimension(&self) -> usize {
        self.particles * self.space
    }

    #[inline(always)]
    fn evaluate<I: InstructionSet>(
        &self,
        x: &[Lane<f64>],
        energy: &mut Lane<f64>,
        mut gradient: Option<&mut [Lane<f64>]>,
    ) {
        *energy = [0.0; ROWS];
        clear(gradient.as_deref_mut());
        let of = |squared: f64| {
            let r = squared.sqrt();
            let s = r - self.offset;
            let slope = self.a + (2.0 * self.b + 4.0 * self.c * s * s) * s;
            ((self.a + (self.b + self.c * s * s) * s) * s, if r > 0.0 { slope / r } else { 0.0 })
        };
        for pair in pairs(0..self.particles) {
            add_pair(x, pair, self.space, energy, gradient.as_deref_mut(), of);
        }
    }
}

/// U = ε Σ over pairs of (r_m/r)¹² − 2(r_m/r)⁶, and ½k Σ |x − x̄|², which keeps the particles together: LJ13 and LJ55 of
/// Klein, Krämer and Noé, "Equivariant flow matching" (NeurIPS 2023). Some later work leaves out the ½.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LennardJonesCluster {
    pub particles: usize,
    /// Coordinates of a particle: 2 or 3.
    pub space: usize,
    pub epsilon: f64,
    /// Where the energy of a pair is least.
    pub r_m: f64,
    /// Stiffness of the springs to the cluster's mean.
    pub k: f64,
}

impl Default for LennardJonesCluster {
    fn default() -> Self {
        Self { particles: 13, space: 3, epsilon: 1.0, r_m: 1.0, k: 1.0 }
    }
}

impl LennardJonesCluster {
    pub(super) fn checked(self) -> Result<Self, EnergyError> {
        check_cluster(self.particles, self.space)?;
        finite("epsilon", self.epsilon, true)?;
        finite("r_m", self.r_m, true)?;
        finite("k", self.k, true)?;
        Ok(self)
    }

    pub(super) fn extent(&self) -> Vec<(f64, f64)> {
        // Of a ball (a disc) of closely packed particles, each of which has the volume r_m³/√2 (the area r_m²·√3/2).
        let n = self.particles as f64;
        let width = match self.space {
            2 => self.r_m * (n * 3f64.sqrt() / 2.0 / std::f64::consts::PI).sqrt() / 2.0,
            _ => self.r_m * (3.0 * n / (4.0 * std::f64::consts::PI * 2f64.sqrt())).cbrt() / 5f64.sqrt(),
        };
        vec![(0.0, width); self.particles * self.space]
    }

    pub(super) fn start(&self) -> Vec<f64> {
        lattice(self.particles, self.space, self.r_m)
    }

    pub(super) fn symmetry(&self) -> ParticleSymmetry {
        ParticleSymmetry::Translation { space: self.space }
    }
}

impl Lanewise for LennardJonesCluster {
    fn name(&self) -> &'static str {
        "LennardJonesCluster"
    }

    fn dimension(&self) -> usize {
        self.particles * self.space
    }

    #[inline(always)]
    fn evaluate<I: InstructionSet>(
        &self,
        x: &[Lane<f64>],
        energy: &mut Lane<f64>,
        mut gradient: Option<&mut [Lane<f64>]>,
    ) {
        *energy = [0.0; ROWS];
        clear(gradient.as_deref_mut());
        let least = self.r_m * self.r_m;
        let of = |squared: f64| {
            let inverse = 1.0 / squared;
            let s = least * inverse;
            let s6 = s * s * s;
            (self.epsilon * (s6 - 2.0) * s6, 12.0 * self.epsilon * (1.0 - s6) * s6 * inverse)
        };
        for pair in pairs(0..self.particles) {
            add_pair(x, pair, self.space, energy, gradient.as_deref_mut(), of);
        }
        for axis in 0..self.space {
            let mut mean = [0.0; ROWS];
            for x in x.iter().skip(axis).step_by(self.space) {
                for r in 0..ROWS {
                    mean[r] += x[r] / self.particles as f64;
                }
            }
            for k in (axis..x.len()).step_by(self.space) {
                for r in 0..ROWS {
                    energy[r] += 0.5 * self.k * (x[k][r] - mean[r]) * (x[k][r] - mean[r]);
                }
                // What the mean's own motion adds sums up to zero.
                if let Some(gradient) = gradient.as_deref_mut() {
                    for r in 0..ROWS {
                        gradient[k][r] += self.k * (x[k][r] - mean[r]);
                    }
                }
            }
        }
    }
}

#[inline(always)]
pub(super) fn clear(gradient: Option<&mut [Lane<f64>]>) {
    if let Some(gradient) = gradient {
        gradient.iter_mut().for_each(|g| *g = [0.0; ROWS]);
    }
}
