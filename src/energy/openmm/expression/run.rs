//! Running a program for many terms and configurations at once, so that finding the next instruction costs little beside
//! its work.
//!
//! Usually these are [`SLOTS`] terms of [`WIDTH`] configurations; what depends on parameters alone is computed once for
//! each of the terms. For a single configuration that would be work for one lane in eight. There a program is run packed:
//! for [`PACKED`] terms, which fill all lanes. Both do the same to every number, so that none knows how it was computed.

use super::super::lanes::{Lanes, WIDTH};
use super::graph::{Binary, Function};
use super::program::{Action, Instruction, Program, Register};
use super::table::Table;
use crate::compute::fused::{InstructionSet, Kernel, dispatch};
use std::cell::Cell;

/// Terms that are evaluated together: as many as configurations, so that parameters of terms are lanes too.
pub(in super::super) const SLOTS: usize = WIDTH;

/// Terms of a single configuration that are evaluated together.
pub(in super::super) const PACKED: usize = SLOTS * WIDTH;

/// The registers of a program that one thread runs.
#[derive(Debug)]
pub(in super::super) struct Registers {
    uniform: Vec<[Lanes; 1]>,
    varying: Vec<[Lanes; SLOTS]>,
}

/// The registers of a program that one thread runs packed.
#[derive(Debug)]
pub(in super::super) struct PackedRegisters {
    uniform: Vec<[Lanes; SLOTS]>,
    varying: Vec<[Lanes; SLOTS]>,
}

impl Program {
    pub fn registers(&self) -> Registers {
        Registers { uniform: self.uniform_start(), varying: vec![[Lanes::ZERO; SLOTS]; self.varying_registers] }
    }

    pub fn packed_registers(&self) -> PackedRegisters {
        PackedRegisters { uniform: self.uniform_start(), varying: vec![[Lanes::ZERO; SLOTS]; self.varying_registers] }
    }

    /// The uniform registers with the constants in them.
    fn uniform_start<const N: usize>(&self) -> Vec<[Lanes; N]> {
        let mut uniform = vec![[Lanes::ZERO; N]; self.uniform_registers];
        for (register, constant) in uniform.iter_mut().skip(self.parameters).zip(&self.constants) {
            *register = [Lanes::all(*constant); N];
        }
        uniform
    }

    /// Computes the outputs from the parameters and variables that are in the registers.
    pub fn run(&self, registers: &mut Registers, tables: &[Table]) {
        dispatch(Run { program: self, registers, tables });
    }

    /// The same for terms of a single configuration.
    pub fn run_packed(&self, registers: &mut PackedRegisters, tables: &[Table]) {
        dispatch(RunPacked { program: self, registers, tables });
    }

    /// Output `k` of a term, after a run.
    #[inline(always)]
    pub fn output(&self, registers: &Registers, k: usize, slot: usize) -> Lanes {
        match self.outputs[k] {
            Register::Uniform(r) => Lanes::all(registers.uniform[r as usize][0].0[slot]),
            Register::Varying(r) => registers.varying[r as usize][slot],
        }
    }

    /// Output `k` of all terms, after a packed run.
    #[inline(always)]
    pub fn packed_output<'a>(&self, registers: &'a PackedRegisters, k: usize) -> &'a [Lanes; SLOTS] {
        match self.outputs[k] {
            Register::Uniform(r) => &registers.uniform[r as usize],
            Register::Varying(r) => &registers.varying[r as usize],
        }
    }
}

impl Registers {
    /// Sets a parameter of a term.
    #[inline(always)]
    pub fn set_parameter(&mut self, k: usize, slot: usize, value: f64) {
        self.uniform[k][0].0[slot] = value;
    }

    /// Sets a variable of a term.
    #[inline(always)]
    pub fn set_variable(&mut self, k: usize, slot: usize, value: Lanes) {
        self.varying[k][slot] = value;
    }
}

impl PackedRegisters {
    /// A parameter of all terms.
    #[inline(always)]
    pub fn parameter(&mut self, k: usize) -> &mut [Lanes; SLOTS] {
        &mut self.uniform[k]
    }

    /// A variable of all terms.
    #[inline(always)]
    pub fn variable(&mut self, k: usize) -> &mut [Lanes; SLOTS] {
        &mut self.varying[k]
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
        let (uniform, varying) = (cells(&mut self.registers.uniform), cells(&mut self.registers.varying));
        for Instruction { action, arguments, to } in &self.program.uniform {
            let arguments = arguments.map(|register| match register {
                Register::Uniform(r) | Register::Varying(r) => uniform[r as usize].as_array_of_cells(),
            });
            perform(*action, self.tables, arguments, uniform[*to as usize].as_array_of_cells());
        }
        let spread = [const { Cell::new([Lanes::ZERO; SLOTS]) }; 3];
        for Instruction { action, arguments, to } in &self.program.varying {
            let mut registers = [varying[*to as usize].as_array_of_cells(); 3];
            for k in 0..action.arguments() {
                registers[k] = match arguments[k] {
                    Register::Varying(r) => varying[r as usize].as_array_of_cells(),
                    Register::Uniform(r) => {
                        let spread = spread[k].as_array_of_cells();
                        let [numbers] = uniform[r as usize].get();
                        for slot in 0..SLOTS {
                            spread[slot].set(Lanes::all(numbers.0[slot]));
                        }
                        spread
                    }
                };
            }
            perform(*action, self.tables, registers, varying[*to as usize].as_array_of_cells());
        }
    }
}

struct RunPacked<'a> {
    program: &'a Program,
    registers: &'a mut PackedRegisters,
    tables: &'a [Table],
}

impl Kernel for RunPacked<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let (uniform, varying) = (cells(&mut self.registers.uniform), cells(&mut self.registers.varying));
        let of_uniform = self.program.uniform.iter().map(|instruction| (instruction, uniform));
        let of_varying = self.program.varying.iter().map(|instruction| (instruction, varying));
        for (Instruction { action, arguments, to }, results) in of_uniform.chain(of_varying) {
            let arguments = arguments.map(|register| match register {
                Register::Uniform(r) => uniform[r as usize].as_array_of_cells(),
                Register::Varying(r) => varying[r as usize].as_array_of_cells(),
            });
            perform(*action, self.tables, arguments, results[*to as usize].as_array_of_cells());
        }
    }
}

/// Registers as cells, for an instruction reads some while it writes another.
#[inline(always)]
fn cells<const N: usize>(registers: &mut [[Lanes; N]]) -> &[Cell<[Lanes; N]>] {
    Cell::from_mut(registers).as_slice_of_cells()
}

/// One instruction. The choice is made outside of the loops over lanes, and these are loops, not functions handed to
/// others: the compiler might call such a function, which would then be without the vectors of the machine.
#[inline(always)]
fn perform<const N: usize>(action: Action, tables: &[Table], [a, b, c]: [&[Cell<Lanes>; N]; 3], to: &[Cell<Lanes>; N]) {
    macro_rules! each {
        ($x:ident => $value:expr) => {
            for i in 0..N {
                let $x = a[i].get();
                to[i].set($value);
            }
        };
        ($x:ident, $y:ident => $value:expr) => {
            for i in 0..N {
                let (mut out, y) = (a[i].get(), b[i].get());
                for lane in 0..WIDTH {
                    let ($x, $y) = (out.0[lane], y.0[lane]);
                    out.0[lane] = $value;
                }
                to[i].set(out);
            }
        };
    }
    match action {
        Action::Unary(function) => match function {
            Function::Negate => each!(x => -x),
            Function::Reciprocal => each!(x => x.recip()),
            Function::Sqrt => each!(x => x.sqrt()),
            Function::Exp => each!(x => x.exp_of_any()),
            Function::Log => each!(x => x.ln_of_any()),
            Function::Step => each!(x => x.step()),
            Function::Abs => each!(x => x.abs()),
            _ => each!(x => Lanes(x.0.map(|x| function.of(x)))),
        },
        Action::Binary(function) => match function {
            Binary::Add => each!(x, y => x + y),
            Binary::Subtract => each!(x, y => x - y),
            Binary::Multiply => each!(x, y => x * y),
            Binary::Min => each!(x, y => Binary::Min.of(x, y)),
            Binary::Max => each!(x, y => Binary::Max.of(x, y)),
            Binary::Power | Binary::Atan2 => each!(x, y => function.of(x, y)),
        },
        Action::Power(n) => match n {
            2 => each!(x => x * x),
            3 => each!(x => x * x * x),
            _ => each!(x => power(x, n.unsigned_abs())),
        },
        Action::Select => {
            for i in 0..N {
                let (condition, yes, mut out) = (a[i].get(), b[i].get(), c[i].get());
                for lane in 0..WIDTH {
                    out.0[lane] = if condition.0[lane] == 0.0 { out.0[lane] } else { yes.0[lane] };
                }
                to[i].set(out);
            }
        }
        Action::Table(name, derivative) => {
            if let Some(table) = tables.get(name.index as usize) {
                for i in 0..N {
                    to[i].set(table.of_lanes([a[i].get(), b[i].get(), c[i].get()], derivative));
                }
            }
        }
    }
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
