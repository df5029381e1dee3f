//! Reads a CustomGBForce.

use super::custom_born::{COORDINATES, CustomBorn, PairValue};
use super::custom_pairs::cut;
use super::custom_reader::{Definitions, cutoff, exclusions, parameter_names, parameter_values};
use super::expression::{EnergyProgram, Node, Program};
use super::pairs::Pairs;
use super::xml::{Element, quoted};
use crate::energy::potential::EnergyError;

/// The most values computed for an atom.
const MOST_VALUES: usize = 32;

/// The kinds of values and energies, as OpenMM numbers them.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Single,
    Pair,
    PairWithExcluded,
}

fn kind(element: &Element) -> Result<Kind, EnergyError> {
    match element.integer("type")? {
        0 => Ok(Kind::Single),
        1 => Ok(Kind::Pair),
        2 => Ok(Kind::PairWithExcluded),
        other => Err(element.fault(format!("attribute type is {other}; it must be 0, 1 or 2"))),
    }
}

impl CustomBorn {
    pub fn read(force: &Element, atoms: usize) -> Result<Self, EnergyError> {
        let names = parameter_names(force, "PerParticleParameters")?;
        let cutoff = cutoff(force)?;
        let shared = Definitions::read(force)?;
        let listed = force.child("ComputedValues")?.children("Value").collect::<Result<Vec<_>, _>>()?;
        if listed.len() > MOST_VALUES {
            return Err(force.unsupported(format!("it has {} computed values; {MOST_VALUES} may be", listed.len())));
        }
        let mut value_names = Vec::new();
        let (mut pair_value, mut own_values) = (None, Vec::new());
        for value in &listed {
            match kind(value)? {
                Kind::Single => {
                    let mut own = own_definitions(&shared, force, &names, &value_names)?;
                    let node = own.expression(value, "expression")?;
                    own_values.push(own.program(value, node, names.len(), COORDINATES + value_names.len())?);
                }
                kind if value_names.is_empty() => {
                    pair_value = Some(PairValue::read(&shared, force, value, kind == Kind::Pair, &names, cutoff)?);
                }
                _ => {
                    return Err(force.unsupported(format!(
                        "its computed value {} is a sum over pairs, which only the first may be",
                        quoted(value.required("name")?)
                    )));
                }
            }
            value_names.push(value.required("name")?);
        }
        let (own_energy, pair_energies) = energies(&shared, force, &names, &value_names, cutoff)?;
        let mut by_atom = Vec::new();
        for particle in force.particles_of("Particles", "Particle", atoms)? {
            by_atom.extend(parameter_values(&particle, names.len())?);
        }
        // Only now is there known to be a number for each place, so that memory for them is no more than the file's.
        let values = (0..names.len()).flat_map(|k| by_atom.iter().skip(k).step_by(names.len()).copied()).collect();
        Ok(Self {
            tables: shared.tables,
            parameters: names.len(),
            values,
            atoms,
            pair_value,
            own_values,
            own_energy,
            pair_energies,
            all_pairs: Pairs::all_but(&vec![Default::default(); atoms]),
            allowed_pairs: Pairs::all_but(&exclusions(force, atoms)?),
        })
    }
}

/// What the expression of a single atom may use.
fn own_definitions(
    shared: &Definitions,
    force: &Element,
    names: &[&str],
    values: &[&str],
) -> Result<Definitions, EnergyError> {
    let mut own = shared.again();
    own.of_one(force, names, 0)?;
    for (variable, name) in ["x", "y", "z"].iter().chain(values).enumerate() {
        own.name(force, *name, |graph| graph.variable(variable))?;
    }
    Ok(own)
}

/// Names the parameters of both atoms of a pair, `first` being the suffix of the atom that comes first.
fn name_pair(
    definitions: &mut Definitions,
    force: &Element,
    names: &[&str],
    [first, second]: [&str; 2],
) -> Result<(), EnergyError> {
    definitions.of_one(force, &[], 0)?;
    definitions.name(force, "r", |graph| graph.variable(0))?;
    definitions.parameters(force, names, first, 0)?;
    definitions.parameters(force, names, second, names.len())
}

impl PairValue {
    fn read(
        shared: &Definitions,
        force: &Element,
        value: &Element,
        excludes: bool,
        names: &[&str],
        cutoff: Option<f64>,
    ) -> Result<Self, EnergyError> {
        let mut definitions = shared.again();
        let mut both: Vec<Node> = Vec::new();
        // The same expression for the first atom's value and, the other way round, for the second's.
        for suffixes in [["1", "2"], ["2", "1"]] {
            definitions.scope.names.clear();
            name_pair(&mut definitions, force, names, suffixes)?;
            let node = definitions.expression(value, "expression")?;
            let r = definitions.graph.variable(0);
            both.push(cut(&mut definitions.graph, node, r, None, cutoff));
        }
        let r = definitions.graph.variable(0);
        let slopes: Vec<Node> = both.iter().map(|&node| definitions.graph.derivative(node, r)).collect();
        if definitions.graph.is_overflown() {
            return Err(value.fault("its expression and derivatives are too long to be evaluated"));
        }
        let program = |outputs: &[Node]| Program::new(&definitions.graph, outputs, 2 * names.len(), 1);
        Ok(Self { values: program(&both), slopes: program(&slopes), excludes })
    }
}

type Energies = (Option<EnergyProgram>, Vec<(EnergyProgram, bool)>);

/// The energy of single atoms, and those of pairs with and without the excluded ones: each kind's terms in one program.
fn energies(
    shared: &Definitions,
    force: &Element,
    names: &[&str],
    values: &[&str],
    cutoff: Option<f64>,
) -> Result<Energies, EnergyError> {
    let terms = force.child("EnergyTerms")?.children("Term").collect::<Result<Vec<_>, _>>()?;
    let mut own = own_definitions(shared, force, names, values)?;
    let (mut own_energy, mut pair_energies) = (None, Vec::new());
    for term in &terms {
        if kind(term)? == Kind::Single {
            let node = own.expression(term, "expression")?;
            own_energy = Some(own_energy.map_or(node, |sum| own.graph.add(sum, node)));
        }
    }
    let own_energy =
        own_energy.map(|energy| own.program(force, energy, names.len(), COORDINATES + values.len())).transpose()?;
    for wanted in [Kind::Pair, Kind::PairWithExcluded] {
        let mut definitions = shared.again();
        name_pair(&mut definitions, force, names, ["1", "2"])?;
        for (suffix, first) in [("1", 1), ("2", 1 + values.len())] {
            for (k, name) in values.iter().enumerate() {
                definitions.name(force, format!("{name}{suffix}"), |graph| graph.variable(first + k))?;
            }
        }
        let mut energy = None;
        for term in &terms {
            if kind(term)? == wanted {
                let node = definitions.expression(term, "expression")?;
                energy = Some(energy.map_or(node, |sum| definitions.graph.add(sum, node)));
            }
        }
        if let Some(energy) = energy {
            let r = definitions.graph.variable(0);
            let energy = cut(&mut definitions.graph, energy, r, None, cutoff);
            let program = definitions.program(force, energy, 2 * names.len(), 1 + 2 * values.len())?;
            pair_energies.push((program, wanted == Kind::Pair));
        }
    }
    Ok((own_energy, pair_energies))
}
