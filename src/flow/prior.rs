//! The distribution of latents: independent components, Gaussian or uniform.

use super::draw::LatentAddress;
use super::error::FlowError;
use super::temperature::Tau;
use crate::compute::fused::{InstructionSet, Kernel, Lane, LatentLanes, ROWS, dispatch, store};
use crate::coords::CoordinateKind;
use crate::math::special::HALF_LOG_TWO_PI;
use candle_core::{Result, Tensor};
use rayon::prelude::*;
use std::f64::consts::PI;

/// One latent coordinate's distribution.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PriorComponent {
    /// N(0, 1); at a latent temperature τ, N(0, τ).
    Gaussian,
    /// Uniform on [low, high), at every latent temperature.
    Uniform { low: f64, high: f64 },
}

/// A product of independent components, one for each latent coordinate.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Prior {
    components: Vec<PriorComponent>,
}

impl Prior {
    /// A standard normal in d dimensions.
    pub fn gaussian(d: usize) -> Self {
        Self { components: vec![PriorComponent::Gaussian; d] }
    }

    /// Uniform on a cube [low, high)^d.
    pub fn uniform(d: usize, low: f64, high: f64) -> Self {
        Self { components: vec![PriorComponent::Uniform { low, high }; d] }
    }

    pub fn product(components: Vec<PriorComponent>) -> Self {
        Self { components }
    }

    /// The natural prior: Gaussian on the line, uniform on the circle.
    pub fn natural(kinds: &[CoordinateKind]) -> Self {
        Self::product(
            kinds
                .iter()
                .map(|kind| match kind {
                    CoordinateKind::Real => PriorComponent::Gaussian,
                    CoordinateKind::Circular => PriorComponent::Uniform { low: -PI, high: PI },
                })
                .collect(),
        )
    }

    pub fn components(&self) -> &[PriorComponent] {
        &self.components
    }

    pub(super) fn check(&self, kinds: &[CoordinateKind]) -> std::result::Result<(), FlowError> {
        if self.components.len() != kinds.len() {
            return Err(FlowError::Spec(format!(
                "the prior has {} components for {} coordinates",
                self.components.len(),
                kinds.len()
            )));
        }
        for (i, (component, kind)) in self.components.iter().zip(kinds).enumerate() {
            match (component, kind) {
                (PriorComponent::Uniform { low, high }, kind) => {
                    if !(low.is_finite() && high.is_finite() && low < high) {
                        return Err(FlowError::Spec(format!(
                            "prior component {i}: [{low}, {high}) is not an interval"
                        )));
                    }
                    if *kind == CoordinateKind::Circular && (*low < -PI || *high > PI) {
                        return Err(FlowError::Spec(format!("prior component {i}: the circle is [−π, π)")));
                    }
                }
                (PriorComponent::Gaussian, CoordinateKind::Real) => {}
                (PriorComponent::Gaussian, CoordinateKind::Circular) => {
                    return Err(FlowError::Spec(format!("prior component {i}: a Gaussian cannot live on a circle")));
                }
            }
        }
        Ok(())
    }

    /// Latents (n, d), one for each address.
    pub fn sample(&self, addresses: &[LatentAddress]) -> Vec<f64> {
        let d = self.components.len();
        let mut latents = vec![0.0; addresses.len() * d];
        addresses.par_chunks(ROWS).zip(latents.par_chunks_mut(ROWS * d)).for_each_init(
            || vec![[0.0; ROWS]; d],
            |tile, (addresses, latents)| dispatch(SampleTile { prior: self, addresses, latents, tile }),
        );
        latents
    }

    /// Latents of up to [`ROWS`] addresses as a tile, and their log q_τ; lanes without an address repeat the last one.
    #[inline(always)]
    pub(super) fn sample_tile(&self, addresses: &[LatentAddress], tile: &mut [Lane<f64>], log_prob: &mut Lane<f64>) {
        let address = |r: usize| &addresses[r.min(addresses.len() - 1)];
        let lanes = LatentLanes::new(|r| (address(r).seed, address(r).purpose, address(r).index));
        let (mut width, mut constant) = ([0.0; ROWS], [0.0; ROWS]);
        for r in 0..ROWS {
            width[r] = address(r).tau.sqrt();
            constant[r] = -0.5 * address(r).tau.ln() - HALF_LOG_TWO_PI;
        }
        *log_prob = [0.0; ROWS];
        for (pair, (components, tile)) in self.components.chunks(2).zip(tile.chunks_mut(2)).enumerate() {
            let normals = if components.contains(&PriorComponent::Gaussian) { Some(lanes.normals(pair)) } else { None };
            for (k, (component, z)) in components.iter().zip(tile).enumerate() {
                match (component, &normals) {
                    (PriorComponent::Gaussian, Some(normals)) => {
                        for r in 0..ROWS {
                            let x = normals[k][r];
                            z[r] = width[r] * x;
                            log_prob[r] += constant[r] - 0.5 * x * x;
                        }
                    }
                    (PriorComponent::Uniform { low, high }, _) => {
                        let uniform = &lanes.uniforms(pair)[k];
                        let density = -(high - low).ln();
                        for r in 0..ROWS {
                            z[r] = low + (high - low) * uniform[r];
                            log_prob[r] += density;
                        }
                    }
                    (PriorComponent::Gaussian, None) => {}
                }
            }
        }
    }

    /// log q_τ(z) of one latent; −∞ outside of the support.
    pub fn log_prob(&self, latent: &[f64], tau: f64) -> f64 {
        latent
            .iter()
            .zip(&self.components)
            .map(|(&z, component)| match component {
                PriorComponent::Gaussian => -0.5 * (z * z / tau + tau.ln()) - HALF_LOG_TWO_PI,
                PriorComponent::Uniform { low, high } if (*low..*high).contains(&z) => -(high - low).ln(),
                PriorComponent::Uniform { .. } => f64::NEG_INFINITY,
            })
            .sum()
    }

    /// log q_τ(z) of a tile of latents, each lane at its own τ, which become its gradient ∂ log q_τ/∂z.
    #[inline(always)]
    pub(super) fn score_tile(&self, tile: &mut [Lane<f64>], taus: &Lane<f64>, log_prob: &mut Lane<f64>) {
        *log_prob = [0.0; ROWS];
        for (component, z) in self.components.iter().zip(tile) {
            match component {
                PriorComponent::Gaussian => {
                    for r in 0..ROWS {
                        log_prob[r] -= 0.5 * (z[r] * z[r] / taus[r] + taus[r].ln()) + HALF_LOG_TWO_PI;
                        z[r] = -z[r] / taus[r];
                    }
                }
                PriorComponent::Uniform { low, high } => {
                    let density = -(high - low).ln();
                    for r in 0..ROWS {
                        let inside = *low <= z[r] && z[r] < *high;
                        log_prob[r] += if inside { density } else { f64::NEG_INFINITY };
                        z[r] = 0.0;
                    }
                }
            }
        }
    }

    /// log q_τ(z) (n) of latents (n, d), differentiable. Latents outside of the support of a uniform component count as
    /// inside: their density has no slope to follow, and [`Prior::log_prob`] says −∞ where a weight is made of it.
    pub fn training_log_prob(&self, latents: &Tensor, tau: Tau<'_>) -> Result<Tensor> {
        let mut constant = 0.0;
        let gaussian: Vec<f64> = self
            .components
            .iter()
            .map(|component| match component {
                PriorComponent::Gaussian => {
                    constant -= HALF_LOG_TWO_PI;
                    1.0
                }
                PriorComponent::Uniform { low, high } => {
                    constant -= (high - low).ln();
                    0.0
                }
            })
            .collect();
        let count: f64 = gaussian.iter().sum();
        let gaussian = Tensor::from_vec(gaussian, (self.components.len(), 1), latents.device())?;
        let squares = latents.sqr()?.matmul(&gaussian)?.squeeze(1)?;
        match tau {
            Tau::One(tau) => squares.affine(-0.5 / tau, constant - 0.5 * count * tau.ln()),
            Tau::Each(taus) => {
                let each = |f: &dyn Fn(f64) -> f64| {
                    Tensor::from_iter(taus.iter().map(|&tau| f(tau)).collect::<Vec<_>>(), latents.device())
                };
                let (factors, constants) = (each(&|tau| -0.5 / tau)?, each(&|tau| constant - 0.5 * count * tau.ln())?);
                (squares * factors)? + constants
            }
        }
    }

    /// The differential entropy of the prior at latent temperature τ, in nats.
    pub fn entropy(&self, tau: f64) -> f64 {
        self.components
            .iter()
            .map(|component| match component {
                PriorComponent::Gaussian => 0.5 + HALF_LOG_TWO_PI + 0.5 * tau.ln(),
                PriorComponent::Uniform { low, high } => (high - low).ln(),
            })
            .sum()
    }
}

struct SampleTile<'a> {
    prior: &'a Prior,
    addresses: &'a [LatentAddress],
    latents: &'a mut [f64],
    tile: &'a mut [Lane<f64>],
}

impl Kernel for SampleTile<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        self.prior.sample_tile(self.addresses, self.tile, &mut [0.0; ROWS]);
        store(self.tile, self.latents, self.prior.components.len());
    }
}
