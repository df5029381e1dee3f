//! Expressions as a straight line of instructions.
//!
//! A term of a force (a bond, a pair of atoms) has parameters, which are the same in all configurations, and variables,
//! which are not. What depends on parameters alone is computed by instructions of its own, which come before the rest.

use super::graph::{Binary, Function, Graph, Node, Operation, TableName};

/// Instructions that compute some expressions of a graph.
#[derive(Debug)]
pub(in super::super) struct Program {
    /// For parameters alone, in registers of one number a term.
    pub(super) uniform: Vec<Instruction>,
    /// In registers of one number a term and configuration.
    pub(super) varying: Vec<Instruction>,
    /// The first uniform registers are parameters, then constants; the first varying ones are variables.
    pub(super) parameters: usize,
    variables: usize,
    pub(super) constants: Vec<f64>,
    pub(super) uniform_registers: usize,
    pub(super) varying_registers: usize,
    pub(super) outputs: Vec<Register>,
    used_parameters: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Register {
    Uniform(u32),
    Varying(u32),
}

#[derive(Debug)]
pub(super) struct Instruction {
    pub action: Action,
    pub arguments: [Register; 3],
    /// Never a register of an argument.
    pub to: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Unary(Function),
    Binary(Binary),
    Power(i32),
    Select,
    Table(TableName, Option<u8>),
}

impl Action {
    /// How many arguments it looks at.
    #[inline(always)]
    pub fn arguments(self) -> usize {
        match self {
            Self::Unary(_) | Self::Power(_) => 1,
            Self::Binary(_) => 2,
            Self::Select | Self::Table(..) => 3,
        }
    }
}

impl Program {
    /// The program that computes `outputs` from so many parameters and variables.
    pub fn new(graph: &Graph, outputs: &[Node], parameters: usize, variables: usize) -> Self {
        Compiler::new(graph, outputs, parameters, variables).compile(outputs)
    }

    /// The parameters that something is computed from, in ascending order.
    pub fn used_parameters(&self) -> &[usize] {
        &self.used_parameters
    }
}

/// What is known of a node while a program is made.
struct Compiler<'a> {
    graph: &'a Graph,
    needed: Vec<bool>,
    varies: Vec<bool>,
    /// The last node that each is an argument of; of outputs, none is last.
    last_use: Vec<usize>,
    /// Whether something that varies is computed from it.
    kept: Vec<bool>,
    place: Vec<Option<Register>>,
    program: Program,
    free: [Vec<u32>; 2],
}

impl<'a> Compiler<'a> {
    fn new(graph: &'a Graph, outputs: &[Node], parameters: usize, variables: usize) -> Self {
        let size = graph.len();
        let needed = graph.needed(outputs, size);
        let (mut varies, mut last_use) = (vec![false; size], vec![0; size]);
        let (mut constants, mut used_parameters) = (Vec::new(), Vec::new());
        let mut place = vec![None; size];
        for k in (0..size).filter(|&k| needed[k]) {
            let operation = graph.operation(Node(k as u32));
            match operation {
                Operation::Constant(bits) => {
                    place[k] = Some(Register::Uniform((parameters + constants.len()) as u32));
                    constants.push(f64::from_bits(bits));
                }
                Operation::Parameter(index) => {
                    place[k] = Some(Register::Uniform(index));
                    used_parameters.push(index as usize);
                }
                Operation::Variable(index) => {
                    place[k] = Some(Register::Varying(index));
                    varies[k] = true;
                }
                _ => operation.for_each_part(|part| {
                    varies[k] |= varies[part.0 as usize];
                    last_use[part.0 as usize] = k;
                }),
            }
        }
        used_parameters.sort_unstable();
        let mut kept = vec![false; size];
        for k in (0..size).filter(|&k| needed[k] && varies[k]) {
            graph.operation(Node(k as u32)).for_each_part(|part| kept[part.0 as usize] = true);
        }
        for output in outputs {
            last_use[output.0 as usize] = usize::MAX;
        }
        let program = Program {
            uniform: Vec::new(),
            varying: Vec::new(),
            parameters,
            variables,
            uniform_registers: parameters + constants.len(),
            varying_registers: variables,
            constants,
            outputs: Vec::new(),
            used_parameters,
        };
        Self { graph, needed, varies, last_use, kept, place, program, free: [Vec::new(), Vec::new()] }
    }

    fn compile(mut self, outputs: &[Node]) -> Program {
        for k in 0..self.graph.len() {
            if !self.needed[k] || self.place[k].is_some() {
                continue;
            }
            let operation = self.graph.operation(Node(k as u32));
            let (action, parts) = match operation {
                Operation::Unary(function, a) => (Action::Unary(function), [a; 3]),
                Operation::Binary(function, a, b) => (Action::Binary(function), [a, b, b]),
                Operation::IntegerPower(a, n) => (Action::Power(n), [a; 3]),
                Operation::Select(a, b, c) => (Action::Select, [a, b, c]),
                Operation::Table { table, arguments, derivative } => (Action::Table(table, derivative), arguments),
                // These have places from the beginning.
                Operation::Constant(_) | Operation::Parameter(_) | Operation::Variable(_) => continue,
            };
            let arguments = parts.map(|part| self.place[part.0 as usize].unwrap_or(Register::Uniform(0)));
            let to = self.allocate(k);
            let code = if self.varies[k] { &mut self.program.varying } else { &mut self.program.uniform };
            code.push(Instruction { action, arguments, to });
            self.release(k, parts);
        }
        let place = &self.place;
        self.program.outputs = outputs.iter().map(|o| place[o.0 as usize].unwrap_or(Register::Uniform(0))).collect();
        self.program
    }

    fn allocate(&mut self, k: usize) -> u32 {
        let varies = self.varies[k];
        let count = if varies { &mut self.program.varying_registers } else { &mut self.program.uniform_registers };
        let register = self.free[usize::from(varies)].pop().unwrap_or_else(|| {
            *count += 1;
            (*count - 1) as u32
        });
        self.place[k] = Some(if varies { Register::Varying(register) } else { Register::Uniform(register) });
        register
    }

    /// Gives back the registers of what node `k` is the last to use. What depends on parameters alone is computed before
    /// the rest, so that its registers stay if the rest uses them.
    fn release(&mut self, k: usize, parts: [Node; 3]) {
        let (parameters, variables) = (self.program.parameters + self.program.constants.len(), self.program.variables);
        for (i, part) in parts.iter().enumerate() {
            if self.last_use[part.0 as usize] != k || parts[..i].contains(part) {
                continue;
            }
            match self.place[part.0 as usize] {
                Some(Register::Varying(r)) if r as usize >= variables => self.free[1].push(r),
                Some(Register::Uniform(r)) if r as usize >= parameters && !self.kept[part.0 as usize] => {
                    self.free[0].push(r);
                }
                _ => {}
            }
        }
    }
}
