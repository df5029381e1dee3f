//! One run of training: the target's plan, from its beginning to a generator.

use super::super::super::client::CliError;
use super::super::super::output::duration;
use super::replica_exchange::ends;
use super::target::Target;
use crate::energy::System;
use crate::flow::TemperatureRange;
use crate::sample::Generator;
use crate::train::{Directive, Observer, Outcome, Progress, Recipe, Trainer, TrainingData, TrainingPlan, run};
use candle_core::Device;
use std::time::{Duration, Instant};

/// Between two lines about a run that is under way.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// What is asked for of all runs; the rest is as users get it who ask for nothing.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub recipe: Option<Recipe>,
    pub steps: Option<u64>,
    pub seconds: Option<f64>,
}

/// What decides a run, besides the target: all that a user asks for.
fn plan_of(target: &Target, system: &System, seed: u64, asked: Asked, has_data: bool) -> TrainingPlan {
    let (low, high) = ends(target.temperatures);
    let range = (low < high).then_some(TemperatureRange { low, high });
    let recipe = asked.recipe.unwrap_or(Recipe::suited(system, has_data, range.is_some()).0);
    let mut plan = recipe.plan(system, target.trained_at, range, has_data);
    plan.seed = seed;
    plan.budget.seconds = asked.seconds;
    if let Some(steps) = asked.steps {
        plan.fit_to(steps);
    }
    plan
}

/// Trains a flow on the target: from its energy, or from data and the energy evaluations that they took, which its card then
/// counts.
pub(super) fn train(
    target: &Target,
    system: &System,
    seed: u64,
    asked: Asked,
    data: Option<&(TrainingData, u64)>,
    device: &Device,
) -> Result<Generator, CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::failed(e.to_string());
    let plan = plan_of(target, system, seed, asked, data.is_some());
    let frames = data.map(|(frames, _)| frames.clone());
    let mut trainer = Trainer::new(plan, system.clone(), frames, device).map_err(|e| failed(&e))?;
    let mut watcher = Watcher { name: target.name, seed, last: Instant::now() };
    match run(&mut trainer, &mut watcher).map_err(|e| failed(&e))? {
        Outcome::Finished { model, .. } => {
            let mut model = Generator::decode(&model, device).map_err(|e| failed(&e))?;
            model.card.energy_evaluations += data.map_or(0, |(_, evaluations)| *evaluations);
            Ok(model)
        }
        Outcome::Released | Outcome::Cancelled => Err(CliError::failed("the run was stopped")),
    }
}

/// Says now and then how far a run is.
struct Watcher {
    name: &'static str,
    seed: u64,
    last: Instant,
}

impl Observer for Watcher {
    fn directive(&mut self) -> Directive {
        Directive::Continue
    }

    fn progress(&mut self, progress: &Progress) {
        if self.last.elapsed() < REPORT_EVERY {
            return;
        }
        self.last = Instant::now();
        let ess = 100.0 * progress.weights.effective_fraction();
        remark!(
            "{}, seed {}: step {} of {}, ESS {ess:.1} %, {} to go",
            self.name,
            self.seed,
            progress.step,
            progress.total_steps,
            duration(progress.seconds_left)
        );
    }

    fn note(&mut self, sentence: String) {
        remark!("{}, seed {}: {sentence}", self.name, self.seed);
    }

    fn checkpoint(&mut self, _: u64, _: Vec<u8>) -> Result<(), String> {
        Ok(())
    }
}
