//! Latents on a CUDA device: the bits that the CPU draws.

use super::prior::{Prior, PriorComponent};
use crate::energy::cuda::{one_thread_each, room, tensor};
use crate::math::Purpose;
use crate::math::special::HALF_LOG_TWO_PI;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, PushKernelArg};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{Device, Result, Tensor, bail};

const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/latents.ptx"));
const MODULE: &str = "boltzflow_latents";

/// A prior whose components are in a GPU's memory.
#[derive(Debug)]
pub struct DevicePrior {
    device: CudaDevice,
    /// What `latents.cuh` wants to know of each component.
    components: CudaSlice<f64>,
    /// One for each Gaussian component, zero for the others.
    gaussian: Vec<f64>,
    dimension: usize,
}

impl DevicePrior {
    /// The prior on a device, or nothing if that is no CUDA device.
    pub fn new(prior: &Prior, device: &Device) -> Result<Option<Self>> {
        let Device::Cuda(device) = device else { return Ok(None) };
        let table = prior.table();
        if table.is_empty() {
            bail!("the prior has no components");
        }
        let components = device.clone_htod(&table[..])?;
        let is_gaussian = |c: &PriorComponent| if *c == PriorComponent::Gaussian { 1.0 } else { 0.0 };
        let gaussian: Vec<f64> = prior.components().iter().map(is_gaussian).collect();
        Ok(Some(Self { device: device.clone(), components, dimension: gaussian.len(), gaussian }))
    }

    /// Latents z (n, d) of the addresses (seed, purpose, first_index), (seed, purpose, first_index + 1), … at latent
    /// temperature τ, and their log q_τ (n).
    pub fn sample(
        &self,
        n: usize,
        seed: u64,
        purpose: Purpose,
        first_index: u64,
        tau: f64,
    ) -> Result<(Tensor, Tensor)> {
        let Self { device, components, dimension: d, .. } = self;
        if n == 0 || first_index.checked_add(n as u64 - 1).is_none() {
            bail!("{n} latents from index {first_index} on do not exist");
        }
        let mut out = room(device, n * (d + 1))?;
        let config = one_thread_each(n)?;
        let kernel = device.get_or_load_custom_func("boltzflow_latents", MODULE, PTX)?;
        let (count, width, constant) = (n as u64, tau.sqrt(), -0.5 * tau.ln() - HALF_LOG_TWO_PI);
        let (purpose, columns) = (purpose as u32, *d as u32);
        let mut launch = kernel.builder();
        launch.arg(&count).arg(&columns).arg(components).arg(&seed).arg(&purpose).arg(&first_index);
        launch.arg(&width).arg(&constant).arg(&mut out);
        // SAFETY: the arguments are those of the kernel. Thread r < n writes the d + 1 numbers of row r, and reads the three
        // numbers of each of d components.
        unsafe { launch.launch(config) }.w()?;
        let out = tensor(out, device, (n, d + 1));
        Ok((out.narrow(1, 0, *d)?.contiguous()?, out.narrow(1, *d, 1)?.squeeze(1)?.contiguous()?))
    }
}

impl DevicePrior {
    /// Latents (n, d) of latent temperature one, brought to a temperature τ (n) for each.
    pub fn scaled(&self, latents: &Tensor, taus: &[f64]) -> Result<Tensor> {
        let stretch: Vec<f64> =
            taus.iter().flat_map(|tau| self.gaussian.iter().map(move |g| 1.0 + g * (tau.sqrt() - 1.0))).collect();
        latents * Tensor::from_vec(stretch, (taus.len(), self.dimension), latents.device())?
    }
}

impl Prior {
    /// (low, width, log density) of each component; zeros for a Gaussian.
    fn table(&self) -> Vec<f64> {
        let row = |component: &PriorComponent| match component {
            PriorComponent::Gaussian => [0.0; 3],
            PriorComponent::Uniform { low, high } => [*low, high - low, -(high - low).ln()],
        };
        self.components().iter().flat_map(row).collect()
    }
}
