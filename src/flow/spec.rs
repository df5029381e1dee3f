//! The description of a flow, stored with its weights.

use super::conditioner::{ConditionerSpec, check_hidden, network_parameters};
use super::error::FlowError;
use super::prior::Prior;
use super::temperature::TemperatureRange;
use crate::compute::bias_activation::Activation;
use crate::compute::logistic_mixture::{MAX_COMPONENTS, MixtureShape};
use crate::compute::spline::MAX_BINS;
use crate::coords::CoordinateKind;

const MAX_LAYERS: usize = 1024;

/// Each of them is integrated.
const MAX_CONTINUOUS: usize = 8;

/// Coordinates of a field that is a function of all of them.
const MAX_FREE_DIMENSION: usize = 128;

/// Particles of a field, and the width of its network's hidden layers: what a thread keeps of a few rows grows as the square of
/// the former and as the latter.
const MAX_PARTICLES: usize = 64;
const MAX_FIELD_WIDTH: usize = 1024;

/// Errors of a step: rounding of f64, and what no weight should be trusted with.
const TOLERANCES: std::ops::RangeInclusive<f64> = 1e-12..=1e-2;

/// 256 MB of f32; training needs four times that.
const MAX_PARAMETERS: usize = 1 << 26;

/// A flow: its coordinates, its prior, and its layers in the order of the forward direction. With a range of temperatures
/// every conditioner sees the temperature too.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowSpec {
    pub coordinates: Vec<CoordinateKind>,
    pub prior: Prior,
    pub layers: Vec<LayerSpec>,
    pub temperatures: Option<TemperatureRange>,
}

/// One bijector.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LayerSpec {
    /// Coordinate `i` of the output is coordinate `order[i]` of the input.
    Permutation { order: Vec<usize> },
    /// What the first coordinates have of N particles' in D dimensions becomes that about their mean, in Helmert's basis, and
    /// √N times the mean; where it is scaled, those about the mean by one learned number, and all others by another.
    Helmert { particles: usize, space: usize, scaled: bool },
    /// One scale and one shift for each real coordinate, the same for all inputs.
    GlobalAffine,
    /// The real coordinates times P·L·(U + diag(s)), with learned triangular matrices: of what L·(U + diag(s)) makes of
    /// each, the first of them becomes that of coordinate `order[0]`, and so on.
    Lu { order: Vec<usize> },
    /// The real coordinates times an orthogonal matrix, as so many learned reflections.
    Householder { reflections: usize },
    /// NICE's additive coupling: volume preserving.
    Additive { coupling: CouplingSpec },
    /// RealNVP's affine coupling, with log scales within ± `bound`.
    Affine { coupling: CouplingSpec, bound: f64 },
    /// GIN's affine coupling, whose log scales, within ± `bound`, are less by their mean: volume preserving.
    Gin { coupling: CouplingSpec, bound: f64 },
    /// Affine maps of the real coordinates one after the other, in this order, with log scales within ± `bound`.
    Autoregressive { order: Vec<usize>, kind: AutoregressiveKind, conditioner: ConditionerSpec, bound: f64 },
    /// Distribution functions of mixtures of logistic distributions, with log scales within ± `bound`.
    Smooth { coupling: CouplingSpec, components: usize, bound: f64 },
    /// Rational-quadratic splines: on [−`bound`, `bound`] for real coordinates, on the whole circle for circular ones.
    Spline { coupling: CouplingSpec, bins: usize, bound: f64 },
    /// The motion along a field of velocities.
    Continuous(ContinuousSpec),
}

/// A continuous flow.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContinuousSpec {
    pub field: FieldSpec,
    /// Widths of the hidden layers of the field's network.
    pub hidden: Vec<usize>,
    pub activation: Activation,
    /// Error of a step of the integration, relative to 1 + |x|, and the same for ladj; where the network is computed in f32, at
    /// least 1e-6.
    pub tolerance: f64,
}

/// What a field is a function of.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FieldSpec {
    /// Of all coordinates.
    Free,
    /// Of the distances of identical particles, whose coordinates are those about their mean.
    Particles(ParticleShape),
}

/// Identical particles, and how a field sees them.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticleShape {
    pub particles: usize,
    /// The dimension of the space that they are in.
    pub space: usize,
    /// Gaussian features of a distance.
    pub distances: usize,
    /// Their centres are from 0 to here, in units of a coordinate's spread.
    pub reach: f64,
}

/// What the parameters of an autoregressive layer depend on, and with it which direction is one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoregressiveKind {
    /// On the layer's output: densities are one pass, samples one for each coordinate.
    Masked,
    /// On the layer's input: samples are one pass.
    Inverse,
}

/// Which coordinates a coupling layer transforms; the others decide how, and are passed through.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CouplingSpec {
    /// Indices of the transformed coordinates, ascending.
    pub transformed: Vec<usize>,
    pub conditioner: ConditionerSpec,
}

impl FlowSpec {
    /// The number of coordinates.
    pub fn dimension(&self) -> usize {
        self.coordinates.len()
    }

    /// What the bijectors carry: the coordinates, and after them what they are told and leave alone.
    pub(super) fn columns(&self) -> Columns<'_> {
        Columns { kinds: &self.coordinates, told: usize::from(self.temperatures.is_some()) }
    }

    /// That the description is consistent.
    pub fn check(&self) -> Result<(), FlowError> {
        let d = self.dimension();
        let fail = |reason: String| Err(FlowError::Spec(reason));
        if d == 0 {
            return fail("a flow needs at least one coordinate".into());
        }
        self.prior.check(&self.coordinates)?;
        if let Some(range) = &self.temperatures {
            range.check()?;
        }
        if self.layers.len() > MAX_LAYERS {
            return fail(format!("it has {} layers; at most {MAX_LAYERS} are allowed", self.layers.len()));
        }
        for (i, layer) in self.layers.iter().enumerate() {
            match layer {
                LayerSpec::Permutation { order } => {
                    let mut sorted = order.clone();
                    sorted.sort_unstable();
                    if sorted != (0..d).collect::<Vec<_>>() {
                        return fail(format!("layer {i}: order is not a permutation of 0 to {}", d - 1));
                    }
                    if order.iter().enumerate().any(|(to, &from)| self.coordinates[to] != self.coordinates[from]) {
                        return fail(format!("layer {i}: the permutation mixes real and circular coordinates"));
                    }
                }
                LayerSpec::Helmert { particles, space, .. } => {
                    let turned = particles.checked_mul(*space).filter(|turned| (1..=d).contains(turned));
                    let Some(turned) = turned else {
                        return fail(format!(
                            "layer {i}: {particles} particles in a space of {space} are not among {d} coordinates"
                        ));
                    };
                    if self.coordinates[..turned].contains(&CoordinateKind::Circular) {
                        return fail(format!("layer {i}: coordinates of particles are not angles"));
                    }
                }
                LayerSpec::GlobalAffine => {}
                LayerSpec::Lu { order } => self.check_order(i, order)?,
                LayerSpec::Householder { reflections } => {
                    let most = self.real().len();
                    if !(1..=most).contains(reflections) {
                        return fail(format!(
                            "layer {i}: reflections is {reflections}; it must be from 1 to the {most} real coordinates"
                        ));
                    }
                }
                LayerSpec::Additive { coupling } => self.check_coupling(i, coupling, true)?,
                LayerSpec::Autoregressive { order, conditioner, bound, .. } => {
                    self.check_order(i, order)?;
                    conditioner.check(i)?;
                    if conditioner.tokens.is_some() {
                        return fail(format!("layer {i}: attention is for couplings; choose another conditioner"));
                    }
                    check_positive(i, "bound", *bound)?;
                }
                LayerSpec::Affine { coupling, bound } | LayerSpec::Gin { coupling, bound } => {
                    self.check_coupling(i, coupling, true)?;
                    check_positive(i, "bound", *bound)?;
                }
                LayerSpec::Smooth { coupling, components, bound } => {
                    self.check_coupling(i, coupling, true)?;
                    check_positive(i, "bound", *bound)?;
                    if !(1..=MAX_COMPONENTS).contains(components) {
                        return fail(format!(
                            "layer {i}: components is {components}; it must be from 1 to {MAX_COMPONENTS}"
                        ));
                    }
                }
                LayerSpec::Continuous(continuous) => continuous.check(i, &self.coordinates)?,
                LayerSpec::Spline { coupling, bins, bound } => {
                    self.check_coupling(i, coupling, false)?;
                    check_positive(i, "bound", *bound)?;
                    if !(2..=MAX_BINS).contains(bins) {
                        return fail(format!("layer {i}: bins is {bins}; it must be from 2 to {MAX_BINS}"));
                    }
                }
            }
        }
        let continuous = self.layers.iter().filter(|layer| matches!(layer, LayerSpec::Continuous(_))).count();
        if continuous > MAX_CONTINUOUS {
            return fail(format!("it has {continuous} continuous layers; at most {MAX_CONTINUOUS} are allowed"));
        }
        let parameters = self.layers.iter().fold(0usize, |sum, layer| sum.saturating_add(self.parameters(layer)));
        if parameters > MAX_PARAMETERS {
            return fail(format!(
                "it has {parameters} weights; at most {MAX_PARAMETERS} are allowed: use fewer couplings, narrower \
                 hidden layers or fewer bins"
            ));
        }
        Ok(())
    }

    /// The most numbers that an intermediate result of a row has, added up over continuous layers, which, where tensor operations
    /// run them, keep these for all rows of a batch at once. Nothing of a flow without such layers.
    pub fn numbers_of_a_row(&self) -> Option<usize> {
        let of = |layer: &LayerSpec| match layer {
            LayerSpec::Continuous(continuous) => Some(continuous.numbers_of_a_row(self.dimension())),
            _ => None,
        };
        let all = self.layers.iter().filter_map(of).fold(0usize, usize::saturating_add);
        (all > 0).then_some(all)
    }

    /// Numbers that conditioners of attention keep of a row for the way back, all layers together.
    pub fn attention_numbers_of_a_row(&self) -> usize {
        let of = |layer: &LayerSpec| match layer {
            LayerSpec::Additive { coupling }
            | LayerSpec::Affine { coupling, .. }
            | LayerSpec::Gin { coupling, .. }
            | LayerSpec::Smooth { coupling, .. }
            | LayerSpec::Spline { coupling, .. } => coupling.conditioner.attention_numbers(),
            _ => 0,
        };
        self.layers.iter().map(of).fold(0, usize::saturating_add)
    }

    /// The number of a layer's weights.
    fn parameters(&self, layer: &LayerSpec) -> usize {
        let (coupling, each) = match layer {
            LayerSpec::Permutation { .. } => return 0,
            LayerSpec::Helmert { .. } => return 2 + 2 * self.columns().told,
            LayerSpec::GlobalAffine => return 2 * self.dimension(),
            LayerSpec::Lu { order } => return order.len().saturating_mul(order.len()),
            LayerSpec::Householder { reflections } => return reflections.saturating_mul(self.real().len()),
            LayerSpec::Autoregressive { order, conditioner, .. } => {
                let circular = self.dimension().saturating_sub(order.len());
                let features = order.len() + 2 * circular + usize::from(self.temperatures.is_some());
                return conditioner.parameters(features, 2 * order.len());
            }
            LayerSpec::Continuous(continuous) => return continuous.parameters(self.columns()),
            LayerSpec::Additive { coupling } => (coupling, 1),
            LayerSpec::Affine { coupling, .. } | LayerSpec::Gin { coupling, .. } => (coupling, 2),
            LayerSpec::Smooth { coupling, components, bound } => {
                (coupling, MixtureShape { components: *components, bound: *bound }.parameters())
            }
            LayerSpec::Spline { coupling, bins, .. } => (coupling, 3 * bins + 1),
        };
        let transformed = coupling.transformed.len();
        // A circular coordinate is seen as its sine and cosine.
        let features = 2 * self.dimension().saturating_sub(transformed) + usize::from(self.temperatures.is_some());
        coupling.conditioner.parameters(features, transformed.saturating_mul(each))
    }

    /// The real coordinates, ascending.
    fn real(&self) -> Vec<usize> {
        self.columns().real()
    }

    /// That an order has each real coordinate once, and that there are any.
    fn check_order(&self, layer: usize, order: &[usize]) -> Result<(), FlowError> {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if sorted.is_empty() || sorted != self.real() {
            return Err(FlowError::Spec(format!(
                "layer {layer}: order must have every real coordinate once and no circular one"
            )));
        }
        Ok(())
    }

    fn check_coupling(&self, layer: usize, coupling: &CouplingSpec, real_only: bool) -> Result<(), FlowError> {
        let t = &coupling.transformed;
        let d = self.dimension();
        if t.is_empty() || !t.is_sorted_by(|a, b| a < b) || t.iter().any(|&j| j >= d) {
            return Err(FlowError::Spec(format!(
                "layer {layer}: transformed must be ascending indices below {d}, at least one"
            )));
        }
        if real_only && t.iter().any(|&j| self.coordinates[j] == CoordinateKind::Circular) {
            return Err(FlowError::Spec(format!("layer {layer}: only splines can transform circular coordinates")));
        }
        coupling.conditioner.check_coupling(layer, t, &self.coordinates)
    }
}

/// The columns of a batch as bijectors see it.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// Of the coordinates, which come first.
    pub kinds: &'a [CoordinateKind],
    /// Columns after them that every conditioner sees and none transforms.
    pub told: usize,
}

impl Columns<'_> {
    /// All columns.
    pub fn width(&self) -> usize {
        self.kinds.len() + self.told
    }

    /// The real coordinates, ascending.
    pub fn real(&self) -> Vec<usize> {
        (0..self.kinds.len()).filter(|&j| self.kinds[j] == CoordinateKind::Real).collect()
    }

    /// Whether a column is an angle.
    pub fn is_circular(&self, column: usize) -> bool {
        self.kinds.get(column) == Some(&CoordinateKind::Circular)
    }
}

impl ContinuousSpec {
    fn check(&self, layer: usize, coordinates: &[CoordinateKind]) -> Result<(), FlowError> {
        let fail = |reason: String| Err(FlowError::Spec(format!("layer {layer}: {reason}")));
        if self.hidden.is_empty() {
            return fail("hidden is empty; a field's network needs a hidden layer".into());
        }
        check_hidden(layer, &self.hidden)?;
        if let Some(width) = self.hidden.iter().find(|width| **width > MAX_FIELD_WIDTH) {
            return fail(format!("hidden has a width of {width}; those of a field are at most {MAX_FIELD_WIDTH}"));
        }
        if !matches!(self.activation, Activation::Silu | Activation::Tanh) {
            return fail("the activation of a field must be smooth: silu or tanh".into());
        }
        if !TOLERANCES.contains(&self.tolerance) {
            let (low, high) = (TOLERANCES.start(), TOLERANCES.end());
            return fail(format!("tolerance is {}; it must be from {low} to {high}", self.tolerance));
        }
        let d = coordinates.len();
        match &self.field {
            FieldSpec::Free if d > MAX_FREE_DIMENSION => fail(format!(
                "the exact divergence of a field takes a derivative for each coordinate; there are {d}, at most \
                 {MAX_FREE_DIMENSION} are allowed"
            )),
            FieldSpec::Free => Ok(()),
            FieldSpec::Particles(ParticleShape { particles, space, distances, reach }) => {
                if *particles > MAX_PARTICLES {
                    return fail(format!(
                        "a field of pairs is for at most {MAX_PARTICLES} particles; there are {particles}: choose another kind"
                    ));
                }
                if *particles < 2 || (particles - 1).checked_mul(*space) != Some(d) {
                    return fail(format!("{particles} particles in a space of {space} do not have {d} coordinates"));
                }
                if coordinates.contains(&CoordinateKind::Circular) {
                    return fail("coordinates of particles about their mean are not angles".into());
                }
                if !(2..=MAX_BINS).contains(distances) {
                    return fail(format!("distances is {distances}; it must be from 2 to {MAX_BINS}"));
                }
                check_positive(layer, "reach", *reach)
            }
        }
    }

    fn numbers_of_a_row(&self, d: usize) -> usize {
        let width = self.hidden.iter().copied().max().unwrap_or(1);
        match &self.field {
            FieldSpec::Free => d * width.max(2 * d),
            FieldSpec::Particles(ParticleShape { particles, space, distances, .. }) => {
                particles * particles.saturating_sub(1) / 2 * width.max(2 * space * distances)
            }
        }
    }

    fn parameters(&self, columns: Columns<'_>) -> usize {
        let (inputs, outputs, others) = match &self.field {
            FieldSpec::Free => (2 * columns.kinds.len(), columns.kinds.len(), 0),
            FieldSpec::Particles(shape) => (4 * shape.distances, 1, shape.distances * shape.distances),
        };
        network_parameters(inputs + 3 + columns.told, &self.hidden, outputs) + others
    }
}

fn check_positive(layer: usize, name: &str, value: f64) -> Result<(), FlowError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(FlowError::Spec(format!("layer {layer}: {name} is {value}; it must be a positive finite number")))
}
