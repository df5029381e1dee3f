//! The flow's own samples, kept and weighted, to train on as if they were data.
//!
//! A generation is filled while the one before it is trained on: every step adds samples of the flow as it is then, with
//! their energies and densities. When it is whole, its samples get weights towards the target (`transport`), and batches
//! are drawn by them. The density that a sample was drawn from stays with it, so that its weight is right however the flow
//! goes on.
//!
//! Or they are carried on, by annealed importance sampling towards p̃²/q, and keep the weights of their paths: flow annealed
//! importance sampling bootstrap (FAB; Midgley et al., ICLR 2023). Of these the density of the flow at the path's end stays
//! with them: p̃²/q moves on with q, and what a row is worth with it.

use super::plan::MAX_BATCH;
use super::transport::Transport;
use crate::coords::TargetBatch;
use crate::energy::EnergyScale;
use crate::flow::{FlowDraws, Tau};
use crate::math::Randoms;
use crate::sample::{PathEnds, PathLength, STEP_SIZES};
use candle_core::{Device, Result, Tensor};
use std::collections::BTreeMap;

/// How own samples are trained on.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Steps in which a generation of samples is drawn, and in which it is then trained on.
    pub generation: u64,
    /// Samples are drawn in every so many of these steps,
    pub every: u64,
    /// so many batches each time.
    pub batches: u64,
    pub transport: Transport,
    /// The share of samples whose Gaussian latents are wide: they go where the flow makes too little.
    pub wide_share: f64,
    /// With it samples are carried towards p̃²/q before they are weighted.
    pub annealing: Option<Annealing>,
}

/// How own samples are annealed.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annealing {
    pub path: PathLength,
    /// Of the leapfrog steps when training begins; then there is one for each distribution, tuned to an acceptance of 0.65.
    pub step_size: f64,
}

/// Rows evaluated for a batch: a run can be stopped between steps only.
const MAX_ANNEALED: usize = 1 << 18;

/// A tenth is of the flow as it is at least, so that weights are at most ten times p̃/q.
const MOST_WIDE: f64 = 0.9;

/// Temperatures of a range, in equal ratios, whose samples are weighted each by themselves.
pub(super) const RUNGS: usize = 16;

/// Samples of a generation that is being drawn. Row r is of rung r % rungs.
#[derive(Debug, Default)]
struct Pending {
    /// Flow coordinates (n, d).
    coordinates: Vec<f64>,
    /// U (n), ladj (y → x) (n) and log q (n).
    energies: Vec<f64>,
    ladj: Vec<f64>,
    log_probs: Vec<f64>,
    /// log h (n): they were drawn from h·q; nothing if they were annealed.
    excess: Vec<f64>,
    /// log w of the paths (n), if samples were annealed; then the coordinates are those at their ends.
    log_weights: Vec<f64>,
    /// The temperature factor that they were annealed at.
    annealed_at: Option<f64>,
}

/// Samples that are trained on.
#[derive(Debug, Default)]
struct Active {
    coordinates: Vec<f64>,
    /// Sums of the weights up to each row (n); the last is their total.
    cumulative: Vec<f64>,
    /// Latent temperatures (n); empty if the flow does not know them.
    taus: Vec<f64>,
    /// log q (n) of the flow that they were annealed from; empty if they were not.
    log_probs: Vec<f64>,
}

/// A batch of samples to train on.
pub(super) struct OwnBatch {
    /// Flow coordinates (n, d).
    pub coordinates: Tensor,
    /// Latent temperatures (n); empty if the flow does not know them.
    pub taus: Vec<f64>,
    /// log q (n) of the flow that they were annealed from; empty if they were not.
    pub log_probs: Vec<f64>,
}

impl OwnBatch {
    pub fn tau(&self) -> Tau<'_> {
        if self.taus.is_empty() { Tau::REFERENCE } else { Tau::Each(&self.taus) }
    }
}

/// Two generations.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pending: Pending,
    active: Active,
    /// Of leapfrog steps at each distribution of a path, as far as they are tuned.
    pub step_sizes: Vec<f64>,
}

impl Buffer {
    /// Samples that are being gathered.
    pub fn pending(&self) -> usize {
        self.pending.energies.len()
    }

    /// Adds samples of h·q, q being the flow, with log h.
    pub fn add(&mut self, draws: FlowDraws, excess: Vec<f64>, target: TargetBatch) {
        self.pending.coordinates.extend(draws.coordinates);
        self.pending.energies.extend(target.energies);
        self.pending.ladj.extend(target.ladj);
        self.pending.log_probs.extend(draws.log_probs);
        self.pending.excess.extend(excess);
    }

    /// Adds ends of annealed paths.
    pub fn add_annealed(&mut self, ends: PathEnds) {
        self.pending.coordinates.extend(ends.coordinates);
        self.pending.energies.extend(ends.target.energies);
        self.pending.ladj.extend(ends.target.ladj);
        self.pending.log_probs.extend(ends.log_probs);
        self.pending.log_weights.extend(ends.log_weights);
    }

    /// What is gathered next is annealed at a temperature factor, or not annealed. Path weights are of one temperature: a
    /// generation that a stage has begun otherwise is begun anew.
    pub fn gather(&mut self, annealed_at: Option<f64>) {
        if self.pending.annealed_at != annealed_at {
            self.pending = Pending { annealed_at, ..Pending::default() };
        }
    }

    /// The samples gathered so far become those that are trained on, with weights towards the target at the temperature of
    /// their rung; `taus` are what the flow is told of these, if it is.
    pub fn turn(&mut self, transport: &Transport, scale: EnergyScale, temperatures: &[f64], taus: Option<&[f64]>) {
        let annealed_at = self.pending.annealed_at;
        let next = Pending { annealed_at, ..Pending::default() };
        let Pending { coordinates, energies, ladj, log_probs, excess, log_weights, .. } =
            std::mem::replace(&mut self.pending, next);
        let rungs = temperatures.len();
        let mut weights = vec![0.0; energies.len()];
        for (rung, temperature) in temperatures.iter().enumerate() {
            let rows = || (rung..energies.len()).step_by(rungs);
            let kt = scale.kt(*temperature);
            let (target, present): (Vec<f64>, Vec<f64>) = match annealed_at {
                None => rows().map(|r| (ladj[r] - energies[r] / kt, log_probs[r])).unzip(),
                Some(_) => rows().map(|r| (log_weights[r], 0.0)).unzip(),
            };
            let excess: Vec<f64> = rows().filter_map(|r| excess.get(r).copied()).collect();
            rows().zip(transport.weights(&target, &present, &excess)).for_each(|(r, w)| weights[r] = w);
        }
        let mut sum = 0.0;
        let cumulative = weights.into_iter().map(|w| {
            sum += w;
            sum
        });
        let cumulative: Vec<f64> = cumulative.collect();
        let taus = taus.map(|taus| (0..cumulative.len()).map(|r| taus[r % rungs]).collect()).unwrap_or_default();
        let log_probs = if annealed_at.is_some() { log_probs } else { Vec::new() };
        self.active = Active { coordinates, cumulative, taus, log_probs };
    }

    /// A batch of rows drawn by their weights; nothing as long as there are none with weight.
    pub fn draw(&self, random: &mut Randoms, batch: usize, device: &Device) -> Result<Option<OwnBatch>> {
        let Active { coordinates, cumulative, taus, log_probs } = &self.active;
        let Some(total) = cumulative.last().copied().filter(|total| *total > 0.0) else { return Ok(None) };
        let d = coordinates.len() / cumulative.len();
        let mut rows = Vec::with_capacity(batch * d);
        let (mut taus_of_rows, mut log_probs_of_rows) = (Vec::new(), Vec::new());
        for i in 0..batch {
            let at = total * (i as f64 + random.uniform()) / batch as f64;
            let row = cumulative.partition_point(|c| *c <= at).min(cumulative.len() - 1);
            rows.extend_from_slice(&coordinates[row * d..(row + 1) * d]);
            taus_of_rows.extend(taus.get(row));
            log_probs_of_rows.extend(log_probs.get(row));
        }
        let coordinates = Tensor::from_vec(rows, (batch, d), device)?;
        Ok(Some(OwnBatch { coordinates, taus: taus_of_rows, log_probs: log_probs_of_rows }))
    }

    /// Everything by name, for a checkpoint.
    pub fn parts(&self) -> Result<BTreeMap<String, Tensor>> {
        let Self { pending, active, step_sizes } = self;
        let annealed_at: Vec<f64> = pending.annealed_at.into_iter().collect();
        let of = |numbers: &Vec<f64>| Tensor::from_slice(numbers, numbers.len(), &Device::Cpu);
        let named = [
            ("pending.coordinates", &pending.coordinates),
            ("pending.energies", &pending.energies),
            ("pending.ladj", &pending.ladj),
            ("pending.log_probs", &pending.log_probs),
            ("pending.excess", &pending.excess),
            ("pending.log_weights", &pending.log_weights),
            ("pending.annealed_at", &annealed_at),
            ("active.coordinates", &active.coordinates),
            ("active.cumulative", &active.cumulative),
            ("active.taus", &active.taus),
            ("active.log_probs", &active.log_probs),
            ("step_sizes", step_sizes),
        ];
        named.into_iter().map(|(name, numbers)| Ok((name.to_string(), of(numbers)?))).collect()
    }

    /// The reverse of [`Buffer::parts`], of rows of d coordinates; the error names what does not fit.
    pub fn from_parts(mut parts: BTreeMap<String, Tensor>, d: usize) -> std::result::Result<Self, String> {
        let mut take = |name: &str| match parts.remove(name).map(|part| part.to_vec1::<f64>()) {
            Some(Ok(numbers)) => Ok(numbers),
            _ => Err(format!("{name} of the kept samples is missing or damaged")),
        };
        let pending = Pending {
            coordinates: take("pending.coordinates")?,
            energies: take("pending.energies")?,
            ladj: take("pending.ladj")?,
            log_probs: take("pending.log_probs")?,
            excess: take("pending.excess")?,
            log_weights: take("pending.log_weights")?,
            annealed_at: take("pending.annealed_at")?.first().copied(),
        };
        let active = Active {
            coordinates: take("active.coordinates")?,
            cumulative: take("active.cumulative")?,
            taus: take("active.taus")?,
            log_probs: take("active.log_probs")?,
        };
        let step_sizes = take("step_sizes")?;
        let (n, m) = (pending.energies.len(), active.cumulative.len());
        let fits = pending.coordinates.len() == n * d
            && pending.ladj.len() == n
            && pending.log_probs.len() == n
            && pending.excess.len() == if pending.annealed_at.is_some() { 0 } else { n }
            && pending.log_weights.len() == if pending.annealed_at.is_some() { n } else { 0 }
            && active.coordinates.len() == m * d
            && (active.taus.is_empty() || active.taus.len() == m)
            && (active.log_probs.is_empty() || active.log_probs.len() == m)
            && step_sizes.iter().all(|size| STEP_SIZES.contains(size));
        if fits {
            Ok(Self { pending, active, step_sizes })
        } else {
            Err("the kept samples do not fit one another".into())
        }
    }
}

impl Default for Annealing {
    fn default() -> Self {
        Self { path: PathLength { distributions: 3, moves: 1, leapfrog_steps: 4 }, step_size: 0.2 }
    }
}

impl Default for Replay {
    fn default() -> Self {
        let transport = Transport { trust: Some(0.5), entropy: None };
        Self { generation: 64, every: 1, batches: 1, transport, wide_share: 0.0, annealing: None }
    }
}

impl Replay {
    /// Of the samples of a generation in batches of so many: how many they are.
    pub(super) fn samples(&self, batch: usize) -> u64 {
        self.generation.div_ceil(self.every.max(1)).saturating_mul(self.batches).saturating_mul(batch as u64)
    }

    pub(super) fn check(&self, batch: usize) -> std::result::Result<(), String> {
        if !(1..=100_000).contains(&self.generation) {
            return Err(format!("generation is {}; it must be from 1 to 100000 steps", self.generation));
        }
        if !(1..=self.generation).contains(&self.every) {
            return Err(format!("every is {}; it must be from 1 to generation, {}", self.every, self.generation));
        }
        let most = (MAX_BATCH / batch.max(1)) as u64;
        if !(1..=most).contains(&self.batches) {
            return Err(format!("batches is {}; of {batch} rows it must be from 1 to {most}", self.batches));
        }
        self.transport.check()?;
        if !(0.0..=MOST_WIDE).contains(&self.wide_share) {
            return Err(format!("wide_share is {}; it must be from 0 to {MOST_WIDE}", self.wide_share));
        }
        if self.wide_share > 0.0 && self.annealing.is_some() {
            return Err("wide_share is of samples that are not carried on; leave it out with annealing".into());
        }
        let Some(Annealing { path, step_size }) = self.annealing else { return Ok(()) };
        path.check().map_err(|reason| format!("annealing.{reason}"))?;
        if !STEP_SIZES.contains(&step_size) {
            let (least, most) = (STEP_SIZES.start(), STEP_SIZES.end());
            return Err(format!("annealing.step_size is {step_size}; it must be from {least:e} to {most}"));
        }
        let drawn = batch.saturating_mul(self.batches as usize);
        let rows = drawn.saturating_mul(path.evaluations());
        if rows > MAX_ANNEALED {
            return Err(format!(
                "annealing.distributions × moves × leapfrog_steps is {} for {drawn} samples: {rows} evaluations in a step, \
                 at most {MAX_ANNEALED} are allowed; make paths or batches shorter",
                path.evaluations()
            ));
        }
        if self.transport.entropy.is_some() {
            return Err("entropy is a bound for weights of the flow's own samples; leave it out with annealing".into());
        }
        Ok(())
    }
}
