//! An energy's expression as programs: one for its value, one for the value and its derivatives.

use super::graph::{Graph, Node};
use super::program::Program;
use super::run::Registers;
use super::table::Table;
use crate::energy::openmm::lanes::Lanes;

/// The programs of an energy that depends on some variables.
#[derive(Debug)]
pub(in super::super) struct EnergyProgram {
    value: Program,
    slopes: Program,
    /// Whether the derivative with respect to each variable is anything but zero.
    depends: Vec<bool>,
    /// Whether each variable is in the expression at all: the derivative of a step is zero.
    uses: Vec<bool>,
}

/// The registers of both.
#[derive(Debug)]
pub(in super::super) struct EnergyRegisters {
    value: Registers,
    slopes: Registers,
}

impl EnergyProgram {
    pub fn new(graph: &mut Graph, energy: Node, parameters: usize, variables: usize) -> Self {
        let size = graph.len();
        let needed = graph.needed(&[energy], size);
        let uses = (0..variables)
            .map(|k| {
                let variable = graph.variable(k);
                needed.get(variable.0 as usize).is_some_and(|needed| *needed)
            })
            .collect();
        let derivatives: Vec<Node> = (0..variables)
            .map(|k| {
                let variable = graph.variable(k);
                graph.derivative(energy, variable)
            })
            .collect();
        let depends = derivatives.iter().map(|&d| graph.value(d) != Some(0.0)).collect();
        let outputs: Vec<Node> = std::iter::once(energy).chain(derivatives).collect();
        Self {
            value: Program::new(graph, &[energy], parameters, variables),
            slopes: Program::new(graph, &outputs, parameters, variables),
            depends,
            uses,
        }
    }

    pub fn registers(&self) -> EnergyRegisters {
        EnergyRegisters { value: self.value.registers(), slopes: self.slopes.registers() }
    }

    /// Whether the expression has a variable in it.
    pub fn uses(&self, variable: usize) -> bool {
        self.uses[variable]
    }

    /// Whether the derivative with respect to a variable is anything but zero.
    #[inline(always)]
    pub fn depends_on(&self, variable: usize) -> bool {
        self.depends[variable]
    }

    /// Computes what [`EnergyProgram::value`] and, with `GRADIENT`, [`EnergyProgram::slope`] then say. `set` is given each
    /// slot's place among the terms (those beyond `terms` repeat the last one) and sets its parameters and variables.
    #[inline(always)]
    pub fn run<const GRADIENT: bool>(
        &self,
        registers: &mut EnergyRegisters,
        tables: &[Table],
        terms: usize,
        mut set: impl FnMut(&mut Registers, usize, usize),
    ) {
        let (program, registers) = match GRADIENT {
            true => (&self.slopes, &mut registers.slopes),
            false => (&self.value, &mut registers.value),
        };
        for slot in 0..super::SLOTS {
            set(registers, slot, slot.min(terms - 1));
        }
        program.run(registers, tables);
    }

    #[inline(always)]
    pub fn value<const GRADIENT: bool>(&self, registers: &EnergyRegisters, slot: usize) -> Lanes {
        match GRADIENT {
            true => self.slopes.output(&registers.slopes, 0, slot),
            false => self.value.output(&registers.value, 0, slot),
        }
    }

    /// The program whose first output is the energy, and with `GRADIENT` the further ones its derivatives.
    #[inline(always)]
    pub fn program<const GRADIENT: bool>(&self) -> &Program {
        if GRADIENT { &self.slopes } else { &self.value }
    }

    /// The derivative with respect to a variable.
    #[inline(always)]
    pub fn slope(&self, registers: &EnergyRegisters, variable: usize, slot: usize) -> Lanes {
        self.slopes.output(&registers.slopes, variable + 1, slot)
    }
}
