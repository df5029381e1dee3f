//! Forces between pairs of atoms whose energy is an expression: OpenMM's CustomNonbondedForce.

use super::custom_reader::{Definitions, cutoff, exclusions, parameter_names, parameter_values, switching_distance};
use super::expression::{EnergyProgram, EnergyRegisters, Graph, Node, Table};
use super::lanes::{Lanes, Vector};
use super::measures::pull_together;
use super::pairs::Pairs;
use super::vector::{difference, dot};
use super::xml::{Element, check_all_pairs};
use crate::energy::potential::EnergyError;
use std::collections::BTreeSet;

/// A pair force; see the module.
#[derive(Debug)]
pub(super) struct CustomPairs {
    program: EnergyProgram,
    tables: Vec<Table>,
    pairs: Pairs,
    /// Parameters of an atom.
    parameters: usize,
    /// (atoms, parameters).
    values: Vec<f64>,
}

impl CustomPairs {
    pub fn read(force: &Element, atoms: usize) -> Result<Self, EnergyError> {
        let pairs = pairs(force, atoms)?;
        let names = parameter_names(force, "PerParticleParameters")?;
        let mut definitions = Definitions::read(force)?;
        let distance = definitions.graph.variable(0);
        definitions.name(force, "r", |_| distance)?;
        for (suffix, first) in [("1", 0), ("2", names.len())] {
            definitions.parameters(force, &names, suffix, first)?;
        }
        computed_values(force, &names, &mut definitions)?;
        let energy = definitions.expression(force, "energy")?;
        let cutoff = cutoff(force)?;
        let switch = switching_distance(force, cutoff)?;
        let energy = cut(&mut definitions.graph, energy, distance, switch, cutoff);
        let program = definitions.program(force, energy, 2 * names.len(), 1)?;
        let mut values = Vec::new();
        for particle in force.particles_of("Particles", "Particle", atoms)? {
            values.extend(parameter_values(&particle, names.len())?);
        }
        Ok(Self { program, tables: definitions.tables, pairs, parameters: names.len(), values })
    }

    pub fn registers(&self) -> EnergyRegisters {
        self.program.registers()
    }

    #[inline(always)]
    pub fn evaluate<const GRADIENT: bool>(
        &self,
        at: &[Vector],
        gradient: &mut [Vector],
        registers: &mut EnergyRegisters,
    ) -> Lanes {
        let mut energy = Lanes::ZERO;
        let p = self.parameters;
        self.pairs.for_each_block(|block| {
            self.program.run::<GRADIENT>(registers, &self.tables, block.len(), |registers, slot, pair| {
                let (i, j) = block[pair];
                for k in 0..p {
                    registers.set_parameter(k, slot, self.values[i * p + k]);
                    registers.set_parameter(p + k, slot, self.values[j * p + k]);
                }
                let d = difference(&at[i], &at[j]);
                registers.set_variable(0, slot, dot(&d, &d).sqrt());
            });
            for (slot, &(i, j)) in block.iter().enumerate() {
                energy += self.program.value::<GRADIENT>(registers, slot);
                if GRADIENT {
                    pull_together(at, gradient, i, j, self.program.slope(registers, 0, slot));
                }
            }
        });
        energy
    }
}

/// All pairs but the excluded ones, or those of its interaction groups.
fn pairs(force: &Element, atoms: usize) -> Result<Pairs, EnergyError> {
    let excluded = exclusions(force, atoms)?;
    let groups = match force.optional_child("InteractionGroups")? {
        Some(list) => list.children("InteractionGroup").collect::<Result<Vec<_>, _>>()?,
        None => Vec::new(),
    };
    let mut groups = groups.into_iter();
    let Some(first) = groups.next() else {
        check_all_pairs(force, atoms)?;
        return Ok(Pairs::all_but(&excluded));
    };
    let mut most = 0usize;
    let mut between = |group: Element| {
        let (first, second) = (particles(&group, "Set1", atoms)?, particles(&group, "Set2", atoms)?);
        // As many pairs as all atoms of the largest system have are enough for all groups too.
        most = most.saturating_add(first.len().saturating_mul(second.len()));
        check_all_pairs(force, most.isqrt())?;
        Ok::<_, EnergyError>(Pairs::between(&first, &second, &excluded))
    };
    let mut pairs = between(first)?;
    groups.try_for_each(|group| between(group).map(|more| pairs.extend(more)))?;
    Ok(pairs)
}

fn particles(group: &Element, set: &str, atoms: usize) -> Result<BTreeSet<usize>, EnergyError> {
    let list = group.child(set)?;
    list.children("Particle").map(|particle| particle?.particles(["index"], atoms).map(|[p]| p as usize)).collect()
}

/// Values computed from an atom's own parameters, under its names with a 1 and a 2 appended.
fn computed_values(force: &Element, names: &[&str], definitions: &mut Definitions) -> Result<(), EnergyError> {
    let Some(list) = force.optional_child("ComputedValues")? else { return Ok(()) };
    for value in list.children("Value") {
        let value = value?;
        let name = value.required("name")?;
        for (suffix, first) in [("1", 0), ("2", names.len())] {
            let of_pair = std::mem::take(&mut definitions.scope.names);
            let node =
                definitions.of_one(force, names, first).and_then(|()| definitions.expression(&value, "expression"));
            definitions.scope.names = of_pair;
            let node = node?;
            definitions.name(&value, format!("{name}{suffix}"), |_| node)?;
        }
    }
    Ok(())
}

/// An energy that is zero from its cutoff on, and switched off smoothly before it from the switching distance.
pub(super) fn cut(graph: &mut Graph, energy: Node, r: Node, switch: Option<f64>, cutoff: Option<f64>) -> Node {
    let Some(cutoff) = cutoff else { return energy };
    let mut energy = energy;
    if let Some(switch) = switch {
        // 1 − 10x³ + 15x⁴ − 6x⁵ of the fraction x of the way.
        let [one, start, width] = [1.0, switch, 1.0 / (cutoff - switch)].map(|x| graph.constant(x));
        let [ten, fifteen, six] = [-10.0, 15.0, -6.0].map(|x| graph.constant(x));
        let beyond = graph.subtract(r, start);
        let x = graph.multiply(beyond, width);
        let inner = graph.multiply(six, x);
        let inner = graph.add(fifteen, inner);
        let inner = graph.multiply(x, inner);
        let inner = graph.add(ten, inner);
        let cube = graph.integer_power(x, 3);
        let inner = graph.multiply(cube, inner);
        let factor = graph.add(one, inner);
        let switched = graph.multiply(energy, factor);
        let is_beyond = graph.step(beyond);
        energy = graph.select(is_beyond, switched, energy);
    }
    let [end, zero] = [cutoff, 0.0].map(|x| graph.constant(x));
    let difference = graph.subtract(r, end);
    let is_out = graph.step(difference);
    graph.select(is_out, zero, energy)
}
