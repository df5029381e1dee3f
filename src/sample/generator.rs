//! A Boltzmann generator: a system, the coordinates that a flow works in, and the flow.

use super::artifact::ModelCard;
use crate::coords::ReducedTarget;
use crate::flow::{Flow, Precision};

/// A trained flow with all that is needed to sample its system and to weight the samples.
#[derive(Debug)]
pub struct Generator {
    pub target: ReducedTarget,
    pub flow: Flow,
    pub card: ModelCard,
}

impl Generator {
    /// The same generator with its conditioners computed in another precision: another flow, as exactly weighted.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { flow: self.flow.with_precision(precision), ..self }
    }

    /// The temperature that the flow was trained at, in the unit of the system's scale.
    pub fn temperature(&self) -> f64 {
        self.card.temperature
    }

    /// Whether the flow gives the gradient of its density, which moves under it need: continuous flows do not.
    pub fn has_score(&self) -> bool {
        self.flow.spec().numbers_of_a_row().is_none()
    }

    /// k_B·T at a temperature, in the system's energy unit.
    pub fn kt(&self, temperature: f64) -> f64 {
        self.target.system().scale().kt(temperature)
    }
}
