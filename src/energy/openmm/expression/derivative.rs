//! Derivatives of expressions, as expressions.

use super::graph::{Binary, Function, Graph, Node, Operation};
use std::f64::consts::PI;

impl Graph {
    /// ∂node/∂with. A branch that [`Operation::Select`] does not take has no part in it, whatever its value.
    pub fn derivative(&mut self, node: Node, with: Node) -> Node {
        // A node's parts have lower numbers, so that their derivatives are known when its own is made.
        let size = (node.0 as usize + 1).min(self.len());
        let needed = self.needed(&[node], size);
        let zero = self.constant(0.0);
        if !needed.get(with.0 as usize).is_some_and(|needed| *needed) {
            return zero;
        }
        let mut derivatives = vec![zero; size];
        // Of what does not depend on it, there is nothing to differentiate.
        let mut depends = vec![false; size];
        for k in (with.0 as usize..size).filter(|&k| needed[k]) {
            let mut any = k == with.0 as usize;
            self.operation(Node(k as u32)).for_each_part(|part| any |= depends.get(part.0 as usize) == Some(&true));
            depends[k] = any;
            if !any {
                continue;
            }
            let of = |part: Node| derivatives.get(part.0 as usize).copied().unwrap_or(zero);
            derivatives[k] = self.differentiate(Node(k as u32), with, of);
        }
        derivatives.get(node.0 as usize).copied().unwrap_or(zero)
    }

    /// Which of the first nodes some expressions are made of.
    pub(super) fn needed(&self, nodes: &[Node], size: usize) -> Vec<bool> {
        let mut needed = vec![false; size];
        let mark = |needed: &mut Vec<bool>, node: Node| {
            if let Some(flag) = needed.get_mut(node.0 as usize) {
                *flag = true;
            }
        };
        nodes.iter().for_each(|&node| mark(&mut needed, node));
        for k in (0..size).rev() {
            if needed[k] {
                self.operation(Node(k as u32)).for_each_part(|part| mark(&mut needed, part));
            }
        }
        needed
    }

    fn differentiate(&mut self, node: Node, with: Node, of: impl Fn(Node) -> Node) -> Node {
        let zero = self.constant(0.0);
        if node == with {
            return self.constant(1.0);
        }
        match self.operation(node) {
            Operation::Constant(_) | Operation::Parameter(_) | Operation::Variable(_) => zero,
            Operation::Unary(function, a) => {
                let da = of(a);
                // Nothing is made of what is multiplied by zero.
                if da == zero {
                    return zero;
                }
                let slope = self.slope(function, a, node);
                self.multiply(slope, da)
            }
            Operation::Binary(function, a, b) => self.differentiate_binary(function, node, (a, of(a)), (b, of(b))),
            Operation::IntegerPower(a, n) => {
                let da = of(a);
                if da == zero {
                    return zero;
                }
                let lower = self.integer_power(a, n.saturating_sub(1));
                let n = self.constant(f64::from(n));
                let slope = self.multiply(n, lower);
                self.multiply(slope, da)
            }
            Operation::Select(condition, yes, no) => self.select(condition, of(yes), of(no)),
            Operation::Table { table, arguments, derivative } => {
                // Second derivatives are never asked for: energies are differentiated once.
                if derivative.is_some() || !table.smooth {
                    return zero;
                }
                let mut sum = zero;
                for (k, &argument) in arguments.iter().take(usize::from(table.arguments)).enumerate() {
                    let da = of(argument);
                    if da != zero {
                        let slope = self.table(table, arguments, Some(k as u8));
                        let term = self.multiply(slope, da);
                        sum = self.add(sum, term);
                    }
                }
                sum
            }
        }
    }

    fn differentiate_binary(
        &mut self,
        function: Binary,
        node: Node,
        (a, da): (Node, Node),
        (b, db): (Node, Node),
    ) -> Node {
        match function {
            Binary::Add => self.add(da, db),
            Binary::Subtract => self.subtract(da, db),
            Binary::Multiply => {
                let left = self.multiply(da, b);
                let right = self.multiply(a, db);
                self.add(left, right)
            }
            Binary::Power => {
                // a^b·(b′·log a + b·a′/a); the second part as b·a^(b−1)·a′, which is finite at a = 0 for b ≥ 1.
                let one = self.constant(1.0);
                let lower = self.subtract(b, one);
                let lower = self.power(a, lower);
                let of_base = self.multiply(b, lower);
                let of_base = self.multiply(of_base, da);
                let zero = self.constant(0.0);
                if db == zero {
                    return of_base;
                }
                let log = self.unary(Function::Log, a);
                let of_exponent = self.multiply(node, log);
                let of_exponent = self.multiply(of_exponent, db);
                self.add(of_base, of_exponent)
            }
            Binary::Min => {
                let difference = self.subtract(a, b);
                let second = self.step(difference);
                self.select(second, db, da)
            }
            Binary::Max => {
                let difference = self.subtract(a, b);
                let first = self.step(difference);
                self.select(first, da, db)
            }
            Binary::Atan2 => {
                let left = self.multiply(b, da);
                let right = self.multiply(a, db);
                let above = self.subtract(left, right);
                let (aa, bb) = (self.square(a), self.square(b));
                let below = self.add(aa, bb);
                self.divide(above, below)
            }
        }
    }

    /// The derivative of a function at `a`, where its value is `node`.
    fn slope(&mut self, function: Function, a: Node, node: Node) -> Node {
        let one = self.constant(1.0);
        match function {
            Function::Negate => self.constant(-1.0),
            Function::Reciprocal => {
                let square = self.square(node);
                self.negate(square)
            }
            Function::Sqrt => {
                let half = self.constant(0.5);
                self.divide(half, node)
            }
            Function::Exp => node,
            Function::Log => self.divide(one, a),
            Function::Sin => self.unary(Function::Cos, a),
            Function::Cos => {
                let sin = self.unary(Function::Sin, a);
                self.negate(sin)
            }
            Function::Tan => {
                let square = self.square(node);
                self.add(one, square)
            }
            Function::Asin | Function::Acos => {
                let square = self.square(a);
                let below = self.subtract(one, square);
                let below = self.sqrt(below);
                let sign = if function == Function::Asin { one } else { self.constant(-1.0) };
                self.divide(sign, below)
            }
            Function::Atan => {
                let square = self.square(a);
                let below = self.add(one, square);
                self.divide(one, below)
            }
            Function::Sinh => self.unary(Function::Cosh, a),
            Function::Cosh => self.unary(Function::Sinh, a),
            Function::Tanh => {
                let square = self.square(node);
                self.subtract(one, square)
            }
            Function::Erf | Function::Erfc => {
                let factor = 2.0 / PI.sqrt();
                let factor = self.constant(if function == Function::Erf { factor } else { -factor });
                let square = self.square(a);
                let exponent = self.negate(square);
                let gauss = self.unary(Function::Exp, exponent);
                self.multiply(factor, gauss)
            }
            Function::Abs => {
                let minus = self.constant(-1.0);
                let positive = self.step(a);
                self.select(positive, one, minus)
            }
            Function::Step | Function::Delta | Function::Floor | Function::Ceil => self.constant(0.0),
        }
    }
}

impl Operation {
    /// Calls `f` with each node that this one is computed from.
    pub(super) fn for_each_part(self, mut f: impl FnMut(Node)) {
        match self {
            Self::Constant(_) | Self::Parameter(_) | Self::Variable(_) => {}
            Self::Unary(_, a) | Self::IntegerPower(a, _) => f(a),
            Self::Binary(_, a, b) => {
                f(a);
                f(b);
            }
            Self::Select(a, b, c) => {
                f(a);
                f(b);
                f(c);
            }
            Self::Table { arguments, .. } => arguments.into_iter().for_each(f),
        }
    }
}
