//! An energy that is an expression of other forces' energies: OpenMM's CustomCVForce.

use super::custom_reader::Definitions;
use super::expression::{EnergyProgram, EnergyRegisters, Table};
use super::lanes::{Lanes, Vector};
use super::mechanics::{Force, ForceKernel, Scratch};
use super::vector::{add, scaled};
use super::xml::Element;
use crate::compute::fused::dispatch;
use crate::energy::potential::EnergyError;

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
    /// Of each variable, its own scratch space and its gradient.
    variables: Vec<(Scratch, Vec<Vector>)>,
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
            definitions.name(&variable, variable.required("name")?, |graph| graph.variable(k))?;
            variables.push(read_force(&variable.child("Force")?)?);
        }
        let energy = definitions.expression(force, "energy")?;
        let program = definitions.program(force, energy, 0, variables.len())?;
        Ok(Self { program, tables: definitions.tables, variables, atoms })
    }

    pub fn scratch(&self) -> CollectiveScratch {
        let of_variable = |force: &Force| (force.scratch(), vec![[Lanes::ZERO; 3]; self.atoms]);
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
    ) -> Lanes {
        let mut values = Vec::with_capacity(self.variables.len());
        for (force, (scratch, own)) in self.variables.iter().zip(&mut scratch.variables) {
            if GRADIENT {
                own.fill([Lanes::ZERO; 3]);
            }
            values.push(dispatch(ForceKernel::<GRADIENT> { force, at, gradient: own, scratch }));
        }
        let registers = &mut scratch.registers;
        self.program.run::<GRADIENT>(registers, &self.tables, 1, |registers, slot, _| {
            values.iter().enumerate().for_each(|(k, value)| registers.set_variable(k, slot, *value));
        });
        if GRADIENT {
            for (k, (_, own)) in scratch.variables.iter().enumerate() {
                let slope = self.program.slope(registers, k, 0);
                for (to, from) in gradient.iter_mut().zip(own) {
                    add(to, &scaled(from, slope));
                }
            }
        }
        self.program.value::<GRADIENT>(registers, 0)
    }
}
