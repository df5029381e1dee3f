//! Expressions of other collective variables.

use super::bound::Function;
use crate::energy::openmm::NamedExpression;

/// The longest text of an expression in bytes, and the most variables in it.
const LONGEST: usize = 4096;
const MOST_VARIABLES: usize = 64;
const LONGEST_NAME: usize = 64;

/// What a period is written as among an expression's definitions, and so no name in it.
pub(super) const PERIOD: &str = "period";

/// An expression of variables, in the order of their names.
#[derive(Debug)]
pub(super) struct Composite {
    expression: NamedExpression,
    variables: Vec<Function>,
}

impl Composite {
    /// `variables` has names and what they stand for.
    pub fn new(text: &str, variables: Vec<(&str, Function)>, period: Option<f64>) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("its expression has {} bytes; at most {LONGEST} are allowed", text.len()));
        }
        if variables.is_empty() || variables.len() > MOST_VARIABLES {
            return Err(format!("it has {} variables; it must have from 1 to {MOST_VARIABLES}", variables.len()));
        }
        if let Some(period) = period
            && !(period.is_finite() && period > 0.0)
        {
            return Err(format!("its period is {period}; it must be a positive finite number"));
        }
        let defined = text.split(';').skip(1).filter_map(|part| part.split_once('='));
        if defined.map(|(name, _)| name.trim()).any(|name| name == PERIOD) {
            return Err(format!("'{PERIOD}' is defined in its expression, where it would be taken for the period"));
        }
        for (name, _) in &variables {
            check_name(name)?;
        }
        let (names, variables): (Vec<_>, Vec<_>) = variables.into_iter().unzip();
        let expression = NamedExpression::read(text, names.iter().copied())?;
        if let Some((_, name)) = names.iter().enumerate().find(|(k, _)| !expression.uses(*k)) {
            return Err(format!("its value does not depend on '{name}'; leave that variable out"));
        }
        Ok(Self { expression, variables })
    }

    pub fn terms(&self) -> usize {
        let inner = self.variables.iter().map(Function::terms);
        inner.fold(self.expression.operations(), usize::saturating_add)
    }

    fn values(&self, x: &[f64]) -> Vec<f64> {
        self.variables.iter().map(|variable| variable.value(x)).collect()
    }

    pub fn value(&self, x: &[f64]) -> f64 {
        self.expression.value(&self.values(x))
    }

    pub fn add_gradient(&self, x: &[f64], scale: f64, gradient: &mut [f64]) {
        let slopes = self.expression.slopes(&self.values(x));
        for (variable, slope) in self.variables.iter().zip(slopes) {
            // What the value does not change with may have no gradient of its own, as the branch that select() leaves out.
            if slope != 0.0 {
                variable.add_gradient(x, scale * slope, gradient);
            }
        }
    }
}

/// That expressions can have a name in them.
fn check_name(name: &str) -> Result<(), String> {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
    let goes_on = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name == PERIOD {
        return Err(format!("'{PERIOD}' is what the period is called; give that variable another name"));
    }
    if !name.starts_with(starts) || !name.chars().all(goes_on) || name.len() > LONGEST_NAME {
        let shown: String = name.chars().take(LONGEST_NAME).collect();
        return Err(format!(
            "'{shown}' is not a name that its variables can have: up to {LONGEST_NAME} letters, digits and underscores, \
             beginning with a letter"
        ));
    }
    Ok(())
}
