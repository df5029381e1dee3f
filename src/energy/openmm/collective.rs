//! An energy that is an expression of other forces' energies: OpenMM's CustomCVForce.

use super::custom_reader::Definitions;
use super::expression::{EnergyProgram, EnergyRegisters, Table};
use super::lanes::{Lanes, Vector};
use super::mechanics::{Force, ForceKernel, Scratch};
use super::vector::{add, scaled};
use super::xml::Element;
use crate::compute::fused::dispatch;
use crate::energy::potential::EnergyError;

/// The most variables of one force.
const MOST_VARIABLES: usize = 256;

/// OpenMM's CustomCVForce.
#[derive(Debug)]
pub(super) struct CollectiveVariables {
    program: EnergyProgram,
    tables: Vec<Table>,
    variables: Vec<Force>,
    atoms: usize,
}

/// What one thread needs for it.
#[derive(Debug)]
pub(super) struct CollectiveScratch {
    registers: EnergyRegisters,
    variables: Vec<Variable>,
}

/// What one thread needs for one variable.
#[derive(Debug)]
struct Variable {
    scratch: Scratch,
    gradient: Vec<Vector>,
    value: Lanes,
}

impl CollectiveVariables {
    /// `read_force` reads a force inside of this one.
    pub fn read<'a, 'input>(
        force: &Element<'a, 'input>,
        atoms: usize,
        mut read_force: impl FnMut(&Element<'a, 'input>) -> Result<Force, EnergyError>,
    ) -> Result<Self, EnergyError> {
        let mut definitions = Definitions::read(force)?;
        let mut variables = Vec::new();
        for (k, variable) in force.child("CollectiveVariables")?.children("CollectiveVariable").enumerate() {
            let variable = variable?;
            if k == MOST_VARIABLES {
                return Err(force.unsupported(format!("it has more than {MOST_VARIABLES} collective variables")));
            }
            definitions.name(&variable, variable.required("name")?, |graph| graph.variable(k))?;
            variables.push(read_force(&variable.child("Force")?)?);
        }
        let energy = definitions.expression(force, "energy")?;
        let program = definitions.program(force, energy, 0, variables.len())?;
        Ok(Self { program, tables: definitions.tables, variables, atoms })
    }

    pub fn scratch(&self) -> CollectiveScratch {
        let of_variable = |force: &Force| Variable {
            scratch: force.scratch(),
            gradient: vec![[Lanes::ZERO; 3]; self.atoms],
            value: Lanes::ZERO,
        };
        CollectiveScratch {
            registers: self.program.registers(),
            variables: self.variables.iter().map(of_variable).collect(),
        }
    }

    pub fn is_rigid_invariant(&self) -> bool {
        self.variables.iter().all(Force::is_rigid_invariant)
    }

    #[inline(always)]
    pub fn evaluate<const GRADIENT: bool>(
        &self,
        at: &[Vector],
        gradient: &mut [Vector],
        scratch: &mut CollectiveScratch,
        loaded: usize,
    ) -> Lanes {
        for (force, variable) in self.variables.iter().zip(&mut scratch.variables) {
            let Variable { scratch, gradient, value } = variable;
            if GRADIENT {
                gradient.fill([Lanes::ZERO; 3]);
            }
            *value = dispatch(ForceKernel::<GRADIENT> { force, at, gradient, scratch, loaded });
        }
        let CollectiveScratch { registers, variables } = scratch;
        self.program.run::<GRADIENT>(registers, &self.tables, 1, |registers, slot, _| {
            variables.iter().enumerate().for_each(|(k, variable)| registers.set_variable(k, slot, variable.value));
        });
        if GRADIENT {
            for (k, variable) in variables.iter().enumerate() {
                let slope = self.program.slope(registers, k, 0);
                for (to, from) in gradient.iter_mut().zip(&variable.gradient) {
                    add(to, &scaled(from, slope));
                }
            }
        }
        self.program.value::<GRADIENT>(registers, 0)
    }
}
