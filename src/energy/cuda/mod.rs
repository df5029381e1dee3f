//! Potentials on a CUDA device.
//!
//! `potential.cu` has the kernels; the physics is in the headers that it includes, which a C++ compiler takes as well.
//! Arrays are coordinate-major, (D, n): threads side by side then read numbers side by side.

mod launch;

pub use launch::{one_thread_each, room, tensor, with_numbers};

use super::PotentialTables;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, PushKernelArg};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{Result, bail};

const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/potential.ptx"));
const MODULE: &str = "boltzflow_potential";

/// A potential whose tables are in a GPU's memory.
#[derive(Debug)]
pub struct DevicePotential {
    device: CudaDevice,
    integers: CudaSlice<u32>,
    numbers: CudaSlice<f64>,
    dimension: usize,
    scratch: usize,
}

impl DevicePotential {
    /// The potential of these tables.
    pub fn new(tables: &PotentialTables, device: &CudaDevice) -> Result<Self> {
        // A potential without parameters has a table all the same: CUDA copies nothing of no length.
        let numbers = if tables.numbers().is_empty() { &[0.0] } else { tables.numbers() };
        Ok(Self {
            integers: device.clone_htod(tables.integers())?,
            numbers: device.clone_htod(numbers)?,
            dimension: tables.dimension(),
            scratch: tables.scratch(),
            device: device.clone(),
        })
    }

    /// The number D of coordinates.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// Energies (n) of positions (D, n), and gradients (D, n) if they are asked for. Where `ladj` (n) is −∞ the energy is
    /// infinite.
    pub fn evaluate(
        &self,
        n: usize,
        positions: &CudaView<'_, f64>,
        ladj: &CudaView<'_, f64>,
        with_gradients: bool,
    ) -> Result<(CudaSlice<f64>, Option<CudaSlice<f64>>)> {
        if n == 0 || positions.len() < n * self.dimension || ladj.len() < n {
            bail!("the potential was given {} numbers for {n} configurations", positions.len());
        }
        let config = one_thread_each(n)?;
        let mut energies = room(&self.device, n)?;
        let mut scratch = room(&self.device, n * self.scratch)?;
        let count = n as u64;
        if !with_gradients {
            let kernel = self.device.get_or_load_custom_func("boltzflow_energies", MODULE, PTX)?;
            let mut launch = kernel.builder();
            launch.arg(&count).arg(&self.integers).arg(&self.numbers).arg(positions).arg(ladj);
            launch.arg(&mut energies).arg(&mut scratch);
            // SAFETY: the arguments are those of the kernel, in its order and types. Thread r < n reads and writes number
            // r of arrays of n, and numbers k·n + r, k below D or the scratch numbers, of arrays that are as long as that;
            // the tables were made for this D, and index no atom but those of it.
            unsafe { launch.launch(config) }.w()?;
            return Ok((energies, None));
        }
        let mut gradients = room(&self.device, n * self.dimension)?;
        let kernel = self.device.get_or_load_custom_func("boltzflow_energies_with_gradients", MODULE, PTX)?;
        let mut launch = kernel.builder();
        launch.arg(&count).arg(&self.integers).arg(&self.numbers).arg(positions).arg(ladj);
        launch.arg(&mut energies).arg(&mut gradients).arg(&mut scratch);
        // SAFETY: as above; gradients has a place for each of the D·n numbers.
        unsafe { launch.launch(config) }.w()?;
        Ok((energies, Some(gradients)))
    }
}
