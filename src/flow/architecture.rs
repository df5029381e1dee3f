//! Families of flows by a few numbers, expanded to a full description.

use super::conditioner::{ConditionerKind, ConditionerSpec, Tokens};
use super::error::FlowError;
use super::prior::Prior;
use super::spec::{AutoregressiveKind, ContinuousSpec, CouplingSpec, FieldSpec, FlowSpec, LayerSpec, ParticleShape};
use super::temperature::TemperatureRange;
use crate::compute::bias_activation::Activation;
use crate::compute::spline::MAX_BINS;
use crate::coords::{CoordinateKind, FreeParticles};
use crate::math::{Purpose, Randoms};

const MAX_COUPLINGS: usize = 256;

const MAX_AUXILIARY: usize = 4096;

/// Of attention.
const HEADS: usize = 4;

/// Distances of particles that a field tells apart, in units of a coordinate's spread: two normal numbers in three dimensions are
/// hardly ever further apart.
const REACH: f64 = 6.0;

/// Hidden layer of the network from a temperature to the scale and the shift of each coordinate.
const SCALE_BY_TEMPERATURE: usize = 16;

/// Which coupling layers a flow is made of. With attention two numbers, a scale of all coordinates and one of the auxiliary
/// variables, stand where the global affine layer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchitectureKind {
    /// Additive couplings only: volume preserving.
    Nice,
    /// Additive couplings and one global affine layer: constant Jacobian.
    NiceScaled,
    /// Affine couplings whose log scales sum to zero: volume preserving.
    Gin,
    /// The same and one global affine layer: constant Jacobian.
    GinScaled,
    /// Affine couplings and one global affine layer.
    RealNvp,
    /// Masked autoregressive layers, affine, in orders that are drawn from the seed; densities are fast, samples slow.
    Autoregressive,
    /// The same the other way round: samples are fast, densities of given configurations slow.
    InverseAutoregressive,
    /// Couplings by mixtures of logistic distribution functions, smooth everywhere, and one global affine layer.
    Smooth,
    /// Rational-quadratic spline couplings and one global affine layer.
    Spline,
    /// Affine and spline couplings in turns, a pair of each, and one global affine layer: the former carry scales that differ
    /// by orders of magnitude, the latter shapes.
    AffineSpline,
    /// The motion along a field of velocities: of identical particles one that turns and is relabelled with them, of other
    /// systems one network of all coordinates.
    Continuous,
}

/// What mixes the real coordinates between two pairs of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mixing {
    /// Nothing: layers take turns in what they transform.
    #[default]
    None,
    /// A learned matrix as the product of triangular ones, in an order that is drawn from the seed.
    Lu,
    /// A learned rotation, as a reflection for each coordinate.
    Householder,
}

/// A family and its size.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    pub kind: ArchitectureKind,
    /// The number of coupling layers.
    pub couplings: usize,
    pub conditioner: ConditionerKind,
    pub mixing: Mixing,
    /// Widths of each conditioner's hidden layers.
    pub hidden: Vec<usize>,
    pub activation: Activation,
    /// Bins of each spline, components of each mixture, features of each distance of particles.
    pub bins: usize,
    /// Half width of the domain of splines on real coordinates, in units of a coordinate's spread.
    pub spline_bound: f64,
    /// Bound on the log scale of an affine coupling or autoregressive layer, and on those of a mixture.
    pub log_scale_bound: f64,
    /// Error of a step of a continuous flow's integration.
    pub tolerance: f64,
    /// Auxiliary variables beside the system's coordinates. With attention none, or a vector for each particle: as many as their
    /// coordinates.
    pub auxiliary: usize,
}

impl Mixing {
    fn layer(self, real: &[usize], seed: u64, layer: usize) -> Option<LayerSpec> {
        match self {
            Self::None => None,
            Self::Lu => {
                let mut random = Randoms::new(seed, Purpose::Architecture, (MAX_COUPLINGS + layer) as u64);
                let order = random.permutation(real.len()).into_iter().map(|i| real[i]).collect();
                Some(LayerSpec::Lu { order })
            }
            Self::Householder => Some(LayerSpec::Householder { reflections: real.len() }),
        }
    }
}

/// The first so many of an order, ascending.
fn half(order: &[usize], count: usize) -> Vec<usize> {
    let mut half: Vec<usize> = order.iter().take(count).copied().collect();
    half.sort_unstable();
    half
}

/// Whether coupling layer `i` transforms a coordinate of particles.
fn is_transformed(tokens: Tokens, has_vectors: bool, coordinate: usize, i: usize, seed: u64) -> bool {
    let channel = tokens.place(coordinate).1;
    if has_vectors {
        return (channel < tokens.space) == i.is_multiple_of(2);
    }
    let axes = Randoms::new(seed, Purpose::Architecture, (i / 2) as u64).permutation(tokens.space);
    let first = axes.iter().take(tokens.space / 2).any(|&axis| axis == channel);
    first == i.is_multiple_of(2)
}

impl Architecture {
    /// That every number is one that could be used, also where this kind of flow has no use for it; the message names
    /// the field.
    pub fn check(&self) -> Result<(), String> {
        for (name, value) in [
            ("spline_bound", self.spline_bound),
            ("log_scale_bound", self.log_scale_bound),
            ("tolerance", self.tolerance),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!("{name} is {value}; it must be a positive finite number"));
            }
        }
        if self.auxiliary > MAX_AUXILIARY {
            return Err(format!("auxiliary is {}; it must be at most {MAX_AUXILIARY}", self.auxiliary));
        }
        if !(2..=MAX_BINS).contains(&self.bins) {
            return Err(format!("bins is {}; it must be from 2 to {MAX_BINS}", self.bins));
        }
        Ok(())
    }

    /// The number of auxiliary variables that have to stand beside the coordinates of a system: with attention those asked for,
    /// and the mean of the particles, which their coordinates about it leave out.
    pub fn auxiliary_variables(&self, particles: Option<FreeParticles>) -> usize {
        match (self.conditioner, particles) {
            (ConditionerKind::Attention, Some(FreeParticles { space, .. })) => self.auxiliary.saturating_add(space),
            _ => self.auxiliary,
        }
    }

    /// The full description for coordinates of the given kinds, the last of which are [`Architecture::auxiliary_variables`].
    /// Consecutive coupling layers transform complementary halves, consecutive autoregressive ones have opposite orders; which
    /// coordinates are in a half, and the order, are drawn anew from the seed for each pair of layers. With attention a half is of
    /// each particle the same: some of the axes, or, where there is a vector beside each, positions and vectors in turns. A flow
    /// in one dimension has nothing to condition on: its couplings are unconditional. With a range of temperatures all
    /// conditioners see the temperature, and scales and shifts are functions of it.
    ///
    /// `particles` are those that the coordinates are of, if they are those of identical particles about their mean.
    pub fn expand(
        &self,
        kinds: &[CoordinateKind],
        particles: Option<FreeParticles>,
        temperatures: Option<TemperatureRange>,
        seed: u64,
    ) -> Result<FlowSpec, FlowError> {
        let is_continuous = self.kind == ArchitectureKind::Continuous;
        if is_continuous && self.mixing != Mixing::None {
            return Err(FlowError::Spec(
                "mixing has no place in a continuous flow, which is one layer; leave it out".into(),
            ));
        }
        if is_continuous && self.auxiliary > 0 && particles.is_some() {
            return Err(FlowError::Spec(
                "a field of identical particles has no auxiliary variables; leave auxiliary out, or choose attention"
                    .into(),
            ));
        }
        let is_preserving = matches!(self.kind, ArchitectureKind::Nice | ArchitectureKind::Gin);
        if is_preserving && temperatures.is_some() && self.auxiliary_variables(particles) > 0 {
            return Err(FlowError::Spec(
                "auxiliary variables are as wide at every temperature of a range, and latents are not, which nice and gin cannot \
                 make up for; choose nice_scaled or gin_scaled"
                    .into(),
            ));
        }
        let tokens = self.tokens(particles)?;
        if self.couplings == 0 || self.couplings > MAX_COUPLINGS {
            return Err(FlowError::Spec(format!(
                "couplings is {}; it must be from 1 to {MAX_COUPLINGS}",
                self.couplings
            )));
        }
        let d = kinds.len();
        let is_circular =
            |coupling: &CouplingSpec| coupling.transformed.iter().any(|&j| kinds[j] == CoordinateKind::Circular);
        let real: Vec<usize> = (0..d).filter(|&j| kinds[j] == CoordinateKind::Real).collect();
        let mut layers = Vec::with_capacity(self.couplings + 1);
        let mut order = Vec::new();
        for i in 0..if is_continuous { 1 } else { self.couplings } {
            let transformed = if let Some(tokens) = tokens {
                (0..d).filter(|&j| is_transformed(tokens, self.auxiliary > 0, j, i, seed)).collect()
            } else if i % 2 == 0 {
                order = Randoms::new(seed, Purpose::Architecture, i as u64).permutation(d);
                half(&order, (d / 2).max(1))
            } else {
                order.reverse();
                half(&order, d - d / 2)
            };
            if i > 0 && i % 2 == 0 && real.len() > 1 {
                layers.extend(self.mixing.layer(&real, seed, i));
            }
            let (hidden, activation) = (self.hidden.clone(), self.activation);
            let conditioner = ConditionerSpec { kind: self.conditioner, hidden, activation, tokens };
            let coupling = CouplingSpec { transformed, conditioner };
            layers.push(match self.kind {
                ArchitectureKind::Nice | ArchitectureKind::NiceScaled => LayerSpec::Additive { coupling },
                ArchitectureKind::Gin | ArchitectureKind::GinScaled => {
                    LayerSpec::Gin { coupling, bound: self.log_scale_bound }
                }
                ArchitectureKind::RealNvp => LayerSpec::Affine { coupling, bound: self.log_scale_bound },
                ArchitectureKind::Autoregressive | ArchitectureKind::InverseAutoregressive => {
                    LayerSpec::Autoregressive {
                        order: order.clone(),
                        kind: match self.kind {
                            ArchitectureKind::InverseAutoregressive => AutoregressiveKind::Inverse,
                            _ => AutoregressiveKind::Masked,
                        },
                        conditioner: coupling.conditioner,
                        bound: self.log_scale_bound,
                    }
                }
                ArchitectureKind::Smooth => {
                    LayerSpec::Smooth { coupling, components: self.bins, bound: self.log_scale_bound }
                }
                ArchitectureKind::AffineSpline if i / 2 % 2 == 0 && !is_circular(&coupling) => {
                    LayerSpec::Affine { coupling, bound: self.log_scale_bound }
                }
                ArchitectureKind::Continuous => self.continuous(particles),
                ArchitectureKind::Spline | ArchitectureKind::AffineSpline => {
                    LayerSpec::Spline { coupling, bins: self.bins, bound: self.spline_bound }
                }
            });
        }
        let scaled =
            !matches!(self.kind, ArchitectureKind::Nice | ArchitectureKind::Gin | ArchitectureKind::Continuous);
        if let Some(Tokens { particles, space, .. }) = tokens {
            layers.push(LayerSpec::Helmert { particles, space, scaled });
        } else if scaled && temperatures.is_none() {
            layers.push(LayerSpec::GlobalAffine);
        } else if scaled && !real.is_empty() {
            let conditioner = ConditionerSpec {
                kind: ConditionerKind::Mlp,
                hidden: vec![SCALE_BY_TEMPERATURE],
                activation: self.activation,
                tokens: None,
            };
            let coupling = CouplingSpec { transformed: real, conditioner };
            layers.push(LayerSpec::Affine { coupling, bound: self.log_scale_bound });
        }
        let spec = FlowSpec { coordinates: kinds.to_vec(), prior: Prior::natural(kinds), layers, temperatures };
        spec.check()?;
        Ok(spec)
    }

    /// What attention is between, if that is what conditioners are.
    fn tokens(&self, particles: Option<FreeParticles>) -> Result<Option<Tokens>, FlowError> {
        use ArchitectureKind::{Autoregressive, Continuous, InverseAutoregressive};
        if self.conditioner != ConditionerKind::Attention {
            return Ok(None);
        }
        let fail = |reason: &str| Err(FlowError::Spec(reason.into()));
        let Some(FreeParticles { particles, space }) = particles else {
            return fail("attention is between identical particles that nothing holds; this system has none");
        };
        if matches!(self.kind, Autoregressive | InverseAutoregressive | Continuous) {
            return fail("attention is for couplings; choose another conditioner, or another kind");
        }
        if self.mixing != Mixing::None {
            return fail("mixing tells particles apart; leave it out with attention");
        }
        if self.auxiliary > 0 && Some(self.auxiliary) != particles.checked_mul(space) {
            return Err(FlowError::Spec(format!(
                "auxiliary is {}; with attention it must be 0, or {} for a vector beside each particle",
                self.auxiliary,
                particles.saturating_mul(space)
            )));
        }
        if self.auxiliary == 0 && space < 2 {
            return fail("particles on a line have one coordinate each; with attention set auxiliary to their number");
        }
        Ok(Some(Tokens { particles, space, heads: HEADS }))
    }

    fn continuous(&self, particles: Option<FreeParticles>) -> LayerSpec {
        let field = match particles {
            None => FieldSpec::Free,
            Some(FreeParticles { particles, space }) => {
                FieldSpec::Particles(ParticleShape { particles, space, distances: self.bins, reach: REACH })
            }
        };
        LayerSpec::Continuous(ContinuousSpec {
            field,
            hidden: self.hidden.clone(),
            activation: self.activation,
            tolerance: self.tolerance,
        })
    }
}
