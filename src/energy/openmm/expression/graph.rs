//! Expressions as a graph whose equal nodes are one, simplified while it grows.

use std::collections::HashMap;

/// The most nodes of a graph: what the expressions of one force and their derivatives may grow to.
const MOST_NODES: usize = 200_000;

/// An expression of a graph. What it is made of has lower numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in super::super) struct Node(pub(super) u32);

/// Functions of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Function {
    Negate,
    Reciprocal,
    Sqrt,
    Exp,
    Log,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Erf,
    Erfc,
    Step,
    Delta,
    Abs,
    Floor,
    Ceil,
}

/// Functions of two arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Power,
    Min,
    Max,
    Atan2,
}

/// What a node computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    /// The bits of a number.
    Constant(u64),
    /// An input that differs between terms of a force, not between configurations.
    Parameter(u32),
    /// An input that differs between configurations.
    Variable(u32),
    Unary(Function, Node),
    Binary(Binary, Node, Node),
    IntegerPower(Node, i32),
    /// The second if the first is not zero, else the third.
    Select(Node, Node, Node),
    /// A tabulated function, or its derivative with respect to one argument.
    Table {
        table: TableName,
        arguments: [Node; 3],
        derivative: Option<u8>,
    },
}

/// A tabulated function, and what of it the derivative depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct TableName {
    /// Which of the force's tables it is.
    pub index: u32,
    /// How many of the three arguments count.
    pub arguments: u8,
    /// Whether it has a derivative other than zero.
    pub smooth: bool,
}

/// Expressions; see the module. Equal expressions are the same node.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Graph {
    operations: Vec<Operation>,
    known: HashMap<Operation, Node>,
    overflown: bool,
}

impl Graph {
    /// Whether there was no room for an expression; what its nodes then compute has no meaning.
    pub fn is_overflown(&self) -> bool {
        self.overflown
    }

    pub(super) fn operation(&self, node: Node) -> Operation {
        self.operations.get(node.0 as usize).copied().unwrap_or(Operation::Constant(0))
    }

    pub(super) fn len(&self) -> usize {
        self.operations.len()
    }

    fn intern(&mut self, operation: Operation) -> Node {
        if let Some(&node) = self.known.get(&operation) {
            return node;
        }
        if self.operations.len() >= MOST_NODES {
            self.overflown = true;
            return Node(0);
        }
        let node = Node(self.operations.len() as u32);
        self.operations.push(operation);
        self.known.insert(operation, node);
        node
    }

    /// The number that a node always is.
    pub fn value(&self, node: Node) -> Option<f64> {
        match self.operation(node) {
            Operation::Constant(bits) => Some(f64::from_bits(bits)),
            _ => None,
        }
    }

    pub fn constant(&mut self, value: f64) -> Node {
        // Zeros of both signs are one.
        self.intern(Operation::Constant((value + 0.0).to_bits()))
    }

    pub fn parameter(&mut self, index: usize) -> Node {
        self.intern(Operation::Parameter(index as u32))
    }

    pub fn variable(&mut self, index: usize) -> Node {
        self.intern(Operation::Variable(index as u32))
    }

    pub fn add(&mut self, a: Node, b: Node) -> Node {
        match (self.value(a), self.value(b)) {
            (Some(x), Some(y)) => self.constant(x + y),
            (Some(0.0), None) => b,
            (None, Some(0.0)) => a,
            _ if a == b => {
                let two = self.constant(2.0);
                self.multiply(two, a)
            }
            _ => match (self.operation(a), self.operation(b)) {
                (_, Operation::Unary(Function::Negate, b)) => self.subtract(a, b),
                (Operation::Unary(Function::Negate, a), _) => self.subtract(b, a),
                _ => self.intern(Operation::Binary(Binary::Add, a.min(b), a.max(b))),
            },
        }
    }

    pub fn subtract(&mut self, a: Node, b: Node) -> Node {
        match (self.value(a), self.value(b)) {
            (Some(x), Some(y)) => self.constant(x - y),
            (Some(0.0), None) => self.negate(b),
            (None, Some(0.0)) => a,
            _ if a == b => self.constant(0.0),
            _ => match self.operation(b) {
                Operation::Unary(Function::Negate, b) => self.add(a, b),
                _ => self.intern(Operation::Binary(Binary::Subtract, a, b)),
            },
        }
    }

    pub fn negate(&mut self, a: Node) -> Node {
        self.unary(Function::Negate, a)
    }

    pub fn multiply(&mut self, a: Node, b: Node) -> Node {
        match (self.value(a), self.value(b)) {
            (Some(x), Some(y)) => self.constant(x * y),
            (Some(0.0), _) | (_, Some(0.0)) => self.constant(0.0),
            (Some(1.0), _) => b,
            (_, Some(1.0)) => a,
            (Some(-1.0), _) => self.negate(b),
            (_, Some(-1.0)) => self.negate(a),
            // Numbers come together: 2·(3·x) is 6·x.
            (Some(x), None) => self.scale(x, a, b),
            (None, Some(x)) => self.scale(x, b, a),
            _ => match (self.operation(a), self.operation(b)) {
                (Operation::Unary(Function::Negate, a), _) => {
                    let product = self.multiply(a, b);
                    self.negate(product)
                }
                (_, Operation::Unary(Function::Negate, b)) => {
                    let product = self.multiply(a, b);
                    self.negate(product)
                }
                _ if a == b => self.integer_power(a, 2),
                _ => self.intern(Operation::Binary(Binary::Multiply, a.min(b), a.max(b))),
            },
        }
    }

    fn scale(&mut self, factor: f64, constant: Node, node: Node) -> Node {
        match self.operation(node) {
            Operation::Unary(Function::Negate, inner) => {
                let factor = self.constant(-factor);
                self.multiply(factor, inner)
            }
            Operation::Binary(Binary::Multiply, a, b) if self.value(a).is_some() => {
                let factor = self.constant(factor * self.value(a).unwrap_or(1.0));
                self.multiply(factor, b)
            }
            Operation::Binary(Binary::Multiply, a, b) if self.value(b).is_some() => {
                let factor = self.constant(factor * self.value(b).unwrap_or(1.0));
                self.multiply(factor, a)
            }
            _ => self.intern(Operation::Binary(Binary::Multiply, constant.min(node), constant.max(node))),
        }
    }

    /// a/b is a·(1/b): the reciprocal is computed once, however many divide by b.
    pub fn divide(&mut self, a: Node, b: Node) -> Node {
        if let (Some(x), Some(y)) = (self.value(a), self.value(b)) {
            return self.constant(x / y);
        }
        let reciprocal = self.unary(Function::Reciprocal, b);
        self.multiply(a, reciprocal)
    }

    pub fn sqrt(&mut self, a: Node) -> Node {
        self.unary(Function::Sqrt, a)
    }

    pub fn square(&mut self, a: Node) -> Node {
        self.integer_power(a, 2)
    }

    pub(super) fn unary(&mut self, function: Function, a: Node) -> Node {
        if let Some(x) = self.value(a) {
            return self.constant(function.of(x));
        }
        match (function, self.operation(a)) {
            (Function::Negate, Operation::Unary(Function::Negate, inner))
            | (Function::Reciprocal, Operation::Unary(Function::Reciprocal, inner)) => inner,
            (Function::Negate, Operation::Binary(Binary::Subtract, x, y)) => self.subtract(y, x),
            (Function::Reciprocal, Operation::IntegerPower(inner, n)) => self.integer_power(inner, -n),
            (Function::Reciprocal, Operation::Unary(Function::Negate, inner)) => {
                let reciprocal = self.unary(Function::Reciprocal, inner);
                self.negate(reciprocal)
            }
            _ => self.intern(Operation::Unary(function, a)),
        }
    }

    pub(super) fn binary(&mut self, function: Binary, a: Node, b: Node) -> Node {
        match function {
            Binary::Add => self.add(a, b),
            Binary::Subtract => self.subtract(a, b),
            Binary::Multiply => self.multiply(a, b),
            Binary::Power => self.power(a, b),
            Binary::Min | Binary::Max | Binary::Atan2 => match (self.value(a), self.value(b)) {
                (Some(x), Some(y)) => self.constant(function.of(x, y)),
                _ if a == b && function != Binary::Atan2 => a,
                _ => self.intern(Operation::Binary(function, a, b)),
            },
        }
    }

    pub(super) fn power(&mut self, a: Node, b: Node) -> Node {
        match (self.value(a), self.value(b)) {
            (Some(x), Some(y)) => self.constant(x.powf(y)),
            (_, Some(n)) if n.fract() == 0.0 && n.abs() <= f64::from(MOST_MULTIPLIED) => {
                self.integer_power(a, n as i32)
            }
            (_, Some(0.5)) => self.sqrt(a),
            (_, Some(-0.5)) => {
                let root = self.sqrt(a);
                self.unary(Function::Reciprocal, root)
            }
            _ => self.intern(Operation::Binary(Binary::Power, a, b)),
        }
    }

    /// aⁿ, n being whole, by multiplications.
    pub fn integer_power(&mut self, a: Node, n: i32) -> Node {
        if let Some(x) = self.value(a) {
            return self.constant(x.powi(n));
        }
        match (n, self.operation(a)) {
            (0, _) => self.constant(1.0),
            (1, _) => a,
            (-1, _) => self.unary(Function::Reciprocal, a),
            (_, Operation::Unary(Function::Negate, inner)) => {
                let power = self.integer_power(inner, n);
                if n % 2 == 0 { power } else { self.negate(power) }
            }
            (_, Operation::Unary(Function::Sqrt, inner)) if n >= 2 && n % 2 == 0 => self.integer_power(inner, n / 2),
            (_, _) if n >= 2 => self.intern(Operation::IntegerPower(a, n)),
            // 1/xⁿ is (1/x)ⁿ: the reciprocal is shared.
            _ => {
                let reciprocal = self.unary(Function::Reciprocal, a);
                self.intern(Operation::IntegerPower(reciprocal, n.saturating_neg()))
            }
        }
    }

    pub fn select(&mut self, condition: Node, yes: Node, no: Node) -> Node {
        match self.value(condition) {
            Some(0.0) => no,
            Some(_) => yes,
            None if yes == no => yes,
            None => self.intern(Operation::Select(condition, yes, no)),
        }
    }

    /// 1 where a is not negative, else 0.
    pub fn step(&mut self, a: Node) -> Node {
        self.unary(Function::Step, a)
    }

    pub(super) fn table(&mut self, table: TableName, arguments: [Node; 3], derivative: Option<u8>) -> Node {
        self.intern(Operation::Table { table, arguments, derivative })
    }
}

/// The largest exponent that is computed by multiplications.
const MOST_MULTIPLIED: i32 = 64;

impl Function {
    /// The function of a number, as the standard library or `libm` computes it.
    pub(super) fn of(self, x: f64) -> f64 {
        match self {
            Self::Negate => -x,
            Self::Reciprocal => 1.0 / x,
            Self::Sqrt => x.sqrt(),
            Self::Exp => libm::exp(x),
            Self::Log => libm::log(x),
            Self::Sin => libm::sin(x),
            Self::Cos => libm::cos(x),
            Self::Tan => libm::tan(x),
            Self::Asin => libm::asin(x),
            Self::Acos => libm::acos(x),
            Self::Atan => libm::atan(x),
            Self::Sinh => libm::sinh(x),
            Self::Cosh => libm::cosh(x),
            Self::Tanh => libm::tanh(x),
            Self::Erf => libm::erf(x),
            Self::Erfc => libm::erfc(x),
            Self::Step => f64::from(u8::from(x >= 0.0)),
            Self::Delta => f64::from(u8::from(x == 0.0)),
            Self::Abs => x.abs(),
            Self::Floor => x.floor(),
            Self::Ceil => x.ceil(),
        }
    }
}

impl Binary {
    /// The function of two numbers.
    #[inline(always)]
    pub(super) fn of(self, x: f64, y: f64) -> f64 {
        match self {
            Self::Add => x + y,
            Self::Subtract => x - y,
            Self::Multiply => x * y,
            Self::Power => libm::pow(x, y),
            // What is not a number must not vanish in a comparison.
            Self::Min => {
                if y < x || y.is_nan() {
                    y
                } else {
                    x
                }
            }
            Self::Max => {
                if y > x || y.is_nan() {
                    y
                } else {
                    x
                }
            }
            Self::Atan2 => libm::atan2(x, y),
        }
    }
}
