//! The Boltzmann density in a flow's coordinates.

use super::augmented::log_normal;
use super::transform::CoordinateTransform;
use crate::energy::{EnergyError, System};
use rayon::prelude::*;
use std::sync::Arc;
#[cfg(feature = "cuda")]
use {
    super::cuda::DeviceTarget,
    candle_core::Device,
    std::sync::{Mutex, PoisonError},
};

/// Configurations transformed by one thread at a time.
const ROWS_PER_TASK: usize = 16;

/// The reduced potential that a flow is trained on and weighted with: u(y) = U(x(y))/kT − ladj(y → x).
#[derive(Clone, Debug)]
pub struct ReducedTarget {
    system: System,
    coordinates: Arc<dyn CoordinateTransform>,
    /// The target on each GPU that it was asked for on.
    #[cfg(feature = "cuda")]
    on_devices: Arc<Mutex<Vec<Arc<DeviceTarget>>>>,
}

/// What [`ReducedTarget::evaluate`] finds for a batch of n configurations.
#[derive(Clone, Debug, Default)]
pub struct TargetBatch {
    /// Positions (n, D) in the system's length unit.
    pub positions: Vec<f64>,
    /// Potential energies U (n) in the system's energy unit; infinite outside of the coordinates' domain.
    pub energies: Vec<f64>,
    /// log |det ∂x/∂y| (n).
    pub ladj: Vec<f64>,
    /// ∂u/∂y (n, d), if asked for.
    pub gradients: Vec<f64>,
}

impl ReducedTarget {
    pub fn new(system: System, coordinates: Arc<dyn CoordinateTransform>) -> Self {
        Self {
            system,
            coordinates,
            #[cfg(feature = "cuda")]
            on_devices: Arc::default(),
        }
    }

    /// The target on a device, made when it is first asked for; nothing if that is no CUDA device, or the target has no form
    /// for one.
    #[cfg(feature = "cuda")]
    pub fn on_device(&self, device: &Device) -> candle_core::Result<Option<Arc<DeviceTarget>>> {
        let mut known = self.on_devices.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = known.iter().find(|target| target.is_on(device)) {
            return Ok(Some(Arc::clone(target)));
        }
        let made = DeviceTarget::new(self, device)?.map(Arc::new);
        known.extend(made.clone());
        Ok(made)
    }

    pub fn system(&self) -> &System {
        &self.system
    }

    pub fn coordinates(&self) -> &Arc<dyn CoordinateTransform> {
        &self.coordinates
    }

    /// The number d of flow coordinates.
    pub fn dimension(&self) -> usize {
        self.coordinates.kinds().len()
    }

    /// log N(a; 0, τI) of the auxiliary variables a among y (d); zero where there are none.
    pub fn log_auxiliary(&self, y: &[f64], tau: f64) -> f64 {
        let first = y.len().saturating_sub(self.coordinates.auxiliary());
        y.get(first..).map_or(0.0, |auxiliary| log_normal(auxiliary, tau))
    }

    /// Positions, energies and ladj of flow coordinates y (n, d).
    pub fn evaluate(&self, y: &[f64]) -> Result<TargetBatch, EnergyError> {
        let (positions, ladj) = self.to_positions(y);
        let mut energies = vec![0.0; ladj.len()];
        self.system.potential().evaluate(&positions, &mut energies, None)?;
        mark_outside(&ladj, &mut energies);
        Ok(TargetBatch { positions, energies, ladj, gradients: Vec::new() })
    }

    /// [`ReducedTarget::evaluate`], and the gradient of φ(U/kT) − ladj at the temperature of each row, where `slope` is the
    /// derivative of φ; for `|_| 1.0` it is the gradient of u(y).
    pub fn evaluate_with_gradient(
        &self,
        y: &[f64],
        temperature: impl Fn(usize) -> f64 + Sync,
        slope: impl Fn(f64) -> f64 + Sync,
    ) -> Result<TargetBatch, EnergyError> {
        let (positions, ladj) = self.to_positions(y);
        let (d, dx) = (self.dimension(), self.coordinates.position_dimension());
        let mut energies = vec![0.0; ladj.len()];
        let mut forces = vec![0.0; positions.len()];
        self.system.potential().evaluate(&positions, &mut energies, Some(&mut forces))?;
        mark_outside(&ladj, &mut energies);
        let scale = self.system.scale();
        let mut gradients = vec![0.0; y.len()];
        gradients
            .par_chunks_mut(d)
            .zip(y.par_chunks(d))
            .zip(positions.par_chunks(dx))
            .zip(forces.par_chunks_mut(dx))
            .zip(energies.par_iter())
            .with_min_len(ROWS_PER_TASK)
            .enumerate()
            .for_each(|(row, ((((gradient, y), x), force), energy))| {
                let beta = 1.0 / scale.kt(temperature(row));
                let factor = beta * slope(beta * energy);
                force.iter_mut().for_each(|f| *f *= factor);
                self.coordinates.pull_back(y, x, force, gradient);
            });
        Ok(TargetBatch { positions, energies, ladj, gradients })
    }

    /// Flow coordinates (n, d) and ladj (n) of positions (n, D).
    pub fn to_coordinates(&self, positions: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (d, dx) = (self.dimension(), self.coordinates.position_dimension());
        let n = positions.len() / dx;
        let (mut y, mut ladj) = (vec![0.0; n * d], vec![0.0; n]);
        y.par_chunks_mut(d)
            .zip(positions.par_chunks(dx))
            .zip(ladj.par_iter_mut())
            .with_min_len(ROWS_PER_TASK)
            .for_each(|((y, x), ladj)| *ladj = self.coordinates.to_coordinates(x, y));
        (y, ladj)
    }

    /// Whether a configuration x (D) is in the domain of the coordinates: whether there is a y that makes it.
    pub fn makes(&self, x: &[f64]) -> bool {
        let mut y = vec![0.0; self.dimension()];
        let mut back = vec![0.0; x.len()];
        self.coordinates.to_coordinates(x, &mut y).is_finite()
            && self.coordinates.to_positions(&y, &mut back).is_finite()
    }

    fn to_positions(&self, y: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (d, dx) = (self.dimension(), self.coordinates.position_dimension());
        let n = y.len() / d;
        let (mut positions, mut ladj) = (vec![0.0; n * dx], vec![0.0; n]);
        positions
            .par_chunks_mut(dx)
            .zip(y.par_chunks(d))
            .zip(ladj.par_iter_mut())
            .with_min_len(ROWS_PER_TASK)
            .for_each(|((x, y), ladj)| *ladj = self.coordinates.to_positions(y, x));
        (positions, ladj)
    }
}

/// There is no density outside of the coordinates' domain.
fn mark_outside(ladj: &[f64], energies: &mut [f64]) {
    for (energy, ladj) in energies.iter_mut().zip(ladj) {
        if *ladj == f64::NEG_INFINITY {
            *energy = f64::INFINITY;
        }
    }
}
