//! A flow: a prior and its bijectors.

use super::additive::AdditiveCoupling;
use super::affine::AffineCoupling;
use super::autoregressive::Autoregressive;
use super::bijector::Bijector;
use super::continuous::Continuous;
use super::error::FlowError;
use super::fused::{ApplyRows, FusedFlow, have_stages};
use super::gin::GinCoupling;
use super::global_affine::GlobalAffine;
use super::helmert::Helmert;
use super::householder::Householder;
use super::lu::Lu;
use super::parameters::{Initialiser, Loaded, Trainable};
use super::permutation::Permutation;
use super::prior::Prior;
use super::smooth::SmoothCoupling;
use super::spec::{FlowSpec, LayerSpec};
use super::spline::SplineCoupling;
use super::temperature::{Tau, TemperatureRange};
use super::weights::Weights;
use crate::compute::fused::ROWS;
use crate::compute::logistic_mixture::MixtureShape;
use crate::compute::{Direction, Precision};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// A matrix product of candle's may round differently for another number of rows: where it runs on the CPU without
/// gradients, it always has this many.
pub(super) const ROWS_OF_A_PART: usize = 128;

/// A normalizing flow, p(x) = q(f(x))·|det ∂f/∂x| (equation 9 of the note; f is the inverse direction).
#[derive(Debug)]
pub struct Flow {
    spec: FlowSpec,
    bijectors: Vec<Box<dyn Bijector>>,
    device: Device,
    /// What runs on the CPU, if every bijector has a stage.
    fused: Option<FusedFlow>,
    /// Of the weights.
    dtype: DType,
    precision: Precision,
    #[cfg(feature = "cuda")]
    device_prior: std::sync::OnceLock<super::cuda::DevicePrior>,
}

impl Flow {
    /// A new flow whose weights are drawn from the seed and can be trained. `dtype` (f32 or f64) is the precision of
    /// conditioners.
    pub fn initialise(
        spec: FlowSpec,
        seed: u64,
        dtype: DType,
        device: &Device,
    ) -> Result<(Self, Arc<Weights>), FlowError> {
        spec.check()?;
        let initialiser = Initialiser::new(seed);
        let vb = VarBuilder::from_backend(Box::new(initialiser.clone()), dtype, device.clone());
        // Which weights there are, and in which order, is known once the bijectors have asked for them.
        let together = device.is_cpu() && have_stages(&bijectors(&spec, vb, device)?);
        let weights = Arc::new(Weights::new(initialiser.into_drawn(), together)?);
        let vb = VarBuilder::from_backend(Box::new(Trainable(Arc::clone(&weights))), dtype, device.clone());
        let bijectors = bijectors(&spec, vb, device)?;
        let fused = match together {
            true => FusedFlow::trainable(spec.columns().width(), &bijectors, &weights)?,
            false => None,
        };
        Ok((Self::new(spec, bijectors, dtype, device, fused), weights))
    }

    /// A flow with the given weights, by path; it is not trainable, and keeps no graph of operations.
    pub fn from_weights(
        spec: FlowSpec,
        weights: HashMap<String, Tensor>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, FlowError> {
        spec.check()?;
        let vb = VarBuilder::from_backend(Box::new(Loaded { tensors: weights }), dtype, device.clone());
        let bijectors = bijectors(&spec, vb, device).map_err(|e| FlowError::Weights(e.to_string()))?;
        let fused = if device.is_cpu() { FusedFlow::frozen(spec.columns().width(), &bijectors) } else { None };
        Ok(Self::new(spec, bijectors, dtype, device, fused))
    }

    fn new(
        spec: FlowSpec,
        bijectors: Vec<Box<dyn Bijector>>,
        dtype: DType,
        device: &Device,
        fused: Option<FusedFlow>,
    ) -> Self {
        Self {
            spec,
            bijectors,
            dtype,
            device: device.clone(),
            fused,
            precision: Precision::Full,
            #[cfg(feature = "cuda")]
            device_prior: std::sync::OnceLock::new(),
        }
    }

    pub fn spec(&self) -> &FlowSpec {
        &self.spec
    }

    pub fn prior(&self) -> &Prior {
        &self.spec.prior
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The flow with its conditioners in another precision, where no gradient is asked for. Training is in that of the
    /// weights.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        let mut follows = false;
        match &mut self.fused {
            Some(fused) => {
                fused.set_precision(precision);
                follows = true;
            }
            None => self.bijectors.iter_mut().for_each(|b| follows |= b.set_precision(precision)),
        }
        if follows {
            self.precision = precision;
        }
        self
    }

    /// Whether the CPU runs the flow as one program of kernels.
    pub fn is_fused(&self) -> bool {
        self.fused.is_some()
    }

    /// What conditioners are computed in, where no gradient is asked for, by name: f64 where the weights are.
    pub fn precision(&self) -> String {
        match self.dtype {
            DType::F64 => "f64".into(),
            _ => self.precision.to_string(),
        }
    }

    /// The prior in a GPU's memory; nothing if the flow is on no CUDA device.
    #[cfg(feature = "cuda")]
    pub fn device_prior(&self) -> candle_core::Result<Option<&super::cuda::DevicePrior>> {
        if let Some(prior) = self.device_prior.get() {
            return Ok(Some(prior));
        }
        let made = super::cuda::DevicePrior::new(self.prior(), &self.device)?;
        Ok(made.map(|prior| self.device_prior.get_or_init(|| prior)))
    }

    pub(super) fn fused(&self) -> Option<&FusedFlow> {
        self.fused.as_ref()
    }

    /// In the order of the forward direction.
    pub(super) fn bijectors(&self) -> &[Box<dyn Bijector>] {
        &self.bijectors
    }

    /// The motion along a field that the flow is, if it is that and nothing else: its field can be regressed on.
    pub fn as_continuous(&self) -> Option<&Continuous> {
        match self.bijectors.as_slice() {
            [only] => only.as_continuous(),
            _ => None,
        }
    }

    /// The latent temperatures that the flow is conditioned on, if it is.
    pub fn temperatures(&self) -> Option<&TemperatureRange> {
        self.spec.temperatures.as_ref()
    }

    /// Runs all bijectors: (output (n, d), ladj (n)), both f64, differentiable. `tau` is what a flow conditioned on
    /// temperature is told.
    pub fn apply(&self, input: &Tensor, tau: Tau<'_>, direction: Direction) -> Result<(Tensor, Tensor), FlowError> {
        let Some(fused) = &self.fused else { return self.apply_one_by_one(input, tau, direction) };
        let packed = fused.apply(&self.widened(input, tau)?, direction)?;
        let (d, width) = (self.spec.dimension(), self.spec.columns().width());
        Ok((packed.narrow(1, 0, d)?, packed.narrow(1, width, 1)?.squeeze(1)?))
    }

    /// [`Flow::apply`], (n, d + 1): the last column is ladj.
    pub fn apply_packed(&self, input: &Tensor, tau: Tau<'_>, direction: Direction) -> Result<Tensor, FlowError> {
        match &self.fused {
            Some(fused) if self.spec.temperatures.is_none() => Ok(fused.apply(input, direction)?),
            _ => {
                let (output, ladj) = self.apply(input, tau, direction)?;
                Ok(Tensor::cat(&[&output, &ladj.unsqueeze(1)?], 1)?)
            }
        }
    }

    /// [`Flow::apply`], bijector by bijector in candle operations: what runs where there is no program, and what the CPU's
    /// kernels are held against.
    pub fn apply_one_by_one(
        &self,
        input: &Tensor,
        tau: Tau<'_>,
        direction: Direction,
    ) -> Result<(Tensor, Tensor), FlowError> {
        self.run(input, tau, direction, |bijector, x| bijector.apply(x, direction))
    }

    fn run(
        &self,
        input: &Tensor,
        tau: Tau<'_>,
        direction: Direction,
        map: impl Fn(&dyn Bijector, &Tensor) -> candle_core::Result<(Tensor, Tensor)>,
    ) -> Result<(Tensor, Tensor), FlowError> {
        let mut x = self.widened(input, tau)?;
        let mut total: Option<Tensor> = None;
        let mut run = |bijector: &dyn Bijector| -> candle_core::Result<()> {
            let (y, ladj) = map(bijector, &x)?;
            x = y;
            total = Some(match total.take() {
                None => ladj,
                Some(total) => (total + ladj)?,
            });
            Ok(())
        };
        match direction {
            Direction::Forward => self.bijectors.iter().try_for_each(|b| run(b.as_ref()))?,
            Direction::Inverse => self.bijectors.iter().rev().try_for_each(|b| run(b.as_ref()))?,
        }
        let ladj = match total {
            Some(ladj) => ladj,
            None => Tensor::zeros(input.dim(0)?, DType::F64, &self.device)?,
        };
        Ok((x.narrow(1, 0, self.spec.dimension())?, ladj))
    }

    /// The columns that bijectors work on (n, columns): the coordinates, and the feature of the temperature if they see it.
    pub fn widened(&self, input: &Tensor, tau: Tau<'_>) -> candle_core::Result<Tensor> {
        let Some(range) = &self.spec.temperatures else { return Ok(input.clone()) };
        Tensor::cat(&[input, &tau.features(range, input.dim(0)?, &self.device)?], 1)
    }

    /// [`Flow::apply`] on numbers in host memory: rows of d in, (rows of d, ladj) out.
    pub fn apply_rows(
        &self,
        input: &[f64],
        tau: Tau<'_>,
        direction: Direction,
    ) -> Result<(Vec<f64>, Vec<f64>), FlowError> {
        let d = self.spec.dimension();
        let Some(fused) = &self.fused else {
            return if self.device.is_cpu() {
                self.apply_in_parts(input, tau, direction)
            } else {
                self.apply_tensor(input, tau, direction)
            };
        };
        let Some(range) = &self.spec.temperatures else {
            return fused.with_weights(ApplyRows { rows: input, direction });
        };
        let mut wide = Vec::with_capacity(input.len() / d * (d + 1));
        for (i, row) in input.chunks_exact(d).enumerate() {
            wide.extend_from_slice(row);
            wide.push(range.feature(tau.of(i)));
        }
        let (wide, ladj) = fused.with_weights(ApplyRows { rows: &wide, direction })?;
        Ok((wide.chunks_exact(d + 1).flat_map(|row| &row[..d]).copied().collect(), ladj))
    }

    /// [`Flow::apply_rows`] bijector by bijector, on all rows at once.
    fn apply_tensor(
        &self,
        rows: &[f64],
        tau: Tau<'_>,
        direction: Direction,
    ) -> Result<(Vec<f64>, Vec<f64>), FlowError> {
        let d = self.spec.dimension();
        let input = Tensor::from_slice(rows, (rows.len() / d, d), &self.device)?;
        let (output, ladj) = self.run(&input, tau, direction, |bijector, x| bijector.values(x, direction))?;
        Ok((output.flatten_all()?.to_vec1()?, ladj.to_vec1()?))
    }

    /// [`Flow::apply_tensor`] on parts of a fixed number of rows, so that a row does not depend on its company.
    fn apply_in_parts(
        &self,
        rows: &[f64],
        tau: Tau<'_>,
        direction: Direction,
    ) -> Result<(Vec<f64>, Vec<f64>), FlowError> {
        let d = self.spec.dimension();
        if self.bijectors.iter().all(|b| b.keeps_rows_apart()) {
            let part = |(i, rows): (usize, &[f64])| {
                let taus: Vec<f64> = (0..rows.len() / d).map(|r| tau.of(i * ROWS + r)).collect();
                self.apply_tensor(rows, Tau::Each(&taus), direction)
            };
            let parts = rows.par_chunks(ROWS * d).enumerate().map(part);
            let parts: Vec<_> = parts.collect::<Result<_, FlowError>>()?;
            let (output, ladj): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
            return Ok((output.concat(), ladj.concat()));
        }
        let part = |(i, rows): (usize, &[f64])| {
            let n = rows.len() / d;
            // What a part lacks are repetitions of its last row.
            let row = |r: usize| r.min(n - 1);
            let padded: Vec<f64> = (0..ROWS_OF_A_PART).flat_map(|r| &rows[row(r) * d..][..d]).copied().collect();
            let taus: Vec<f64> = (0..ROWS_OF_A_PART).map(|r| tau.of(i * ROWS_OF_A_PART + row(r))).collect();
            let (mut output, mut ladj) = self.apply_tensor(&padded, Tau::Each(&taus), direction)?;
            output.truncate(n * d);
            ladj.truncate(n);
            Ok((output, ladj))
        };
        let parts: Vec<_> =
            rows.par_chunks(ROWS_OF_A_PART * d).enumerate().map(part).collect::<Result<_, FlowError>>()?;
        let (output, ladj): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        Ok((output.concat(), ladj.concat()))
    }

    /// Whether every bijector's Jacobian is constant, so that scaling the latent's variance by τ changes the
    /// temperature by τ with no error of its own (§4.3 and §4.4 of the note). A flow that is told the temperature is
    /// another one at each.
    pub fn has_constant_jacobian(&self) -> bool {
        self.spec.temperatures.is_none() && self.bijectors.iter().all(|b| b.has_constant_jacobian())
    }
}

/// The flow's bijectors, with weights that the builder gives them.
fn bijectors(spec: &FlowSpec, vb: VarBuilder<'_>, device: &Device) -> candle_core::Result<Vec<Box<dyn Bijector>>> {
    let columns = spec.columns();
    let layer = |(i, layer): (usize, &LayerSpec)| {
        let vb = vb.pp("layers").pp(i);
        Ok::<Box<dyn Bijector>, candle_core::Error>(match layer {
            LayerSpec::Permutation { order } => Box::new(Permutation::new(order, columns, device)?),
            LayerSpec::Helmert { particles, space, scaled } => {
                Box::new(Helmert::new((*particles, *space), *scaled, columns, &vb)?)
            }
            LayerSpec::GlobalAffine => Box::new(GlobalAffine::new(columns, &vb)?),
            LayerSpec::Lu { order } => Box::new(Lu::new(order, columns, &vb)?),
            LayerSpec::Householder { reflections } => Box::new(Householder::new(*reflections, columns, &vb)?),
            LayerSpec::Additive { coupling } => Box::new(AdditiveCoupling::new(coupling, columns, &vb)?),
            LayerSpec::Affine { coupling, bound } => Box::new(AffineCoupling::new(coupling, *bound, columns, &vb)?),
            LayerSpec::Gin { coupling, bound } => Box::new(GinCoupling::new(coupling, *bound, columns, &vb)?),
            LayerSpec::Autoregressive { order, kind, conditioner, bound } => {
                Box::new(Autoregressive::new(order, *kind, conditioner, *bound, columns, &vb)?)
            }
            LayerSpec::Smooth { coupling, components, bound } => {
                let shape = MixtureShape { components: *components, bound: *bound };
                Box::new(SmoothCoupling::new(coupling, shape, columns, &vb)?)
            }
            LayerSpec::Spline { coupling, bins, bound } => {
                Box::new(SplineCoupling::new(coupling, *bins, *bound, columns, &vb)?)
            }
            LayerSpec::Continuous(continuous) => Box::new(Continuous::new(continuous, columns, &vb)?),
        })
    };
    spec.layers.iter().enumerate().map(layer).collect()
}
