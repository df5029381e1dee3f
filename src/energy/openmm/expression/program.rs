//! Expressions as a straight line of instructions, run for several terms and configurations at once.
//!
//! A term of a force (a bond, a pair of atoms) has parameters, which are the same in all configurations, and variables,
//! which are not. What depends on parameters alone is computed once for a term, [`SLOTS`] terms side by side; the rest for
//! [`SLOTS`] terms of [`WIDTH`] configurations, so that finding the next instruction costs little beside its work.

use super::super::lanes::{Lanes, WIDTH};
use super::graph::{Binary, Function, Graph, Node, Operation, TableName};
use super::table::Table;
use crate::compute::fused::{InstructionSet, Kernel, dispatch};

/// Terms that are evaluated together: as many as configurations, so that parameters of terms are lanes too.
pub(in super::super) const SLOTS: usize = WIDTH;

/// Instructions that compute some expressions of a graph.
#[derive(Debug)]
pub(in super::super) struct Program {
    /// For parameters alone, in registers of one number a term.
    uniform: Vec<Instruction>,
    /// In registers of one number a term and configuration.
    varying: Vec<Instruction>,
    parameters: usize,
    variables: usize,
    constants: Vec<f64>,
    uniform_registers: usize,
    varying_registers: usize,
    outputs: Vec<Register>,
}

#[derive(Clone, Copy, Debug)]
enum Register {
    Uniform(u32),
    Varying(u32),
}

#[derive(Debug)]
struct Instruction {
    action: Action,
    arguments: [Register; 3],
    to: u32,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Unary(Function),
    Binary(Binary),
    Power(i32),
    Select,
    Table(TableName, Option<u8>),
}

/// The registers of a program that one thread runs.
#[derive(Debug)]
pub(in super::super) struct Registers {
    uniform: Vec<Lanes>,
    varying: Vec<[Lanes; SLOTS]>,
}

impl Program {
    /// The program that computes `outputs` from so many parameters and variables.
    pub fn new(graph: &Graph, outputs: &[Node], parameters: usize, variables: usize) -> Self {
        Compiler::new(graph, outputs, parameters, variables).compile(outputs)
    }

    pub fn registers(&self) -> Registers {
        let mut uniform = vec![Lanes::ZERO; self.uniform_registers];
        for (register, constant) in uniform.iter_mut().skip(self.parameters).zip(&self.constants) {
            *register = Lanes::all(*constant);
        }
        Registers { uniform, varying: vec![[Lanes::ZERO; SLOTS]; self.varying_registers] }
    }

    /// Computes the outputs from the parameters and variables that are in the registers.
    pub fn run(&self, registers: &mut Registers, tables: &[Table]) {
        dispatch(Run { program: self, registers, tables });
    }

    /// Output `k` of a term, after a run.
    #[inline(always)]
    pub fn output(&self, registers: &Registers, k: usize, slot: usize) -> Lanes {
        match self.outputs[k] {
            Register::Uniform(r) => Lanes::all(registers.uniform[r as usize].0[slot]),
            Register::Varying(r) => registers.varying[r as usize][slot],
        }
    }
}

impl Registers {
    /// Sets a parameter of a term.
    #[inline(always)]
    pub fn set_parameter(&mut self, k: usize, slot: usize, value: f64) {
        self.uniform[k].0[slot] = value;
    }

    /// Sets a variable of a term.
    #[inline(always)]
    pub fn set_variable(&mut self, k: usize, slot: usize, value: Lanes) {
        self.varying[k][slot] = value;
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
        let mut constants = Vec::new();
        let mut place = vec![None; size];
        for k in (0..size).filter(|&k| needed[k]) {
            let operation = graph.operation(Node(k as u32));
            match operation {
                Operation::Constant(bits) => {
                    place[k] = Some(Register::Uniform((parameters + constants.len()) as u32));
                    constants.push(f64::from_bits(bits));
                }
                Operation::Parameter(index) => place[k] = Some(Register::Uniform(index)),
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

struct Run<'a> {
    program: &'a Program,
    registers: &'a mut Registers,
    tables: &'a [Table],
}

impl Kernel for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let Registers { uniform, varying } = self.registers;
        for Instruction { action, arguments, to } in &self.program.uniform {
            uniform[*to as usize] = perform(*action, self.tables, |k| match arguments[k] {
                Register::Uniform(r) | Register::Varying(r) => [uniform[r as usize]],
            })[0];
        }
        for Instruction { action, arguments, to } in &self.program.varying {
            varying[*to as usize] = perform(*action, self.tables, |k| match arguments[k] {
                Register::Varying(r) => varying[r as usize],
                Register::Uniform(r) => uniform[r as usize].0.map(Lanes::all),
            });
        }
    }
}

/// One instruction, of arguments that `get` knows. The choice is made outside of the loops over lanes.
#[inline(always)]
fn perform<const N: usize>(action: Action, tables: &[Table], get: impl Fn(usize) -> [Lanes; N]) -> [Lanes; N] {
    match action {
        Action::Unary(function) => match function {
            Function::Negate => get(0).map(|x| -x),
            Function::Reciprocal => get(0).map(Lanes::recip),
            Function::Sqrt => get(0).map(Lanes::sqrt),
            Function::Exp => get(0).map(Lanes::exp_of_any),
            Function::Log => get(0).map(Lanes::ln_of_any),
            Function::Step => each(get(0), |x| f64::from(u8::from(x >= 0.0))),
            Function::Abs => get(0).map(Lanes::abs),
            _ => each(get(0), |x| function.of(x)),
        },
        Action::Binary(function) => match function {
            Binary::Add => pairwise(get(0), get(1), |x, y| x + y),
            Binary::Subtract => pairwise(get(0), get(1), |x, y| x - y),
            Binary::Multiply => pairwise(get(0), get(1), |x, y| x * y),
            Binary::Min => pairwise(get(0), get(1), |x, y| Binary::Min.of(x, y)),
            Binary::Max => pairwise(get(0), get(1), |x, y| Binary::Max.of(x, y)),
            Binary::Power | Binary::Atan2 => pairwise(get(0), get(1), |x, y| function.of(x, y)),
        },
        Action::Power(n) => match n {
            2 => get(0).map(|x| x * x),
            3 => get(0).map(|x| x * x * x),
            _ => get(0).map(|x| power(x, n.unsigned_abs())),
        },
        Action::Select => {
            let (condition, yes, mut out) = (get(0), get(1), get(2));
            for i in 0..N {
                for lane in 0..WIDTH {
                    out[i].0[lane] = if condition[i].0[lane] == 0.0 { out[i].0[lane] } else { yes[i].0[lane] };
                }
            }
            out
        }
        Action::Table(name, derivative) => {
            let (mut out, b, c) = (get(0), get(1), get(2));
            if let Some(table) = tables.get(name.index as usize) {
                for i in 0..N {
                    for lane in 0..WIDTH {
                        let arguments = [out[i].0[lane], b[i].0[lane], c[i].0[lane]];
                        out[i].0[lane] = table.evaluate(arguments, derivative);
                    }
                }
            }
            out
        }
    }
}

#[inline(always)]
fn each<const N: usize>(a: [Lanes; N], f: impl Fn(f64) -> f64 + Copy) -> [Lanes; N] {
    a.map(|x| Lanes(x.0.map(f)))
}

#[inline(always)]
fn pairwise<const N: usize>(mut a: [Lanes; N], b: [Lanes; N], f: impl Fn(f64, f64) -> f64) -> [Lanes; N] {
    for (a, b) in a.iter_mut().zip(b) {
        for (x, y) in a.0.iter_mut().zip(b.0) {
            *x = f(*x, y);
        }
    }
    a
}

/// xⁿ for n ≥ 1, by repeated squaring.
#[inline(always)]
fn power(x: Lanes, n: u32) -> Lanes {
    let mut result = x;
    for bit in (0..n.max(1).ilog2()).rev() {
        result = result * result;
        if n >> bit & 1 == 1 {
            result = result * x;
        }
    }
    result
}
