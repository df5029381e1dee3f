//! The Boltzmann density in a flow's coordinates, on a CUDA device: what [`ReducedTarget`] does on the CPU.
//!
//! Coordinates, positions and energies stay in GPU memory. Kernels work coordinate-major, (d, n), tensors are rows, (n, d).

use super::target::ReducedTarget;
use super::transform::CoordinateTransform;
use crate::energy::EnergyScale;
use crate::energy::cuda::{DevicePotential, one_thread_each, room, tensor, with_numbers};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, PushKernelArg};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{Device, Result, Tensor, bail};

const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/coordinates.ptx"));
const MODULE: &str = "boltzflow_coordinates";

/// A reduced target whose tables are in a GPU's memory.
#[derive(Debug)]
pub struct DeviceTarget {
    potential: DevicePotential,
    transform: DeviceTransform,
    scale: EnergyScale,
}

/// What [`DeviceTarget::evaluate`] finds for a batch of n configurations; f64 tensors on the device.
#[derive(Clone, Debug)]
pub struct DeviceBatch {
    /// Positions (n, D) in the system's length unit.
    pub positions: Tensor,
    /// Potential energies U (n) in the system's energy unit; infinite outside of the coordinates' domain.
    pub energies: Tensor,
    /// log |det ∂x/∂y| (n).
    pub ladj: Tensor,
    /// ∂(φ(U/kT) − ladj)/∂y (n, d), if asked for.
    pub gradients: Option<Tensor>,
}

/// φ, by which the gradient of high energies is tamed: the identity up to `high`, a logarithm from there to `largest`, and
/// constant beyond.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regularisation {
    /// In units of kT, as `largest` is.
    pub high: f64,
    pub largest: f64,
}

impl DeviceTarget {
    /// The target on a device, or nothing if that is no CUDA device, or the system has no form for one.
    pub fn new(target: &ReducedTarget, device: &Device) -> Result<Option<Self>> {
        let Device::Cuda(device) = device else { return Ok(None) };
        let potential = target.system().potential();
        let coordinates = target.coordinates();
        let (Some(tables), Some(transform)) = (potential.tables(), DeviceTransform::new(coordinates.as_ref(), device)?)
        else {
            return Ok(None);
        };
        if transform.position_dimension != tables.dimension() {
            bail!("the coordinates are for {} numbers of a position", transform.position_dimension);
        }
        let potential = DevicePotential::new(&tables, device)?;
        Ok(Some(Self { potential, transform, scale: target.system().scale() }))
    }

    /// Whether the target is on this device.
    pub fn is_on(&self, device: &Device) -> bool {
        device.same_device(&Device::Cuda(self.transform.device.clone()))
    }

    /// Positions, energies and ladj of flow coordinates y (n, d), f64 on the target's device.
    pub fn evaluate(&self, y: &Tensor) -> Result<DeviceBatch> {
        self.run(y, None)
    }

    /// [`DeviceTarget::evaluate`], and the gradient of φ(U/kT) − ladj at the temperature of each row (n).
    pub fn evaluate_with_gradient(&self, y: &Tensor, temperatures: &[f64], phi: Regularisation) -> Result<DeviceBatch> {
        if temperatures.len() != y.dim(0)? {
            bail!("{} temperatures were given for {} rows", temperatures.len(), y.dim(0)?);
        }
        let betas: Vec<f64> = temperatures.iter().map(|&t| 1.0 / self.scale.kt(t)).collect();
        self.run(y, Some((betas, phi)))
    }

    /// Flow coordinates (n, d) and ladj (n) of positions (n, D), f64 on the target's device.
    pub fn to_coordinates(&self, positions: &Tensor) -> Result<(Tensor, Tensor)> {
        let (n, columns) = self.columns(positions, self.transform.position_dimension)?;
        let device = &self.transform.device;
        let (y, ladj) = with_numbers(&columns, |_, x| {
            self.transform.convert("boltzflow_to_coordinates", n, x, self.transform.dimension)
        })?;
        let y = tensor(y, device, (self.transform.dimension, n)).t()?.contiguous()?;
        Ok((y, tensor(ladj, device, n)))
    }

    /// Rows (n, width) as columns (width, n).
    fn columns(&self, rows: &Tensor, width: usize) -> Result<(usize, Tensor)> {
        let (n, given) = rows.dims2()?;
        if n == 0 || given != width {
            bail!("the target was given {n} rows of {given} numbers; it takes one or more rows of {width}");
        }
        if !self.is_on(rows.device()) {
            bail!("the target was given a tensor of another device");
        }
        Ok((n, rows.t()?.contiguous()?))
    }

    fn run(&self, y: &Tensor, gradient: Option<(Vec<f64>, Regularisation)>) -> Result<DeviceBatch> {
        let Self { potential, transform, .. } = self;
        let (d, dx, device) = (transform.dimension, transform.position_dimension, &transform.device);
        let (n, columns) = self.columns(y, d)?;
        with_numbers(&columns, |_, y| {
            let (x, ladj) = transform.convert("boltzflow_to_positions", n, y, dx)?;
            let at = x.slice(0..n * dx);
            let (energies, of_x) = potential.evaluate(n, &at, &ladj.slice(0..n), gradient.is_some())?;
            let gradients = match (&gradient, of_x) {
                (Some((betas, phi)), Some(of_x)) => {
                    let of_y = transform.pull_back(n, betas, *phi, y, &at, &energies.slice(0..n), of_x)?;
                    Some(tensor(of_y, device, (d, n)).t()?.contiguous()?)
                }
                _ => None,
            };
            Ok(DeviceBatch {
                positions: tensor(x, device, (dx, n)).t()?.contiguous()?,
                energies: tensor(energies, device, n),
                ladj: tensor(ladj, device, n),
                gradients,
            })
        })
    }
}

/// A coordinate transform whose tables are in a GPU's memory.
#[derive(Debug)]
struct DeviceTransform {
    device: CudaDevice,
    integers: CudaSlice<u32>,
    numbers: CudaSlice<f64>,
    dimension: usize,
    position_dimension: usize,
}

impl DeviceTransform {
    fn new(coordinates: &dyn CoordinateTransform, device: &CudaDevice) -> Result<Option<Self>> {
        let Some(tables) = coordinates.tables() else { return Ok(None) };
        Ok(Some(Self {
            integers: device.clone_htod(tables.integers())?,
            numbers: device.clone_htod(tables.numbers())?,
            dimension: tables.dimension(),
            position_dimension: tables.position_dimension(),
            device: device.clone(),
        }))
    }

    /// What a map of one kind of coordinates to the other writes: columns (`width`, n), and ladj (n).
    fn convert(
        &self,
        kernel: &str,
        n: usize,
        from: &CudaView<'_, f64>,
        width: usize,
    ) -> Result<(CudaSlice<f64>, CudaSlice<f64>)> {
        let (mut to, mut ladj) = (room(&self.device, n * width)?, room(&self.device, n)?);
        let config = one_thread_each(n)?;
        let kernel = self.device.get_or_load_custom_func(kernel, MODULE, PTX)?;
        let count = n as u64;
        let mut launch = kernel.builder();
        launch.arg(&count).arg(&self.integers).arg(&self.numbers).arg(from).arg(&mut to).arg(&mut ladj);
        // SAFETY: both maps have these arguments. Thread r < n reads numbers k·n + r of `from`, whose rows the caller
        // counted, and writes them to `to`, k below the width of each, and number r of ladj. The tables are of checked
        // coordinates: every atom is below D/3, and every internal coordinate and scaled one below d.
        unsafe { launch.launch(config) }.w()?;
        Ok((to, ladj))
    }

    /// The gradient (d, n) of φ(βU) − ladj, from that of U (D, n).
    #[allow(clippy::too_many_arguments)]
    fn pull_back(
        &self,
        n: usize,
        betas: &[f64],
        phi: Regularisation,
        y: &CudaView<'_, f64>,
        x: &CudaView<'_, f64>,
        energies: &CudaView<'_, f64>,
        mut of_x: CudaSlice<f64>,
    ) -> Result<CudaSlice<f64>> {
        let mut of_y = room(&self.device, n * self.dimension)?;
        let betas = self.device.clone_htod(betas)?;
        let config = one_thread_each(n)?;
        let kernel = self.device.get_or_load_custom_func("boltzflow_pull_back", MODULE, PTX)?;
        let count = n as u64;
        let mut launch = kernel.builder();
        launch.arg(&count).arg(&self.integers).arg(&self.numbers).arg(&betas).arg(&phi.high).arg(&phi.largest);
        launch.arg(y).arg(x).arg(energies).arg(&mut of_x).arg(&mut of_y);
        // SAFETY: the arguments are those of the kernel. Thread r < n reads and writes numbers k·n + r of (d, n) and (D, n)
        // arrays, and reads number r of the energies and of the n β; `of_x` is nobody else's.
        unsafe { launch.launch(config) }.w()?;
        Ok(of_y)
    }
}
