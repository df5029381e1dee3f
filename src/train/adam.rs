//! Adam (Kingma and Ba, ICLR 2015), with its moments in the open so that a checkpoint can hold them.

use crate::compute::adam::{self, AdamStep, adam_step};
use candle_core::{DType, Result, Tensor, Var};

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

/// The optimizer's state: first and second moments of each variable's gradient.
#[derive(Debug)]
pub(super) struct Adam {
    settings: AdamSettings,
    /// Updates made so far.
    pub updates: u64,
    pub moments: Vec<(Tensor, Tensor)>,
}

impl Adam {
    pub fn new(settings: AdamSettings, variables: &[Var]) -> Result<Self> {
        let zero = |var: &Var| var.as_tensor().zeros_like();
        let moments = variables.iter().map(|var| Ok((zero(var)?, zero(var)?)));
        Ok(Self { settings, updates: 0, moments: moments.collect::<Result<_>>()? })
    }

    /// One update of all variables that have a gradient; `scale` multiplies each gradient first.
    pub fn update(
        &mut self,
        variables: &[Var],
        gradients: &[Option<Tensor>],
        scale: f64,
        learning_rate: f64,
    ) -> Result<()> {
        let AdamSettings { beta1, beta2, epsilon } = self.settings;
        self.updates += 1;
        let t = self.updates as f64;
        let (correction1, correction2) = (1.0 - beta1.powf(t), 1.0 - beta2.powf(t));
        for ((var, gradient), (m, v)) in variables.iter().zip(gradients).zip(&mut self.moments) {
            let Some(gradient) = gradient else { continue };
            if adam::runs_on(var.device()) {
                let step = AdamStep { beta1, beta2, epsilon, correction1, correction2, learning_rate, scale };
                adam_step(var.as_tensor(), m, v, gradient, step)?;
                continue;
            }
            *m = ((&*m * beta1)? + (gradient * ((1.0 - beta1) * scale))?)?;
            *v = ((&*v * beta2)? + (gradient.sqr()? * ((1.0 - beta2) * scale * scale))?)?;
            let denominator = ((&*v / correction2)?.sqrt()? + epsilon)?;
            let step = (&*m / denominator)?;
            var.set(&(var.as_tensor() - (step * (learning_rate / correction1))?)?)?;
        }
        Ok(())
    }
}

/// The sum of all gradients' squares, in f64.
pub(super) fn sum_of_squares(gradients: &[Option<Tensor>]) -> Result<f64> {
    let gradients = gradients.iter().flatten();
    if gradients.clone().all(|gradient| adam::runs_on(gradient.device())) {
        return adam::sum_of_squares(gradients);
    }
    let square = |gradient: &Tensor| gradient.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>();
    gradients.map(square).sum()
}
