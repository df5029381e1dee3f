//! A coupling layer on tiles: conditioner and transform in one go, with their gradients.

use super::bf16;
use super::dense::{self, After, DenseLayer, Lane, ROWS};
use super::number::{Number, sin_cos};
use super::packed::PackedLayer;
use super::spline::{self, Located, Shape};
use super::vectors::InstructionSet;
use super::{affine, logistic_mixture, spline_gradient, volume_preserving};
use crate::compute::bias_activation::Activation;
use crate::compute::logistic_mixture::MixtureShape;
use crate::compute::{Direction, Precision};

/// A column that a spline transforms: where it is, where its parameters are, and its shape.
#[derive(Clone, Copy)]
pub struct SplineColumn {
    pub column: usize,
    pub first_parameter: usize,
    pub parameters: usize,
    pub shape: Shape,
}

/// What is done to the transformed columns.
#[derive(Clone)]
pub enum Transform {
    /// y = x + t.
    Additive {
        columns: Vec<usize>,
    },
    /// y = x·exp(s) + t; the log scales are the first half of the parameters, the shifts the second.
    Affine {
        columns: Vec<usize>,
        bound: f64,
    },
    /// The same, less the mean of the log scales.
    VolumePreserving {
        columns: Vec<usize>,
        bound: f64,
    },
    /// Column c has parameters from `c·shape.parameters()` on.
    LogisticMixture {
        columns: Vec<usize>,
        shape: MixtureShape,
    },
    Spline {
        columns: Vec<SplineColumn>,
    },
}

/// A coupling layer: features of the passed columns, dense layers, a transform of the other columns.
#[derive(Clone)]
pub struct Coupling {
    /// (column, whether it is an angle) of each passed coordinate.
    pub features: Vec<(usize, bool)>,
    /// At least one; the first takes the features, the last gives the parameters.
    pub layers: Vec<DenseLayer>,
    /// Whether what goes into the activation of a hidden layer is added to that of the hidden layer two after it, from the
    /// first on: pre-activation residual blocks (He et al. 2016).
    pub residual: bool,
    pub transform: Transform,
}

/// Room for the intermediate results of one tile.
pub struct Scratch<T> {
    pub lanes: Vec<Lane<T>>,
    pub pairs: Vec<Lane<u32>>,
    /// What the blocks of a residual network add to.
    pub stream: Vec<Lane<T>>,
    pub located: Box<Located<T>>,
}

impl Coupling {
    pub fn feature_count(&self) -> usize {
        self.features.iter().map(|&(_, circular)| if circular { 2 } else { 1 }).sum()
    }

    /// Lanes of features, hidden layers and parameters.
    pub fn value_lanes(&self) -> usize {
        self.feature_count() + self.layers.iter().map(|l| l.outputs).sum::<usize>()
    }

    /// Lanes of the derivatives of hidden activations.
    pub fn derivative_lanes(&self) -> usize {
        self.layers[..self.layers.len() - 1].iter().map(|l| l.outputs).sum()
    }

    /// Where the parameters begin among the values.
    pub fn first_parameter(&self) -> usize {
        self.value_lanes() - self.layers.last().map_or(0, |l| l.outputs)
    }

    /// Lanes of `Scratch::stream`.
    pub fn stream_lanes(&self) -> usize {
        if self.residual { self.layers[0].outputs } else { 0 }
    }

    /// Whether a layer begins or ends a residual block.
    fn is_joint(&self, layer: usize) -> bool {
        self.residual && layer.is_multiple_of(2) && layer + 1 < self.layers.len()
    }

    /// The widest layer, features included.
    pub fn widest(&self) -> usize {
        self.layers.iter().map(|l| l.outputs.max(l.inputs)).max().unwrap_or(0)
    }

    pub fn transformed(&self) -> usize {
        match &self.transform {
            Transform::Additive { columns }
            | Transform::Affine { columns, .. }
            | Transform::VolumePreserving { columns, .. }
            | Transform::LogisticMixture { columns, .. } => columns.len(),
            Transform::Spline { columns } => columns.len(),
        }
    }

    fn column(&self, c: usize) -> usize {
        match &self.transform {
            Transform::Additive { columns }
            | Transform::Affine { columns, .. }
            | Transform::VolumePreserving { columns, .. }
            | Transform::LogisticMixture { columns, .. } => columns[c],
            Transform::Spline { columns } => columns[c].column,
        }
    }

    /// Copies the transformed columns.
    #[inline(always)]
    pub fn keep(&self, x: &[Lane<f64>], kept: &mut [Lane<f64>]) {
        for (c, kept) in kept.iter_mut().enumerate() {
            *kept = x[self.column(c)];
        }
    }

    /// Fills `values` with features, hidden layers and parameters of the tile x.
    #[inline(always)]
    pub fn condition<I: InstructionSet, T: Number>(
        &self,
        packed: &[PackedLayer<T>],
        x: &[Lane<f64>],
        values: &mut [Lane<T>],
        mut derivatives: Option<&mut [Lane<T>]>,
        pairs: &mut [Lane<u32>],
        stream: &mut [Lane<T>],
    ) {
        self.look::<I, T>(x, values);
        let (mut from, mut to, mut done) = (0, self.feature_count(), 0);
        for (l, (layer, packed)) in self.layers.iter().zip(packed).enumerate() {
            let (before, after) = values.split_at_mut(to);
            let (h, z) = (&before[from..], &mut after[..layer.outputs]);
            let derivative = match derivatives.as_deref_mut() {
                Some(all) if layer.activation != Activation::Identity => {
                    done += layer.outputs;
                    Some(&mut all[done - layer.outputs..done])
                }
                _ => None,
            };
            let joint = self.is_joint(l);
            let relu = layer.activation == Activation::Relu && !joint;
            multiply::<I, T>(packed, h, z, relu, pairs);
            if joint {
                let stream = stream[..layer.outputs].as_flattened_mut();
                for (z, stream) in z.as_flattened_mut().iter_mut().zip(stream) {
                    if l > 0 {
                        *z += *stream;
                    }
                    *stream = *z;
                }
            }
            if !relu {
                dense::activate::<I, T>(layer.activation, z, derivative);
            }
            (from, to) = (to, to + layer.outputs);
        }
    }

    /// The features: real coordinates as they are, circular ones as cosine and sine.
    #[inline(always)]
    fn look<I: InstructionSet, T: Number>(&self, x: &[Lane<f64>], out: &mut [Lane<T>]) {
        let mut k = 0;
        for &(j, circular) in &self.features {
            let x = &x[j];
            if circular {
                let (cosine, sine) = out[k..k + 2].split_at_mut(1);
                for r in 0..ROWS {
                    let (s, c) = sin_cos::<I>(x[r]);
                    cosine[0][r] = T::narrow(c);
                    sine[0][r] = T::narrow(s);
                }
                k += 2;
            } else {
                for r in 0..ROWS {
                    out[k][r] = T::narrow(x[r]);
                }
                k += 1;
            }
        }
    }

    /// Transforms the columns of x by the parameters, and adds to ladj.
    #[inline(always)]
    pub fn transform<I: InstructionSet, T: Number>(
        &self,
        params: &[Lane<T>],
        direction: Direction,
        x: &mut [Lane<f64>],
        ladj: &mut Lane<f64>,
        located: &mut Located<T>,
    ) {
        match &self.transform {
            Transform::Additive { columns } => {
                for (&j, t) in columns.iter().zip(params) {
                    for r in 0..ROWS {
                        match direction {
                            Direction::Forward => x[j][r] += t[r].wide(),
                            Direction::Inverse => x[j][r] -= t[r].wide(),
                        }
                    }
                }
            }
            Transform::Affine { columns, bound } => {
                let (raw, shift) = params.split_at(columns.len());
                let bound = T::narrow(*bound);
                for ((&j, raw), shift) in columns.iter().zip(raw).zip(shift) {
                    affine::forward::<I, T>(bound, raw, shift, direction, &mut x[j], ladj);
                }
            }
            Transform::VolumePreserving { columns, bound } => {
                volume_preserving::forward::<I, T>(columns, T::narrow(*bound), params, direction, x);
            }
            Transform::LogisticMixture { columns, shape } => {
                for (&j, params) in columns.iter().zip(params.chunks_exact(shape.parameters())) {
                    logistic_mixture::forward::<I, T>(shape, params, direction, &mut x[j], ladj);
                }
            }
            Transform::Spline { columns } => {
                for c in columns {
                    let params = &params[c.first_parameter..c.first_parameter + c.parameters];
                    spline::forward::<I, T>(c.shape, params, direction, &mut x[c.column], ladj, located);
                }
            }
        }
    }

    /// The way back of a gradient. `gx` goes from that of the output to that of the input; among `values` the parameters
    /// become their gradient, and `derivatives` become the gradients of what the hidden activations were taken of.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub fn backward<I: InstructionSet, T: Number>(
        &self,
        packed: &[PackedLayer<T>],
        direction: Direction,
        kept: &[Lane<f64>],
        values: &mut [Lane<T>],
        derivatives: &mut [Lane<T>],
        gx: &mut [Lane<f64>],
        g_ladj: &Lane<f64>,
        scratch: &mut Scratch<T>,
    ) {
        let features = self.feature_count();
        let (values, params) = values.split_at_mut(self.first_parameter());
        self.transform_backward::<I, T>(params, direction, kept, gx, g_ladj, &mut scratch.located);
        let mut dz: &[Lane<T>] = params;
        let mut rest = derivatives;
        let mut hidden: &[Lane<T>] = values;
        // The gradient of what the activation after the one before was taken of.
        let mut after: &[Lane<T>] = &[];
        for (l, (layers, packed)) in self.layers.windows(2).zip(&packed[1..]).enumerate().rev() {
            let width = layers[1].inputs;
            let (before, mine) = rest.split_at_mut(rest.len() - width);
            let (values, h) = hidden.split_at(hidden.len() - width);
            let dh = &mut scratch.lanes[..width];
            dense::product_backward::<I, T>(&packed.transposed, layers[0].activation, dz, h, dh, mine);
            if self.is_joint(l) && self.is_joint(l + 2) {
                for (mine, after) in mine.as_flattened_mut().iter_mut().zip(after.as_flattened()) {
                    *mine += *after;
                }
            }
            (after, dz, rest, hidden) = (dz, mine, before, values);
        }
        if features == 0 {
            return;
        }
        let df = &mut scratch.lanes[..features];
        dense::product::<I, T>(&packed[0].transposed, None, dz, df, After::Nothing);
        let mut k = 0;
        for &(j, circular) in &self.features {
            let gx = &mut gx[j];
            if circular {
                let (cosine, sine) = (&values[k], &values[k + 1]);
                for r in 0..ROWS {
                    gx[r] += df[k + 1][r].wide() * cosine[r].wide() - df[k][r].wide() * sine[r].wide();
                }
                k += 2;
            } else {
                for r in 0..ROWS {
                    gx[r] += df[k][r].wide();
                }
                k += 1;
            }
        }
    }

    #[inline(always)]
    fn transform_backward<I: InstructionSet, T: Number>(
        &self,
        params: &mut [Lane<T>],
        direction: Direction,
        kept: &[Lane<f64>],
        gx: &mut [Lane<f64>],
        g_ladj: &Lane<f64>,
        located: &mut Located<T>,
    ) {
        match &self.transform {
            Transform::Additive { columns } => {
                for (&j, t) in columns.iter().zip(params) {
                    for r in 0..ROWS {
                        t[r] = match direction {
                            Direction::Forward => T::narrow(gx[j][r]),
                            Direction::Inverse => T::narrow(-gx[j][r]),
                        };
                    }
                }
            }
            Transform::Affine { columns, bound } => {
                let (raw, shift) = params.split_at_mut(columns.len());
                let bound = T::narrow(*bound);
                for (((&j, raw), shift), kept) in columns.iter().zip(raw).zip(shift).zip(kept) {
                    affine::backward::<I, T>(bound, raw, shift, direction, kept, &mut gx[j], g_ladj);
                }
            }
            Transform::VolumePreserving { columns, bound } => {
                volume_preserving::backward::<I, T>(columns, T::narrow(*bound), params, direction, kept, gx);
            }
            Transform::LogisticMixture { columns, shape } => {
                let params = params.chunks_exact_mut(shape.parameters());
                for ((&j, params), kept) in columns.iter().zip(params).zip(kept) {
                    logistic_mixture::backward::<I, T>(shape, params, direction, kept, &mut gx[j], g_ladj);
                }
            }
            Transform::Spline { columns } => {
                for (c, kept) in columns.iter().zip(kept) {
                    let params = &mut params[c.first_parameter..c.first_parameter + c.parameters];
                    let gx = &mut gx[c.column];
                    spline_gradient::backward::<I, T>(c.shape, params, direction, kept, gx, g_ladj, located);
                }
            }
        }
    }
}

/// out = W·h + b in the layer's precision; max(0, ·) of it if `relu`.
#[inline(always)]
fn multiply<I: InstructionSet, T: Number>(
    packed: &PackedLayer<T>,
    h: &[Lane<T>],
    out: &mut [Lane<T>],
    relu: bool,
    pairs: &mut [Lane<u32>],
) {
    if packed.precision == Precision::Bf16
        && let (Some(h), Some(bias)) = (T::single(h), T::single_numbers(&packed.bias))
        && let Some(out) = T::single_mut(out)
    {
        let pairs = &mut pairs[..h.len().div_ceil(2)];
        bf16::pair(h, pairs);
        if relu {
            bf16::product::<I, true>(&packed.rounded, bias, pairs, out);
        } else {
            bf16::product::<I, false>(&packed.rounded, bias, pairs, out);
        }
    } else {
        let after = if relu { After::Relu } else { After::Nothing };
        dense::product::<I, T>(&packed.weights, Some(&packed.bias), h, out, after);
    }
}
