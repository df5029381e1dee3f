//! The state of a training run, and the pure step from one state to the next.

use super::adam::Adam;
use super::course::Course;
use super::data::{HeldOut, PreparedData, TrainingData};
use super::flow_matching::{self, Pairing};
use super::plan::TrainingPlan;
use super::replay::Buffer;
use super::{maximum_likelihood, own_samples, reverse_kl};
use crate::compute::adam::Tally;
use crate::coords::{
    CoordinatesError, CoordinatesSpec, ReducedTarget, choose_coordinates, free_particles, with_auxiliary,
};
use crate::energy::{EnergyError, System};
use crate::flow::{Flow, FlowError, Tau, Weights};
use crate::math::{Purpose, Randoms};
use crate::sample::PathError;
use crate::thermo::BoundVariable;
use candle_core::{DType, Device, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Conditioners are trained and run in this precision.
const PRECISION: DType = DType::F32;

/// A flow with this effective fraction is one to lose; with this part of what it was, it is lost.
const GOOD: f64 = 0.1;
const LOST: f64 = 0.05;

/// Steps in a row that may end in a gradient that is not finite before the run is given up.
const MAX_BAD_STEPS: u64 = 50;

/// Why training cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("{0}")]
    Plan(String),
    #[error(transparent)]
    Coordinates(#[from] CoordinatesError),
    #[error(transparent)]
    Energy(#[from] EnergyError),
    #[error(transparent)]
    Flow(#[from] FlowError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    #[error("{0} steps in a row gave a gradient that is not finite; lower the learning rate or energy_cut.high")]
    Diverged(u64),
    #[error("the weights are not finite after step {0}; lower the learning rate or gradient_clip")]
    NotFinite(u64),
    #[error(
        "{now:.3} % of the samples are effective after step {step}, where it was {best:.1} %; lower the learning rate"
    )]
    Collapsed { step: u64, now: f64, best: f64 },
}

impl TrainError {
    /// Whether a smaller learning rate could have helped.
    pub(super) fn is_divergence(&self) -> bool {
        matches!(self, Self::Diverged(_) | Self::NotFinite(_) | Self::Collapsed { .. })
    }
}

/// A training run at a step.
#[derive(Debug)]
pub struct Trainer {
    pub(super) plan: TrainingPlan,
    pub(super) target: ReducedTarget,
    pub(super) flow: Flow,
    pub(super) weights: Arc<Weights>,
    pub(super) adam: Adam,
    pub(super) counters: Counters,
    /// The moving average of the weights, one tensor for each variable, where the plan wants it.
    pub(super) average: Option<Vec<Tensor>>,
    /// The best weights of the last stage so far, where the plan has patience.
    pub(super) best: Option<Best>,
    /// The last checkpoint: the state to go back to where the run loses its way.
    pub(super) safe: Vec<u8>,
    /// The flow's own samples, where stages train on them.
    pub(super) own: Buffer,
    /// The plan's collective variable.
    pub(super) variable: Option<BoundVariable>,
    data: Option<PreparedData>,
    pub(super) course: Course,
    /// Samples left out of gradients that `counters` does not have yet.
    left_out: Option<Tensor>,
}

/// The best weights so far, and what they are judged by.
#[derive(Debug)]
pub(super) struct Best {
    pub standing: Standing,
    /// One tensor for each variable.
    pub weights: Vec<Tensor>,
}

#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Standing {
    pub measure: f64,
    pub step: u64,
    /// Measurements since.
    pub age: u64,
}

/// What a run has spent and met so far, as far as the host knows without waiting for a device.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Counters {
    pub step: u64,
    pub samples: u64,
    pub energy_evaluations: u64,
    pub seconds: f64,
    pub non_finite: u64,
    /// What the plan's learning rates are multiplied by, after the run was rolled back.
    pub learning_rate_scale: f64,
    /// How often it was.
    pub rollbacks: u64,
    /// The largest effective fraction that was measured while the flow was trained at the temperature of the plan.
    pub best_fraction: f64,
    /// The step that the flow was last measured after.
    pub measured_at: u64,
    /// Whether it was said that the flow misses a part of the data.
    pub said_incomplete: bool,
    /// Whether the plan's patience has run out: the model is the best that was measured.
    pub converged: bool,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            step: 0,
            samples: 0,
            energy_evaluations: 0,
            seconds: 0.0,
            non_finite: 0,
            learning_rate_scale: 1.0,
            rollbacks: 0,
            best_fraction: 0.0,
            measured_at: 0,
            said_incomplete: false,
            converged: false,
        }
    }
}

/// What one step did. Its numbers may still be on a device, which goes on while nobody asks for them.
#[derive(Clone, Debug)]
pub struct Step {
    stage: usize,
    learning_rate: f64,
    maximum_likelihood: Option<Tensor>,
    flow_matching: Option<Tensor>,
    reverse_kl: Option<Tensor>,
    own_samples: Option<Tensor>,
    log_variance: Option<f64>,
    temperature_gradient: Option<f64>,
    coordinate_entropy: Option<f64>,
}

/// What one step did, in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    pub stage: usize,
    /// −⟨log p⟩ over the data batch, if the step used one.
    pub maximum_likelihood: Option<f64>,
    /// The mean square error of the velocity over the data batch, if the step used one.
    pub flow_matching: Option<f64>,
    /// ⟨u − ladj⟩ over the latent batch, if the step used one.
    pub reverse_kl: Option<f64>,
    /// −⟨log p⟩, or of a continuous flow the mean square error of its velocity, over a batch of the flow's own samples, drawn by
    /// their weights, if the step used one.
    pub own_samples: Option<f64>,
    /// ½ Var[log w] over a batch of the flow's samples, if the step used one.
    pub log_variance: Option<f64>,
    /// The loss of `TrainingStage.temperature_gradient` over a batch of the flow's samples, if the step used one.
    pub temperature_gradient: Option<f64>,
    /// Minus the entropy of the collective variable, in nats, over a batch of the flow's samples, if the step used one.
    pub coordinate_entropy: Option<f64>,
    pub gradient_norm: f64,
    pub learning_rate: f64,
}

impl Trainer {
    /// A run at its beginning: coordinates chosen for the system, weights drawn from the plan's seed.
    pub fn new(
        plan: TrainingPlan,
        system: System,
        data: Option<TrainingData>,
        device: &Device,
    ) -> Result<Self, TrainError> {
        Self::prepared(plan, system, data, device, None)
    }

    /// A run at its beginning, in the coordinates of an earlier attempt at it if there was one.
    pub(super) fn prepared(
        plan: TrainingPlan,
        system: System,
        data: Option<TrainingData>,
        device: &Device,
        coordinates: Option<CoordinatesSpec>,
    ) -> Result<Self, TrainError> {
        plan.check().map_err(TrainError::Plan)?;
        if plan.needs_data() && data.is_none() {
            return Err(TrainError::Plan(
                "a stage has a weight of maximum_likelihood or flow_matching, but there is no dataset; name one, or use \
                 objectives that need none"
                    .into(),
            ));
        }
        let variable = plan.bound_variable(&system).map_err(TrainError::Plan)?;
        let positions = data.as_ref().map(|d| d.positions.as_slice());
        let particles = free_particles(&system);
        let coordinates = match coordinates {
            Some(spec) => spec.build(system.dimension())?,
            None => {
                let own = choose_coordinates(&system, positions, plan.temperature, &plan.coordinates)?;
                with_auxiliary(own, plan.architecture.auxiliary_variables(particles))?
            }
        };
        let spec = plan.architecture.expand(coordinates.kinds(), particles, plan.conditions(), plan.seed)?;
        plan.check_dimension(coordinates.kinds().len()).map_err(TrainError::Plan)?;
        plan.check_flow(&spec).map_err(TrainError::Plan)?;
        let target = ReducedTarget::new(system, Arc::clone(&coordinates));
        let (flow, weights) = Flow::initialise(spec, plan.seed, PRECISION, device)?;
        let adam = Adam::new(plan.adam, weights.variables(), device)?;
        let data = data.map(|data| PreparedData::new(&target, data, &plan, device)).transpose()?;
        if let Some(data) = &data
            && plan.temperature_range.is_none()
        {
            flow.standardise(&weights, &data.some(target.dimension())?, Tau::REFERENCE)?;
        }
        let (counters, own) = (Counters::default(), Buffer::default());
        let present = || -> candle_core::Result<Vec<Tensor>> {
            weights.variables().iter().map(|var| Ok(var.as_tensor().copy()?.detach())).collect()
        };
        let average = plan.weight_average.map(|_| present()).transpose()?;
        let (best, safe) = (None, Vec::new());
        let (course, left_out) = (Course::default(), None);
        Ok(Self {
            plan,
            target,
            flow,
            weights,
            adam,
            counters,
            average,
            best,
            safe,
            own,
            variable,
            data,
            course,
            left_out,
        })
    }

    pub fn target(&self) -> &ReducedTarget {
        &self.target
    }

    /// What the flow is made of, in a few words.
    pub fn flow_summary(&self) -> String {
        let (spec, architecture) = (self.flow.spec(), &self.plan.architecture);
        let told = if spec.temperatures.is_some() { ", conditioned on temperature" } else { "" };
        let weights: usize = self.weights.variables().iter().map(|var| var.elem_count()).sum();
        format!(
            "{:?}, {} coordinates, {} layers, conditioners {:?}, {weights} weights{told}",
            architecture.kind,
            spec.dimension(),
            spec.layers.len(),
            architecture.hidden
        )
    }

    /// Steps done so far.
    pub fn steps_done(&self) -> u64 {
        self.counters.step
    }

    /// Steps of the whole plan.
    pub fn total_steps(&self) -> u64 {
        self.plan.total_steps()
    }

    pub(super) fn data_digest(&self) -> Option<String> {
        self.data.as_ref().map(|d| d.digest.clone())
    }

    /// Makes one step; nothing when the plan's stages are done. The random numbers of a step depend on the seed and the
    /// step's number alone. A device is given its work and not waited for.
    pub fn step(&mut self) -> Result<Option<Step>, TrainError> {
        // On a thread of the pool, where each of the step's many small parallel parts need not wake it first.
        rayon::join(|| self.step_here(), || ()).0
    }

    fn step_here(&mut self) -> Result<Option<Step>, TrainError> {
        let Some((stage_index, stage, fraction)) = self.plan.stage_at(self.counters.step) else { return Ok(None) };
        let stage = stage.clone();
        let (w_ml, w_kl) = (stage.maximum_likelihood.at(fraction), stage.reverse_kl.at(fraction));
        let temperatures = self.temperatures(stage.batch, stage.temperature_factor.at(fraction));
        let learning_rate = stage.learning_rate.at(fraction) * self.counters.learning_rate_scale;
        let batch = stage.batch;
        let mut step = Step {
            stage: stage_index,
            learning_rate,
            maximum_likelihood: None,
            flow_matching: None,
            reverse_kl: None,
            own_samples: None,
            log_variance: None,
            temperature_gradient: None,
            coordinate_entropy: None,
        };
        let mut loss: Option<Tensor> = None;
        let mut add = |term: Tensor, weight: f64| -> Result<(), TrainError> {
            let term = (term * weight)?;
            loss = Some(match loss.take() {
                None => term,
                Some(sum) => (sum + term)?,
            });
            Ok(())
        };
        if w_ml > 0.0
            && let Some(data) = &self.data
        {
            let (y, taus) = data.draw(self.plan.seed, self.counters.step, batch, self.target.dimension())?;
            let tau = if taus.is_empty() { Tau::REFERENCE } else { Tau::Each(&taus) };
            let term = maximum_likelihood::loss(&self.flow, &y, tau)?;
            step.maximum_likelihood = Some(term.detach());
            self.counters.samples += batch as u64;
            add(term, w_ml)?;
        }
        let w_fm = stage.flow_matching.at(fraction);
        if w_fm > 0.0
            && let Some(data) = &self.data
        {
            let (y, taus) = data.draw(self.plan.seed, self.counters.step, batch, self.target.dimension())?;
            let tau = if taus.is_empty() { Tau::REFERENCE } else { Tau::Each(&taus) };
            let term = self.match_flow(&y, tau, Pairing::Data)?;
            step.flow_matching = Some(term.detach());
            self.counters.samples += batch as u64;
            add(term, w_fm)?;
        }
        if w_kl > 0.0 {
            let taus = self.latent_temperatures(&temperatures);
            let z = self.latents(&taus)?;
            let tau = Tau::Each(&taus);
            let kl = reverse_kl::loss(&self.flow, &self.target, &z, tau, &temperatures, &self.plan.energy_cut)?;
            step.reverse_kl = Some(kl.value);
            self.counters.samples += batch as u64;
            self.counters.energy_evaluations += batch as u64;
            self.leave_out(kl.non_finite)?;
            add(kl.surrogate, w_kl)?;
        }
        for (weight, objective, value) in [
            (stage.log_variance.at(fraction), Self::log_variance as fn(&mut Self, _, _) -> _, &mut step.log_variance),
            (stage.temperature_gradient.at(fraction), Self::temperature_gradient, &mut step.temperature_gradient),
            (stage.coordinate_entropy.at(fraction), Self::coordinate_entropy, &mut step.coordinate_entropy),
        ] {
            if weight > 0.0
                && let Some(loss) = objective(self, batch, stage.temperature_factor.at(fraction))?
            {
                *value = Some(loss.value);
                self.leave_out(Tensor::new(loss.non_finite as f64, self.flow.device())?)?;
                add(loss.surrogate, weight)?;
            }
        }
        let w_own = stage.own_samples.at(fraction);
        if w_own > 0.0 {
            self.keep_own_samples(&stage, stage.temperature_factor.at(fraction))?;
            let mut random = Randoms::new(self.plan.seed, Purpose::OwnBatch, self.counters.step);
            if let Some(own) = self.own.draw(&mut random, batch, self.flow.device())? {
                let term = match self.flow.as_continuous() {
                    Some(_) => self.match_flow(&own.coordinates, own.tau(), Pairing::OwnSamples)?,
                    None => own_samples::loss(&self.flow, &own)?,
                };
                step.own_samples = Some(term.detach());
                self.counters.samples += batch as u64;
                add(term, w_own)?;
            }
        }
        if let Some(loss) = loss {
            let mut store = loss.backward()?;
            let variables = self.weights.variables();
            let gradients: Vec<_> = variables.iter().map(|var| store.remove(var)).collect();
            self.adam.step(variables, &gradients, self.plan.gradient_clip, learning_rate)?;
            self.average_weights()?;
            if let Some(tally) = self.adam.account.at_hand() {
                check_course(&tally)?;
            }
        }
        self.counters.step += 1;
        Ok(Some(step))
    }

    fn match_flow(&self, y: &Tensor, tau: Tau<'_>, pairing: Pairing) -> Result<Tensor, TrainError> {
        let particles = free_particles(self.target.system());
        flow_matching::loss(&self.flow, y, tau, particles, self.plan.seed, self.counters.step, pairing)
    }

    /// Counts samples that are left out of a gradient.
    fn leave_out(&mut self, count: Tensor) -> Result<(), TrainError> {
        self.left_out = Some(match self.left_out.take() {
            None => count,
            Some(before) => (before + count)?,
        });
        Ok(())
    }

    /// Moves the average towards the weights: at first quickly, so that it forgets where they began.
    fn average_weights(&mut self) -> Result<(), TrainError> {
        let (Some(average), Some(decay)) = (&mut self.average, self.plan.weight_average) else { return Ok(()) };
        let steps = self.counters.step as f64;
        let keep = decay.min((1.0 + steps) / (10.0 + steps));
        for (average, var) in average.iter_mut().zip(self.weights.variables()) {
            // Without a graph, which would keep every average that there was.
            *average = ((&*average * keep)? + (var.as_tensor().detach() * (1.0 - keep))?)?.detach();
        }
        Ok(())
    }

    /// The flow that the run would end with now: of averaged weights, if the plan wants them; free of the training graph.
    pub(super) fn present(&self) -> Result<Flow, TrainError> {
        self.flow_of(self.frozen()?)
    }

    /// Its weights, by path.
    pub(super) fn frozen(&self) -> Result<BTreeMap<String, Tensor>, TrainError> {
        Ok(match (&self.best, &self.average) {
            (Some(best), _) if self.counters.converged => self.weights.by_path(&best.weights)?,
            (_, Some(average)) => self.weights.by_path(average)?,
            (_, None) => self.weights.values()?,
        })
    }

    /// Whether an effective fraction is that of a flow that has lost what it had.
    pub(super) fn is_lost(&self, fraction: f64) -> bool {
        let best = self.counters.best_fraction;
        best >= GOOD && fraction < LOST * best
    }

    pub(super) fn check_lost(&self, fraction: f64) -> Result<(), TrainError> {
        if !self.is_lost(fraction) {
            return Ok(());
        }
        let best = 100.0 * self.counters.best_fraction;
        Err(TrainError::Collapsed { step: self.counters.step, now: 100.0 * fraction, best })
    }

    /// The flow of the weights that training goes on from, free of the training graph.
    pub(super) fn unaveraged(&self) -> Result<Flow, TrainError> {
        self.flow_of(self.weights.values()?)
    }

    fn flow_of(&self, weights: BTreeMap<String, Tensor>) -> Result<Flow, TrainError> {
        let weights: HashMap<String, Tensor> = weights.into_iter().collect();
        Ok(Flow::from_weights(self.flow.spec().clone(), weights, PRECISION, self.flow.device())?)
    }

    /// Compares a measurement with the best so far, and says for how many in a row there was none better.
    pub(super) fn judge(&mut self, measure: f64) -> Result<u64, TrainError> {
        match &mut self.best {
            Some(best) if !measure.is_finite() || measure <= best.standing.measure => {
                best.standing.age += 1;
                return Ok(best.standing.age);
            }
            None if !measure.is_finite() => return Ok(0),
            _ => {}
        }
        let weights = self.weights.joined(self.frozen()?)?;
        self.best = Some(Best { standing: Standing { measure, step: self.counters.step, age: 0 }, weights });
        Ok(0)
    }

    /// The numbers of the step just made.
    pub(super) fn report(&self, step: &Step) -> Result<StepReport, TrainError> {
        let number = |tensor: &Option<Tensor>| tensor.as_ref().map(|t| t.to_scalar::<f64>()).transpose();
        Ok(StepReport {
            stage: step.stage,
            maximum_likelihood: number(&step.maximum_likelihood)?,
            flow_matching: number(&step.flow_matching)?,
            reverse_kl: number(&step.reverse_kl)?,
            own_samples: number(&step.own_samples)?,
            log_variance: step.log_variance,
            temperature_gradient: step.temperature_gradient,
            coordinate_entropy: step.coordinate_entropy,
            gradient_norm: self.tally()?.gradient_norm,
            learning_rate: step.learning_rate,
        })
    }

    /// What the optimizer's steps have come to.
    pub(super) fn tally(&self) -> Result<Tally, TrainError> {
        Ok(self.adam.account.read()?)
    }

    /// Brings what the host knows up to date, and fails if the run has lost its way: too many steps in a row without a
    /// finite gradient, or weights that are infinite or NaN. Such a model must neither be kept nor gone on from.
    pub(super) fn settle(&mut self) -> Result<(), TrainError> {
        if let Some(left_out) = self.left_out.take() {
            self.counters.non_finite += left_out.to_scalar::<f64>()? as u64;
        }
        check_course(&self.tally()?)?;
        for var in self.weights.variables() {
            if !var.as_tensor().abs()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?.is_finite() {
                return Err(TrainError::NotFinite(self.counters.step));
            }
        }
        Ok(())
    }

    /// Held-out frames that the flow is measured on.
    pub(super) fn held_out_frames(&self) -> usize {
        self.data.as_ref().map_or(0, PreparedData::held_out_frames)
    }

    /// The flow as it is on the held-out data, if there are data.
    pub(super) fn held_out(&self) -> Result<Option<HeldOut>, TrainError> {
        let Some(data) = &self.data else { return Ok(None) };
        data.measure(&self.present()?)
    }

    /// The same at each of the other temperatures of the range that there are data of.
    pub(super) fn held_out_at_others(&self) -> Result<Vec<(f64, HeldOut)>, TrainError> {
        let Some(data) = &self.data else { return Ok(Vec::new()) };
        data.measure_others(&self.present()?, &self.plan)
    }
}

fn check_course(tally: &Tally) -> Result<(), TrainError> {
    if tally.most_in_a_row >= MAX_BAD_STEPS { Err(TrainError::Diverged(tally.most_in_a_row)) } else { Ok(()) }
}
