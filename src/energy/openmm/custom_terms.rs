//! Forces between a few named atoms whose energy is an expression: OpenMM's CustomBondForce, CustomAngleForce,
//! CustomTorsionForce, CustomExternalForce and CustomCompoundBondForce.

use super::custom_reader::{Definitions, parameter_names, parameter_values};
use super::expression::{EnergyProgram, EnergyRegisters, Measure, SLOTS, Table};
use super::lanes::{Lanes, Vector};
use super::xml::Element;
use crate::energy::potential::EnergyError;

/// The most atoms of one term.
const MOST_POINTS: i64 = 64;

/// Terms that share an expression.
#[derive(Debug)]
pub(super) struct CustomTerms {
    program: EnergyProgram,
    tables: Vec<Table>,
    /// What the program's variables are.
    measures: Vec<Measure>,
    /// Atoms of a term.
    points: usize,
    /// Parameters of a term.
    parameters: usize,
    /// (terms, points).
    atoms: Vec<u32>,
    /// (terms, parameters).
    values: Vec<f64>,
}

/// How a kind of force is written.
struct Form {
    parameters: &'static str,
    list: &'static str,
    item: &'static str,
    particles: Vec<String>,
    /// The quantities that have names in its expression.
    quantities: Vec<(&'static str, Measure)>,
    /// Whether its expression may name points and their coordinates.
    names_points: bool,
}

fn form(force: &Element) -> Result<Form, EnergyError> {
    let numbered = |count: usize| (1..=count).map(|k| format!("p{k}")).collect();
    let form = |parameters, list, item, count, quantities| Form {
        parameters,
        list,
        item,
        particles: numbered(count),
        quantities,
        names_points: false,
    };
    Ok(match force.required("type")? {
        "CustomBondForce" => form("PerBondParameters", "Bonds", "Bond", 2, vec![("r", Measure::Distance([0, 1]))]),
        "CustomAngleForce" => {
            form("PerAngleParameters", "Angles", "Angle", 3, vec![("theta", Measure::Angle([0, 1, 2]))])
        }
        "CustomTorsionForce" => {
            form("PerTorsionParameters", "Torsions", "Torsion", 4, vec![("theta", Measure::Dihedral([0, 1, 2, 3]))])
        }
        "CustomExternalForce" => Form {
            particles: vec!["index".to_string()],
            ..form(
                "PerParticleParameters",
                "Particles",
                "Particle",
                1,
                [("x", 0), ("y", 1), ("z", 2)]
                    .map(|(name, axis)| (name, Measure::Coordinate { point: 0, axis }))
                    .to_vec(),
            )
        },
        _ => {
            let points = force.integer("particles")?;
            if !(1..=MOST_POINTS).contains(&points) {
                let what = format!("attribute particles is {points}; it must be from 1 to {MOST_POINTS}");
                return Err(force.fault(what));
            }
            Form { names_points: true, ..form("PerBondParameters", "Bonds", "Bond", points as usize, Vec::new()) }
        }
    })
}

impl CustomTerms {
    pub fn read(force: &Element, atoms: usize) -> Result<Self, EnergyError> {
        let form = form(force)?;
        let points = form.particles.len();
        let mut definitions = Definitions::read(force)?;
        let names = parameter_names(force, form.parameters)?;
        definitions.parameters(force, &names, "", 0)?;
        for (name, measure) in form.quantities {
            let node = definitions.scope.measure(&mut definitions.graph, measure);
            definitions.name(force, name, |_| node)?;
        }
        definitions.scope.points = if form.names_points { points } else { 0 };
        let energy = definitions.expression(force, "energy")?;
        let measures = std::mem::take(&mut definitions.scope.measures);
        let program = definitions.program(force, energy, names.len(), measures.len())?;

        let (mut of_terms, mut values) = (Vec::new(), Vec::new());
        for term in force.child(form.list)?.children(form.item) {
            let term = term?;
            // OpenMM lets a term of many particles have one of them more than once.
            let list = match form.names_points {
                true => term.particle_list(&form.particles, atoms)?,
                false => term.different_particles(&form.particles, atoms)?,
            };
            of_terms.extend(list);
            values.extend(parameter_values(&term, names.len())?);
        }
        Ok(Self {
            program,
            tables: definitions.tables,
            measures,
            points,
            parameters: names.len(),
            atoms: of_terms,
            values,
        })
    }

    pub fn registers(&self) -> EnergyRegisters {
        self.program.registers()
    }

    /// Whether the energy depends on nothing but distances and angles.
    pub fn is_rigid_invariant(&self) -> bool {
        let depends =
            |(k, measure): (usize, &Measure)| matches!(measure, Measure::Coordinate { .. }) && self.program.uses(k);
        self.atoms.is_empty() || !self.measures.iter().enumerate().any(depends)
    }

    /// The pairs of atoms, the smaller index first, if terms are of two atoms and their distance.
    pub fn distances(&self) -> Vec<(usize, usize)> {
        match self.measures.as_slice() {
            [Measure::Distance(_)] if self.points == 2 => {
                let pair = |pair: &[u32]| (pair[0].min(pair[1]) as usize, pair[0].max(pair[1]) as usize);
                self.atoms.chunks_exact(2).map(pair).collect()
            }
            _ => Vec::new(),
        }
    }

    #[inline(always)]
    pub fn evaluate<const GRADIENT: bool>(
        &self,
        at: &[Vector],
        gradient: &mut [Vector],
        registers: &mut EnergyRegisters,
    ) -> Lanes {
        let mut energy = Lanes::ZERO;
        for (block, atoms) in self.atoms.chunks(SLOTS * self.points).enumerate() {
            let terms = atoms.len() / self.points;
            let first = block * SLOTS;
            let of_term = |term: usize| &atoms[term * self.points..(term + 1) * self.points];
            self.program.run::<GRADIENT>(registers, &self.tables, terms, |registers, slot, term| {
                for k in 0..self.parameters {
                    registers.set_parameter(k, slot, self.values[(first + term) * self.parameters + k]);
                }
                for (k, measure) in self.measures.iter().enumerate() {
                    registers.set_variable(k, slot, measure.value(at, of_term(term)));
                }
            });
            for term in 0..terms {
                energy += self.program.value::<GRADIENT>(registers, term);
                if GRADIENT {
                    for (k, measure) in self.measures.iter().enumerate() {
                        if self.program.depends_on(k) {
                            measure.pull(at, of_term(term), gradient, self.program.slope(registers, k, term));
                        }
                    }
                }
            }
        }
        energy
    }
}
