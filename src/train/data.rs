//! Configurations to train on: in flow coordinates, split into what is trained on and what is held out.

use super::coverage::FEWEST_FRAMES;
use super::plan::TrainingPlan;
use super::trainer::TrainError;
use crate::coords::ReducedTarget;
use crate::flow::{Direction, Flow, Tau, TemperatureRange};
use crate::math::{LogSumExp, Purpose, Randoms};
use candle_core::{Device, Tensor};
use std::collections::HashMap;

/// One in this many stretches of the data is kept from training, to measure the flow on. Neighbouring frames of a
/// trajectory are alike: single frames between those trained on would not be unseen. (Short data have to make do with them.)
pub(super) const HELD_OUT: usize = 20;

/// Stretches that the data are cut into.
const STRETCHES: usize = 20 * HELD_OUT;

/// Frames that global affine layers are set from, at most.
const STANDARDISED: usize = 2048;

/// Held-out frames that are measured on, at most.
const MAX_HELD_OUT: usize = 8192;

/// Temperatures that they are of, beside that of the plan.
const MAX_OTHERS: usize = 16;

/// Temperatures of single precision are a little off.
const ROUNDING: f64 = 1e-6;

/// Configurations to train on.
#[derive(Clone, Debug)]
pub struct TrainingData {
    /// Frames (n, D) in the system's length unit.
    pub positions: Vec<f64>,
    /// The temperature (n) of each frame in the unit of the system's scale; empty where all count as the plan's.
    pub temperatures: Vec<f64>,
    /// SHA-256 of the data, for the model card.
    pub digest: String,
}

/// Data in flow coordinates, split into what is trained on and what is held out.
#[derive(Debug)]
pub(super) struct PreparedData {
    training: TrainingFrames,
    /// The last so many coordinates are auxiliary variables, drawn anew for each batch.
    auxiliary: usize,
    /// The latent temperature of each frame trained on; empty where all are the plan's.
    taus: Vec<f64>,
    /// What a flow is measured on at the plan's temperature.
    held_out: HeldOutFrames,
    /// The same at other temperatures of a range that there are frames of, ascending.
    others: Vec<HeldOutFrames>,
    pub digest: String,
}

/// Frames that a flow is measured on at a temperature.
#[derive(Debug)]
struct HeldOutFrames {
    temperature: f64,
    /// Flow coordinates (n, d).
    frames: Vec<f64>,
    /// ladj (y → x) and U/kT (n).
    ladj: Vec<f64>,
    reduced: Vec<f64>,
}

impl HeldOutFrames {
    /// At most so many of the frames of these indices, spread over them, from coordinates (n, d) and ladj (n) of positions (n, D).
    fn new(
        target: &ReducedTarget,
        temperature: f64,
        (frames, most): (&[usize], usize),
        (y, ladj, positions): (&[f64], &[f64], &[f64]),
    ) -> Result<Self, TrainError> {
        let (d, dx) = (target.dimension(), target.system().dimension());
        let stride = frames.len().div_ceil(most).max(1);
        let kept: Vec<usize> = frames.iter().skip(stride - 1).step_by(stride).copied().collect();
        let rows =
            |all: &[f64], width: usize| kept.iter().flat_map(|i| all[i * width..(i + 1) * width].to_vec()).collect();
        let positions: Vec<f64> = rows(positions, dx);
        let mut energies = vec![0.0; kept.len()];
        target.system().potential().evaluate(&positions, &mut energies, None)?;
        let kt = target.system().scale().kt(temperature);
        let reduced = energies.into_iter().map(|u| u / kt).collect();
        Ok(Self { temperature, frames: rows(y, d), ladj: rows(ladj, 1), reduced })
    }

    /// A flow on these, at their latent temperature.
    fn measure(&self, flow: &Flow, tau: f64) -> Result<HeldOut, TrainError> {
        let d = flow.spec().dimension();
        let (mut sum, mut weights) = (0.0, LogSumExp::default());
        let frames = self.frames.chunks(1024 * d);
        for ((y, ladj), u) in frames.zip(self.ladj.chunks(1024)).zip(self.reduced.chunks(1024)) {
            let (z, ladj_z) = flow.apply_rows(y, Tau::One(tau), Direction::Inverse)?;
            for (((z, ladj_z), ladj), u) in z.chunks_exact(d).zip(ladj_z).zip(ladj).zip(u) {
                let log_prob = flow.prior().log_prob(z, tau) + ladj_z - ladj;
                sum += log_prob;
                weights.add(if log_prob.is_nan() { f64::INFINITY } else { -u - log_prob });
            }
        }
        let n = self.ladj.len() as f64;
        Ok(HeldOut { log_prob: sum / n, log_mean_weight: weights.value() - n.ln() })
    }
}

/// Frames (n, d), where batches of them are made.
#[derive(Debug)]
enum TrainingFrames {
    Host(Vec<f64>),
    Device(Tensor),
}

/// The flow as measured on data that it was not trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct HeldOut {
    /// ⟨log p(x)⟩.
    pub log_prob: f64,
    /// log ⟨w⟩ over the data, w = exp(−U/kT)/p(x): with log Z it gives the effective fraction as the data see it,
    /// Z/⟨w⟩. It is +∞ if the flow has no density at a frame.
    pub log_mean_weight: f64,
}

impl HeldOut {
    /// The effective fraction as the data see it, with log Z from the flow's own samples.
    pub fn effective_fraction(&self, log_z: f64) -> f64 {
        // With no weight anywhere log Z is −∞, and nothing is covered.
        let fraction = (log_z - self.log_mean_weight).exp().min(1.0);
        if fraction.is_nan() { 0.0 } else { fraction }
    }
}

/// Which of n frames are kept from training: one in so many stretches of each temperature's, in whatever order they come.
fn held_out_frames(n: usize, temperatures: &[f64]) -> Vec<bool> {
    let of = |frame: usize| temperatures.get(frame).map_or(0, |t| t.to_bits());
    let mut counts: HashMap<u64, usize> = HashMap::new();
    (0..n).for_each(|frame| *counts.entry(of(frame)).or_default() += 1);
    let mut seen: HashMap<u64, usize> = HashMap::new();
    let kept = |frame: usize| {
        let stretch = (counts.get(&of(frame)).copied().unwrap_or(n) / STRETCHES).max(1);
        let rank = seen.entry(of(frame)).or_default();
        *rank += 1;
        (*rank - 1) / stretch % HELD_OUT == HELD_OUT - 1
    };
    (0..n).map(kept).collect()
}

impl PreparedData {
    /// Frames of a system in flow coordinates.
    pub fn new(
        target: &ReducedTarget,
        data: TrainingData,
        plan: &TrainingPlan,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let d = target.dimension();
        let TrainingData { positions, temperatures, digest } = data;
        let (y, ladj) = target.to_coordinates(&positions);
        if let Some(frame) = y.chunks_exact(d).position(|row| row.iter().any(|v| !v.is_finite())) {
            return Err(TrainError::Plan(format!(
                "frame {frame} of the dataset has no finite internal coordinates: atoms coincide or lie on a line"
            )));
        }
        let n = ladj.len();
        if n < HELD_OUT {
            return Err(TrainError::Plan(format!("the dataset has {n} frames; it needs {HELD_OUT} at least")));
        }
        if !temperatures.is_empty() && temperatures.len() != n {
            return Err(TrainError::Plan(format!(
                "the dataset has {n} frames and {} temperatures",
                temperatures.len()
            )));
        }
        let held_out = held_out_frames(n, &temperatures);
        // Coverage is judged at the plan's temperature by the frames that are nearest to it.
        let of = |frame: usize| temperatures.get(frame).copied().unwrap_or(plan.temperature);
        let gap = |frame: usize| (of(frame) / plan.temperature).ln().abs();
        let held = || (0..n).filter(|&frame| held_out[frame]);
        let least = held().map(gap).fold(f64::INFINITY, f64::min);
        let measured_at = |temperature, frames: &[usize], most| {
            HeldOutFrames::new(target, temperature, (frames, most), (&y, &ladj, &positions))
        };
        let mut others: Vec<(f64, Vec<usize>)> = Vec::new();
        if let Some(TemperatureRange { low, high }) = plan.temperature_range {
            let inside = low * (1.0 - ROUNDING)..=high * (1.0 + ROUNDING);
            let mut known: Vec<usize> = held().filter(|&frame| inside.contains(&of(frame))).collect();
            known.sort_by(|&a, &b| of(a).total_cmp(&of(b)));
            for group in known.chunk_by(|&a, &b| of(a) == of(b)) {
                if let [first, ..] = *group
                    && group.len() >= FEWEST_FRAMES
                    && gap(first) > ROUNDING
                {
                    others.push((of(first), group.to_vec()));
                }
            }
        }
        let stride = others.len().div_ceil(MAX_OTHERS).max(1);
        let others = others.iter().step_by(stride);
        let others = others.map(|(temperature, frames)| measured_at(*temperature, frames, MAX_HELD_OUT / MAX_OTHERS));
        let others = others.collect::<Result<_, _>>()?;
        let (mut training, mut taus) = (Vec::with_capacity(y.len()), Vec::new());
        for (frame, row) in y.chunks_exact(d).enumerate().filter(|(frame, _)| !held_out[*frame]) {
            training.extend_from_slice(row);
            if plan.temperature_range.is_some() {
                taus.extend(temperatures.get(frame).map(|t| t / plan.temperature));
            }
        }
        let at_reference: Vec<usize> = held().filter(|&frame| gap(frame) <= least).collect();
        let held_out = measured_at(plan.temperature, &at_reference, MAX_HELD_OUT)?;
        let training = match device {
            Device::Cpu => TrainingFrames::Host(training),
            device => TrainingFrames::Device(Tensor::from_slice(&training, (training.len() / d, d), device)?),
        };
        Ok(Self { training, auxiliary: target.coordinates().auxiliary(), taus, held_out, others, digest })
    }

    /// Frames that a flow is measured on.
    pub fn held_out_frames(&self) -> usize {
        self.held_out.ladj.len()
    }

    /// A flow on what is held out, at the temperature of the plan; nothing if there are too few frames to hold any out.
    pub fn measure(&self, flow: &Flow) -> Result<Option<HeldOut>, TrainError> {
        if self.held_out.ladj.is_empty() {
            return Ok(None);
        }
        self.held_out.measure(flow, 1.0).map(Some)
    }

    /// Other temperatures of the plan's range that frames are held out of, and a flow on these.
    pub fn measure_others(&self, flow: &Flow, plan: &TrainingPlan) -> Result<Vec<(f64, HeldOut)>, TrainError> {
        let one = |held_out: &HeldOutFrames| {
            let temperature = held_out.temperature;
            Ok((temperature, held_out.measure(flow, temperature / plan.temperature)?))
        };
        self.others.iter().map(one).collect()
    }

    /// Frames (n, d), spread over all: enough to know how far coordinates reach.
    pub fn some(&self, d: usize) -> Result<Vec<f64>, TrainError> {
        let stride = |count: usize| count.div_ceil(STANDARDISED).max(1);
        Ok(match &self.training {
            TrainingFrames::Host(frames) => {
                frames.chunks_exact(d).step_by(stride(frames.len() / d)).flatten().copied().collect()
            }
            TrainingFrames::Device(frames) => {
                let count = frames.dim(0)?;
                let rows: Vec<i64> = (0..count).step_by(stride(count)).map(|row| row as i64).collect();
                let rows = Tensor::from_vec(rows.clone(), rows.len(), frames.device())?;
                frames.index_select(&rows, 0)?.flatten_all()?.to_vec1()?
            }
        })
    }

    /// A batch of frames (n, d) drawn with replacement, and their latent temperatures; none where all are the plan's.
    pub fn draw(&self, seed: u64, step: u64, batch: usize, d: usize) -> Result<(Tensor, Vec<f64>), TrainError> {
        let mut random = Randoms::new(seed, Purpose::TrainingData, step);
        let count = match &self.training {
            TrainingFrames::Host(frames) => frames.len() / d,
            TrainingFrames::Device(frames) => frames.dim(0)?,
        };
        let drawn: Vec<usize> = (0..batch).map(|_| random.below(count as u64) as usize).collect();
        let taus = drawn.iter().filter_map(|&frame| self.taus.get(frame)).copied().collect();
        let rows = match &self.training {
            TrainingFrames::Host(frames) => {
                let rows = drawn.iter().flat_map(|frame| &frames[frame * d..(frame + 1) * d]);
                Tensor::from_vec(rows.copied().collect::<Vec<f64>>(), (batch, d), &Device::Cpu)?
            }
            TrainingFrames::Device(frames) => {
                let drawn: Vec<i64> = drawn.iter().map(|&frame| frame as i64).collect();
                frames.index_select(&Tensor::from_vec(drawn, batch, frames.device())?, 0)?
            }
        };
        if self.auxiliary == 0 {
            return Ok((rows, taus));
        }
        let mut random = Randoms::new(seed, Purpose::BatchAuxiliary, step);
        let fresh: Vec<f64> = (0..batch * self.auxiliary).map(|_| random.normal()).collect();
        let fresh = Tensor::from_vec(fresh, (batch, self.auxiliary), rows.device())?;
        Ok((Tensor::cat(&[rows.narrow(1, 0, d - self.auxiliary)?, fresh], 1)?, taus))
    }
}
