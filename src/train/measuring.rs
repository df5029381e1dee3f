//! What a flow in training is measured by: weights of its samples, and a probe for what it does not make.

use super::data::HeldOut;
use super::run::{Observer, Turn, ask};
use super::trainer::Trainer;
use crate::flow::{Flow, TemperatureRange};
use crate::math::Purpose;
use crate::sample::{Generator, SampleKey, TemperatureMeasure};
use crate::thermo::{WeightAccumulator, WeightSummary};

/// Temperatures of a range, its ends among them, that a finished model is measured at.
const FINAL_TEMPERATURES: usize = 5;

/// Samples that are computed between two questions to the observer.
const MEASURED_AT_ONCE: usize = 512;

/// Which weights are measured: those that the model would have, or those that training goes on from.
#[derive(Clone, Copy)]
pub(super) enum Measured {
    Model,
    Present,
}

impl Trainer {
    /// Weights of at least `samples` samples under the flow as it is at a temperature, always of the same latents.
    pub(super) fn validate(
        &self,
        temperature: f64,
        samples: u64,
        observer: &mut dyn Observer,
    ) -> Result<WeightSummary, Turn> {
        self.log_weights(self.present()?, temperature, self.plan.seed, samples, observer).map(summary_of)
    }

    /// The log weights themselves, at the plan's temperature, of other latents.
    pub(super) fn log_weights_of_samples(
        &self,
        of: Measured,
        samples: u64,
        observer: &mut dyn Observer,
    ) -> Result<Vec<f64>, Turn> {
        let flow = match of {
            Measured::Model => self.present()?,
            Measured::Present => self.unaveraged()?,
        };
        self.log_weights(flow, self.plan.temperature, !self.plan.seed, samples, observer)
    }

    /// What a probe finds that samples of these weights do not see at the plan's temperature; nothing of continuous flows, whose
    /// samples are dear.
    pub(super) fn unseen_share(
        &self,
        weights: &WeightSummary,
        observer: &mut dyn Observer,
    ) -> Result<Option<f64>, Turn> {
        let generator = Generator { target: self.target.clone(), flow: self.present()?, card: self.card() };
        let temperature = self.plan.temperature;
        if !generator.has_score() {
            return Ok(None);
        }
        let method = generator.methods(temperature)[0];
        let key = SampleKey { temperature, method, seed: self.plan.seed, purpose: Purpose::Probe };
        let probe = generator.probe(&key, MEASURED_AT_ONCE, || ask(observer))?;
        Ok(probe.and_then(|probe| probe.unseen_share(weights.samples, weights.largest_share)))
    }

    fn log_weights(
        &self,
        flow: Flow,
        temperature: f64,
        seed: u64,
        samples: u64,
        observer: &mut dyn Observer,
    ) -> Result<Vec<f64>, Turn> {
        let generator = Generator { target: self.target.clone(), flow, card: self.card() };
        let method = generator.methods(temperature)[0];
        let key = SampleKey { temperature, method, seed, purpose: Purpose::Validation };
        let mut log_weights = Vec::new();
        for first in (0..samples).step_by(MEASURED_AT_ONCE) {
            ask(observer)?;
            log_weights.extend(generator.samples(&key, first, MEASURED_AT_ONCE)?.log_weights);
        }
        Ok(log_weights)
    }
}

pub(super) fn summary_of(log_weights: Vec<f64>) -> WeightSummary {
    let mut weights = WeightAccumulator::default();
    log_weights.into_iter().for_each(|w| weights.add(w));
    weights.summary()
}

/// Temperatures in equal ratios from one end of the range to the other, and those that frames are held out of; ascending.
pub(super) fn measured_at(range: Option<TemperatureRange>, held_out: &[(f64, HeldOut)]) -> Vec<f64> {
    let spread = |range: TemperatureRange| {
        (0..FINAL_TEMPERATURES).map(move |i| range.at(i as f64 / (FINAL_TEMPERATURES - 1) as f64))
    };
    let mut all: Vec<f64> = range.into_iter().flat_map(spread).chain(held_out.iter().map(|(t, _)| *t)).collect();
    all.sort_unstable_by(f64::total_cmp);
    all.dedup();
    all
}

pub(super) fn measure(temperature: f64, weights: &WeightSummary, held_out: Option<&HeldOut>) -> TemperatureMeasure {
    TemperatureMeasure {
        temperature,
        effective_sample_fraction: weights.effective_fraction(),
        pareto_k: weights.pareto_k.is_finite().then_some(weights.pareto_k),
        data_effective_fraction: held_out.map(|held_out| held_out.effective_fraction(weights.log_z)),
    }
}
