//! The flow's own samples, kept and weighted, to train on as if they were data.
//!
//! A generation is filled while the one before it is trained on: every step adds samples of the flow as it is then, with
//! their energies and densities. When it is whole, its samples get weights towards the target (`transport`), and batches
//! are drawn by them. The density that a sample was drawn from stays with it, so that its weight is right however the flow
//! goes on.

use super::transport::Transport;
use crate::coords::TargetBatch;
use crate::energy::EnergyScale;
use crate::flow::FlowDraws;
use crate::math::Randoms;
use candle_core::{Device, Result, Tensor};
use std::collections::BTreeMap;

/// How own samples are trained on.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Steps in which a generation of samples is drawn, and in which it is then trained on.
    pub generation: u64,
    pub transport: Transport,
}

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
}

/// Samples that are trained on.
#[derive(Debug, Default)]
struct Active {
    coordinates: Vec<f64>,
    /// Sums of the weights up to each row (n); the last is their total.
    cumulative: Vec<f64>,
    /// Latent temperatures (n); empty if the flow does not know them.
    taus: Vec<f64>,
}

/// Two generations.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pending: Pending,
    active: Active,
}

impl Buffer {
    /// Samples that are being gathered.
    pub fn pending(&self) -> usize {
        self.pending.energies.len()
    }

    /// Adds samples of the flow.
    pub fn add(&mut self, draws: FlowDraws, target: TargetBatch) {
        self.pending.coordinates.extend(draws.coordinates);
        self.pending.energies.extend(target.energies);
        self.pending.ladj.extend(target.ladj);
        self.pending.log_probs.extend(draws.log_probs);
    }

    /// The samples gathered so far become those that are trained on, with weights towards the target at the temperature of
    /// their rung; `taus` are what the flow is told of these, if it is.
    pub fn turn(&mut self, transport: &Transport, scale: EnergyScale, temperatures: &[f64], taus: Option<&[f64]>) {
        let Pending { coordinates, energies, ladj, log_probs } = std::mem::take(&mut self.pending);
        let rungs = temperatures.len();
        let mut weights = vec![0.0; energies.len()];
        for (rung, temperature) in temperatures.iter().enumerate() {
            let rows = || (rung..energies.len()).step_by(rungs);
            let kt = scale.kt(*temperature);
            let target: Vec<f64> = rows().map(|r| ladj[r] - energies[r] / kt).collect();
            let present: Vec<f64> = rows().map(|r| log_probs[r]).collect();
            rows().zip(transport.weights(&target, &present)).for_each(|(r, w)| weights[r] = w);
        }
        let mut sum = 0.0;
        let cumulative = weights.into_iter().map(|w| {
            sum += w;
            sum
        });
        let cumulative: Vec<f64> = cumulative.collect();
        let taus = taus.map(|taus| (0..cumulative.len()).map(|r| taus[r % rungs]).collect()).unwrap_or_default();
        self.active = Active { coordinates, cumulative, taus };
    }

    /// A batch of rows (n, d) drawn by their weights, and their latent temperatures if the flow knows them; nothing as long
    /// as there are none with weight.
    pub fn draw(&self, random: &mut Randoms, batch: usize, device: &Device) -> Result<Option<(Tensor, Vec<f64>)>> {
        let Active { coordinates, cumulative, taus } = &self.active;
        let Some(total) = cumulative.last().copied().filter(|total| *total > 0.0) else { return Ok(None) };
        let d = coordinates.len() / cumulative.len();
        let (mut rows, mut of_rows) = (Vec::with_capacity(batch * d), Vec::new());
        for i in 0..batch {
            let at = total * (i as f64 + random.uniform()) / batch as f64;
            let row = cumulative.partition_point(|c| *c <= at).min(cumulative.len() - 1);
            rows.extend_from_slice(&coordinates[row * d..(row + 1) * d]);
            of_rows.extend(taus.get(row));
        }
        Ok(Some((Tensor::from_vec(rows, (batch, d), device)?, of_rows)))
    }

    /// Everything by name, for a checkpoint.
    pub fn parts(&self) -> Result<BTreeMap<String, Tensor>> {
        let Self { pending, active } = self;
        let of = |numbers: &Vec<f64>| Tensor::from_slice(numbers, numbers.len(), &Device::Cpu);
        let named = [
            ("pending.coordinates", &pending.coordinates),
            ("pending.energies", &pending.energies),
            ("pending.ladj", &pending.ladj),
            ("pending.log_probs", &pending.log_probs),
            ("active.coordinates", &active.coordinates),
            ("active.cumulative", &active.cumulative),
            ("active.taus", &active.taus),
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
        };
        let active = Active {
            coordinates: take("active.coordinates")?,
            cumulative: take("active.cumulative")?,
            taus: take("active.taus")?,
        };
        let (n, m) = (pending.energies.len(), active.cumulative.len());
        let fits = pending.coordinates.len() == n * d
            && pending.ladj.len() == n
            && pending.log_probs.len() == n
            && active.coordinates.len() == m * d
            && (active.taus.is_empty() || active.taus.len() == m);
        if fits { Ok(Self { pending, active }) } else { Err("the kept samples do not fit one another".into()) }
    }
}

impl Default for Replay {
    fn default() -> Self {
        Self { generation: 64, transport: Transport { trust: Some(0.5), entropy: None } }
    }
}

impl Replay {
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        if !(1..=100_000).contains(&self.generation) {
            return Err(format!("generation is {}; it must be from 1 to 100000 steps", self.generation));
        }
        self.transport.check()
    }
}
