//! Adam (Kingma and Ba, ICLR 2015), with its moments in the open so that a checkpoint can hold them.

use crate::compute::adam::{Account, AdamStep, Tally, adam_step};
use candle_core::{Device, Result, Tensor, Var};

/// Constants of Adam; the learning rate comes from the stage.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamSettings {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

impl AdamSettings {
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(format!("adam.{name} is {beta}; it must be in [0, 1)"));
            }
        }
        if !(self.epsilon.is_finite() && self.epsilon > 0.0) {
            return Err(format!("adam.epsilon is {}; it must be a positive finite number", self.epsilon));
        }
        Ok(())
    }
}

/// The optimizer's state: first and second moments of each variable's gradient, and what its steps have come to.
#[derive(Debug)]
pub(super) struct Adam {
    settings: AdamSettings,
    pub moments: Vec<(Tensor, Tensor)>,
    pub account: Account,
}

impl Adam {
    pub fn new(settings: AdamSettings, variables: &[Var], device: &Device) -> Result<Self> {
        let zero = |var: &Var| var.as_tensor().zeros_like();
        let moments = variables.iter().map(|var| Ok((zero(var)?, zero(var)?)));
        let account = Account::new(Tally::default(), device)?;
        Ok(Self { settings, moments: moments.collect::<Result<_>>()?, account })
    }

    /// One step of all variables that have a gradient; together these are as long as `clip` at most.
    pub fn step(
        &mut self,
        variables: &[Var],
        gradients: &[Option<Tensor>],
        clip: f64,
        learning_rate: f64,
    ) -> Result<()> {
        let AdamSettings { beta1, beta2, epsilon } = self.settings;
        let step = AdamStep { beta1, beta2, epsilon, learning_rate, clip };
        adam_step(variables, gradients, &mut self.moments, &mut self.account, &step)
    }
}
