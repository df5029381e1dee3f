//! Expressions of named numbers, for one set of them at a time.

use super::graph::{Graph, Node, Operation};
use super::parse::parse;
use super::scope::Scope;
use std::collections::HashMap;

/// An expression of named numbers, in the language of OpenMM's custom forces, and its derivatives.
#[derive(Clone, Debug)]
pub struct NamedExpression {
    /// Each is made of earlier ones, and the value before its derivatives.
    operations: Vec<Operation>,
    value: Node,
    /// By name, in the order that they were given in.
    slopes: Vec<Node>,
    uses: Vec<bool>,
}

impl NamedExpression {
    /// Reads an expression of the numbers that have these names.
    ///
    /// # Errors
    /// A sentence that says what is wrong, and where: a name or a function that is not known, a text that is no expression,
    /// or one that is too long or too deeply nested.
    pub fn read<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut graph = Graph::default();
        let names: HashMap<String, Node> =
            names.enumerate().map(|(k, name)| (name.to_string(), graph.variable(k))).collect();
        let count = names.len();
        let mut scope = Scope { names, ..Scope::default() };
        let value = parse(text, &mut scope, &mut graph).map_err(|error| error.describe(text))?;
        let needed = graph.needed(&[value], graph.len());
        let variables: Vec<Node> = (0..count).map(|k| graph.variable(k)).collect();
        let uses = variables.iter().map(|v| needed.get(v.0 as usize) == Some(&true)).collect();
        let slopes = variables.iter().map(|&variable| graph.derivative(value, variable)).collect();
        if graph.is_overflown() {
            return Err("the expression and its derivatives are too long to be evaluated".into());
        }
        let operations = (0..graph.len()).map(|k| graph.operation(Node(k as u32))).collect();
        Ok(Self { operations, value, slopes, uses })
    }

    /// Whether the expression has the number with the k-th name in it.
    pub fn uses(&self, k: usize) -> bool {
        self.uses.get(k) == Some(&true)
    }

    /// How many operations a value and its derivatives take.
    pub fn operations(&self) -> usize {
        self.operations.len()
    }

    /// The value, of numbers in the order of their names.
    pub fn value(&self, numbers: &[f64]) -> f64 {
        let end = (self.value.0 as usize + 1).min(self.operations.len());
        run(&self.operations[..end], numbers).last().copied().unwrap_or(f64::NAN)
    }

    /// The derivatives with respect to each of the numbers.
    pub fn slopes(&self, numbers: &[f64]) -> Vec<f64> {
        let results = run(&self.operations, numbers);
        self.slopes.iter().map(|slope| results.get(slope.0 as usize).copied().unwrap_or(f64::NAN)).collect()
    }
}

/// What each operation computes.
fn run(operations: &[Operation], numbers: &[f64]) -> Vec<f64> {
    let mut results: Vec<f64> = Vec::with_capacity(operations.len());
    for operation in operations {
        let of = |part: Node| results.get(part.0 as usize).copied().unwrap_or(f64::NAN);
        let result = match *operation {
            Operation::Constant(bits) => f64::from_bits(bits),
            Operation::Variable(k) => numbers.get(k as usize).copied().unwrap_or(f64::NAN),
            Operation::Unary(function, a) => function.of(of(a)),
            Operation::Binary(function, a, b) => function.of(of(a), of(b)),
            Operation::IntegerPower(a, n) => of(a).powi(n),
            Operation::Select(condition, yes, no) => {
                if of(condition) == 0.0 {
                    of(no)
                } else {
                    of(yes)
                }
            }
            // There are neither parameters nor tables beside the names.
            Operation::Parameter(_) | Operation::Table { .. } => f64::NAN,
        };
        results.push(result);
    }
    results
}
