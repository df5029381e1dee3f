//! A training task as a TOML file: the fields of `TrainingTask` by their names in the contract.

use super::client::CliError;
use crate::contract::{v1, variable_message};
use crate::thermo::CollectiveVariable;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::path::Path;

/// The task that a file describes; flags are laid over it.
pub(super) fn read(path: &Path) -> Result<v1::TrainingTask, CliError> {
    let text = std::fs::read_to_string(path).map_err(|e| CliError::file(path, e))?;
    parse(&text).map_err(|e| CliError::file(path, e))
}

/// The error says the line, what is wrong in it, and what is allowed there.
fn parse(text: &str) -> Result<v1::TrainingTask, toml::de::Error> {
    Ok(toml::from_str::<Task>(text)?.message())
}

/// What is left out has the value that means the default.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Task {
    system: String,
    dataset: String,
    temperature: f64,
    seed: u64,
    architecture: Option<Architecture>,
    stages: Vec<Stage>,
    adam: Option<Adam>,
    gradient_clip: f64,
    energy_cut: Option<EnergyCut>,
    budget: Option<Budget>,
    validation_every: i64,
    validation_samples: i64,
    checkpoint_every: i64,
    model_id: String,
    coordinates: Option<Coordinates>,
    temperature_range: Option<Range>,
    weight_average: f64,
    patience: i64,
    recipe: String,
    collective_variable: Option<VariableRange>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Architecture {
    kind: Option<FlowKind>,
    couplings: i64,
    hidden: Vec<i64>,
    activation: Option<Activation>,
    bins: i64,
    spline_bound: f64,
    log_scale_bound: f64,
    tolerance: f64,
    conditioner: Option<Conditioner>,
    mixing: Option<Mixing>,
    auxiliary: i64,
}

/// The values of an enumeration of the contract, by their names in lower case.
macro_rules! names {
    ($name:ident of $message:ident { $($value:ident = $written:literal),+ $(,)? }) => {
        #[derive(Clone, Copy, serde::Deserialize)]
        enum $name {
            $(#[serde(rename = $written)] $value),+
        }

        impl From<$name> for i32 {
            fn from(name: $name) -> Self {
                match name {
                    $($name::$value => v1::$message::$value.into()),+
                }
            }
        }
    };
}

names!(FlowKind of FlowKind {
    Nice = "nice",
    NiceScaled = "nice_scaled",
    Gin = "gin",
    GinScaled = "gin_scaled",
    Realnvp = "realnvp",
    Spline = "spline",
    AffineSpline = "affine_spline",
    Autoregressive = "autoregressive",
    InverseAutoregressive = "inverse_autoregressive",
    Smooth = "smooth",
    Continuous = "continuous",
});
names!(Activation of Activation { Silu = "silu", Relu = "relu", Tanh = "tanh" });
names!(Conditioner of ConditionerKind { Mlp = "mlp", Residual = "residual", Attention = "attention" });
names!(Mixing of Mixing { None = "none", Lu = "lu", Householder = "householder" });
names!(Shape of RampShape { Linear = "linear", Exponential = "exponential", Cosine = "cosine" });
names!(Scheme of CoordinateScheme { Unspecified = "automatic", Mixed = "mixed" });

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Stage {
    steps: i64,
    batch: i64,
    maximum_likelihood: Option<Ramp>,
    flow_matching: Option<Ramp>,
    reverse_kl: Option<Ramp>,
    own_samples: Option<Ramp>,
    log_variance: Option<Ramp>,
    temperature_gradient: Option<Ramp>,
    coordinate_entropy: Option<Ramp>,
    replay: Option<Replay>,
    temperature_factor: Option<Ramp>,
    learning_rate: Option<Ramp>,
}

/// A number, or a table.
struct Ramp(v1::Ramp);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Ends {
    start: f64,
    end: f64,
    shape: Option<Shape>,
}

impl<'de> Deserialize<'de> for Ramp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RampVisitor)
    }
}

struct RampVisitor;

impl<'de> Visitor<'de> for RampVisitor {
    type Value = Ramp;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number, or a table { start, end, shape }")
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Ramp, E> {
        Ok(Ramp(v1::Ramp { start: value, end: value, shape: v1::RampShape::Linear.into() }))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Ramp, E> {
        self.visit_f64(value as f64)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Ramp, A::Error> {
        let Ends { start, end, shape } = Ends::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Ramp(v1::Ramp { start, end, shape: shape.unwrap_or(Shape::Linear).into() }))
    }
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Replay {
    generation: i64,
    every: i64,
    trust: f64,
    entropy: f64,
    batches: i64,
    wide_share: f64,
    annealing: Option<Annealing>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Annealing {
    distributions: i64,
    moves: i64,
    leapfrog_steps: i64,
    step_size: f64,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Adam {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EnergyCut {
    high: f64,
    max: f64,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Budget {
    steps: i64,
    samples: i64,
    energy_evaluations: i64,
    seconds: f64,
}

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Coordinates {
    scheme: Option<Scheme>,
    core_atoms: Vec<i64>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    low: f64,
    high: f64,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct VariableRange {
    #[serde(deserialize_with = "variable")]
    variable: CollectiveVariable,
    low: f64,
    high: f64,
}

/// A variable as on the command line: a reference may be a file's name.
fn variable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CollectiveVariable, D::Error> {
    super::specs::variable(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

impl Task {
    fn message(self) -> v1::TrainingTask {
        v1::TrainingTask {
            system: self.system,
            dataset: self.dataset,
            temperature: self.temperature,
            seed: self.seed,
            architecture: self.architecture.map(|a| v1::FlowArchitecture {
                kind: a.kind.map_or(0, i32::from),
                couplings: a.couplings,
                hidden: a.hidden,
                activation: a.activation.map_or(0, i32::from),
                bins: a.bins,
                spline_bound: a.spline_bound,
                log_scale_bound: a.log_scale_bound,
                tolerance: a.tolerance,
                conditioner: a.conditioner.map_or(0, i32::from),
                mixing: a.mixing.map_or(0, i32::from),
                auxiliary: a.auxiliary,
            }),
            stages: self.stages.into_iter().map(Stage::message).collect(),
            adam: self.adam.map(|Adam { beta1, beta2, epsilon }| v1::Adam { beta1, beta2, epsilon }),
            gradient_clip: self.gradient_clip,
            energy_cut: self.energy_cut.map(|EnergyCut { high, max }| v1::EnergyCut { high, max }),
            budget: self.budget.map(|Budget { steps, samples, energy_evaluations, seconds }| v1::Budget {
                steps,
                samples,
                energy_evaluations,
                seconds,
            }),
            validation_every: self.validation_every,
            validation_samples: self.validation_samples,
            checkpoint_every: self.checkpoint_every,
            model_id: self.model_id,
            coordinates: self
                .coordinates
                .map(|c| v1::Coordinates { scheme: c.scheme.map_or(0, i32::from), core_atoms: c.core_atoms }),
            temperature_range: self.temperature_range.map(|Range { low, high }| v1::TemperatureRange { low, high }),
            weight_average: self.weight_average,
            patience: self.patience,
            recipe: self.recipe,
            collective_variable: self.collective_variable.map(|v| v1::VariableRange {
                variable: Some(variable_message(&v.variable)),
                low: v.low,
                high: v.high,
            }),
        }
    }
}

impl Stage {
    fn message(self) -> v1::TrainingStage {
        let ramp = |ramp: Option<Ramp>| ramp.map(|Ramp(message)| message);
        v1::TrainingStage {
            steps: self.steps,
            batch: self.batch,
            maximum_likelihood: ramp(self.maximum_likelihood),
            flow_matching: ramp(self.flow_matching),
            reverse_kl: ramp(self.reverse_kl),
            own_samples: ramp(self.own_samples),
            log_variance: ramp(self.log_variance),
            temperature_gradient: ramp(self.temperature_gradient),
            coordinate_entropy: ramp(self.coordinate_entropy),
            replay: self.replay.map(Replay::message),
            temperature_factor: ramp(self.temperature_factor),
            learning_rate: ramp(self.learning_rate),
        }
    }
}

impl Replay {
    fn message(self) -> v1::Replay {
        v1::Replay {
            generation: self.generation,
            every: self.every,
            trust: self.trust,
            entropy: self.entropy,
            batches: self.batches,
            wide_share: self.wide_share,
            annealing: self.annealing.map(|a| v1::Annealing {
                distributions: a.distributions,
                moves: a.moves,
                leapfrog_steps: a.leapfrog_steps,
                step_size: a.step_size,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{training_plan, training_task};
    use crate::energy::analytic::AnalyticPotential;
    use crate::energy::{System, SystemDefinition};

    /// The first TOML block of the documentation.
    fn example() -> &'static str {
        let text = include_str!("../../docs/training.md");
        text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap()
    }

    #[test]
    fn the_documented_example_is_a_plan() {
        let task = parse(example()).unwrap();
        assert_eq!((task.system.as_str(), task.seed, task.model_id.as_str()), ("systems/double-well", 7, "my-flow"));
        let system = System::build(SystemDefinition::Analytic(AnalyticPotential::built_in("double-well").unwrap()));
        let plan = training_plan(&task, &system.unwrap(), task.temperature).unwrap();
        assert_eq!(plan.architecture.kind, crate::flow::ArchitectureKind::Spline);
        let ramp = plan.stages[0].temperature_factor;
        assert_eq!((ramp.start, ramp.end, ramp.shape), (4.0, 1.0, crate::train::RampShape::Exponential));
        assert_eq!(plan.stages[1].log_variance, crate::train::Ramp::constant(0.5));
        assert_eq!(plan.collective_variable.as_ref().unwrap().variable.to_string(), "coordinate(0)");
        assert_eq!((plan.weight_average, plan.patience), (Some(0.999), None));
        // Nothing that the file says is lost on the way.
        let said = training_task(&plan, "double-well", None, "my-flow", "");
        assert_eq!((said.budget, said.adam, said.energy_cut), (task.budget, task.adam, task.energy_cut));
        assert_eq!(said.stages[0].reverse_kl, task.stages[0].reverse_kl);
        assert_eq!(said.collective_variable, task.collective_variable);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, words) in [
            ("seed = 1\nsteps = 3", ["line 2", "unknown field `steps`", "validation_every"]),
            ("\n\ngradient_clip = \"much\"", ["line 3", "gradient_clip", "f64"]),
            ("[architecture]\nkind = \"glow\"", ["line 2", "unknown variant `glow`", "`spline`"]),
            ("[[stages]]\nsteps = 5\nreverse_kl = { begin = 1.0 }", ["line 3", "unknown field `begin`", "`start`"]),
            (
                "[[stages]]\nsteps = 5\nreverse_kl = { start = 1, end = 0, shape = \"steep\" }",
                ["line 3", "unknown variant `steep`", "`cosine`"],
            ),
            ("[[stages]]\nreverse_kl = \"on\"", ["line 2", "a number, or a table", "start"]),
            ("seed = -1", ["line 1", "-1", "u64"]),
            ("[collective_variable]\nvariable = \"phi\"\nlow = 0\nhigh = 1", ["line 2", "phi", "dihedral(4,6,8,14)"]),
        ] {
            let error = parse(text).map(|_| ()).unwrap_err().to_string();
            words.iter().for_each(|word| assert!(error.contains(word), "{text}: no '{word}' in {error}"));
        }
    }
}
