//! From the text of an OpenMM System to its potential, masses and constraints.

use super::angles::HarmonicAngles;
use super::bonds::HarmonicBonds;
use super::born_reader;
use super::collective::CollectiveVariables;
use super::custom_born::CustomBorn;
use super::custom_pairs::CustomPairs;
use super::custom_reader::global_parameters;
use super::custom_terms::CustomTerms;
use super::mechanics::{Force, MolecularMechanics, Term};
use super::nonbonded::Nonbonded;
use super::torsion_maps::TorsionMaps;
use super::torsions::PeriodicTorsions;
use super::xml::{self, Element, MAX_ATOMS, check_all_pairs, quoted};
use crate::energy::potential::EnergyError;
use std::collections::{BTreeMap, BTreeSet};

/// The longest name of a force in bytes; answers repeat it.
const LONGEST_NAME: usize = 256;

/// The most forces of a system, and the most collective variables times atoms: every thread has memory for them.
const MOST_FORCES: usize = 1024;
const MOST_COLLECTIVE: usize = 1 << 20;

/// What an OpenMM System holds of interest here.
#[derive(Debug)]
pub struct OpenMmSystem {
    pub potential: MolecularMechanics,
    /// Masses of the particles in dalton.
    pub masses: Vec<f64>,
    /// Distances that dynamics would hold fixed. The energy does not know of them.
    pub constraints: Vec<Constraint>,
}

/// A fixed distance between two particles.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Constraint {
    pub i: usize,
    pub j: usize,
    /// In nm.
    pub distance: f64,
}

/// Reads the text of OpenMM's `XmlSerializer.serialize(system)`.
///
/// # Errors
/// [`EnergyError::Unsupported`] names the first force that is not supported, with the reason;
/// [`EnergyError::Definition`] says what is wrong with the text, and where.
pub fn read_system(xml: &str) -> Result<OpenMmSystem, EnergyError> {
    let document = xml::parse(xml)?;
    let system = Element::root(&document);
    if system.name() != "System" {
        return Err(system.fault("the root element must be <System>, as OpenMM's XmlSerializer writes it for a System"));
    }
    let version = system.required("version")?;
    if !matches!(version, "1" | "2") {
        let what = format!("version is \"{}\"; only versions 1 and 2 of this format are known", quoted(version));
        return Err(system.fault(what));
    }
    let forces = system.child("Forces")?.children("Force").collect::<Result<Vec<_>, _>>()?;
    if forces.is_empty() {
        return Err(system.fault("it has no forces, so that its energy is zero everywhere; add forces to it"));
    }
    if forces.len() > MOST_FORCES {
        return Err(system.fault(format!("it has {} forces; {MOST_FORCES} may be", forces.len())));
    }
    forces.iter().try_for_each(check_supported)?;

    let masses = masses(&system)?;
    let atoms = masses.len();
    let collective = document.descendants().filter(|node| node.has_tag_name("CollectiveVariable")).count();
    if collective.saturating_mul(atoms) > MOST_COLLECTIVE {
        return Err(system.fault(format!(
            "it has {collective} collective variables of {atoms} atoms; each needs memory for the forces on all atoms, and \
             variables times atoms may be {MOST_COLLECTIVE}"
        )));
    }
    let constraints = constraints(&system, atoms)?;
    let mut globals = Globals::new();
    let terms = forces.iter().map(|force| term(force, atoms, &mut globals)).collect::<Result<Vec<_>, _>>()?;
    let constrained = constraints.iter().map(|c| (c.i.min(c.j), c.i.max(c.j)));
    let mut bonds: BTreeSet<_> = terms.iter().flat_map(Term::bonds).chain(constrained).collect();
    // Where these leave atoms apart, bonds may be written otherwise: a Morse potential, a spring between two molecules.
    // (Where they do not, forces of distances are corrections of other forces, such as 1-4 interactions.)
    let mut parts = Parts::new(atoms, &bonds);
    bonds.extend(terms.iter().flat_map(Term::distances).filter(|&(i, j)| parts.join(i, j)));
    let potential = MolecularMechanics::new(atoms, terms, bonds.into_iter().collect());
    Ok(OpenMmSystem { potential, masses, constraints })
}

/// The parts of a graph that bonds connect: each atom is below another of its part, or at the top of it.
struct Parts(Vec<usize>);

impl Parts {
    fn new(atoms: usize, bonds: &BTreeSet<(usize, usize)>) -> Self {
        let mut parts = Self((0..atoms).collect());
        bonds.iter().for_each(|&(i, j)| {
            parts.join(i, j);
        });
        parts
    }

    fn top(&mut self, mut atom: usize) -> usize {
        while self.0[atom] != atom {
            self.0[atom] = self.0[self.0[atom]];
            atom = self.0[atom];
        }
        atom
    }

    /// Connects two atoms; true if nothing did before.
    fn join(&mut self, i: usize, j: usize) -> bool {
        let (a, b) = (self.top(i), self.top(j));
        self.0[a] = b;
        a != b
    }
}

/// That a force is one of those that can be evaluated; looks at nothing that is long.
fn check_supported(force: &Element) -> Result<(), EnergyError> {
    let (oldest, newest) = match force.required("type")? {
        "HarmonicBondForce" | "HarmonicAngleForce" | "PeriodicTorsionForce" | "RBTorsionForce" | "CMAPTorsionForce" => {
            check_not_periodic(force)?;
            (1, 2)
        }
        "CustomBondForce" | "CustomAngleForce" | "CustomTorsionForce" | "CustomCompoundBondForce" => {
            check_not_periodic(force)?;
            (1, 3)
        }
        "CustomExternalForce" => (1, 1),
        "CustomNonbondedForce" => {
            check_method(force)?;
            (1, 3)
        }
        "NonbondedForce" => {
            check_method(force)?;
            for list in ["GlobalParameters", "ParticleOffsets", "ExceptionOffsets"] {
                if force.has_any(list)? {
                    let reason = format!("it has {list}, and parameters that change are not supported; set them fixed");
                    return Err(force.unsupported(reason));
                }
            }
            if force.attribute("includeDirectSpace").is_some_and(|text| text != "1") {
                return Err(force.unsupported("it leaves out its direct space part (includeDirectSpace is not 1)"));
            }
            (1, 4)
        }
        "GBSAOBCForce" | "CustomGBForce" => {
            check_method(force)?;
            (1, 2)
        }
        "CustomCVForce" => (0, 1),
        "CMMotionRemover" => (1, 1),
        kind => return Err(force.unsupported(why_not(kind))),
    };
    let version = force.integer("version")?;
    if !(oldest..=newest).contains(&version) {
        let reason = format!("version {version} of its XML is not known; the versions from {oldest} to {newest} are");
        return Err(force.unsupported(reason));
    }
    Ok(())
}

/// Why a force of this type is refused.
fn why_not(kind: &str) -> &'static str {
    match kind {
        _ if kind.ends_with("Barostat") => {
            "it changes the volume of a periodic box, and configurations are sampled at no volume at all; leave the \
             barostat out of the system"
        }
        "AndersenThermostat" => {
            "temperatures are those of samples, not of a thermostat; leave it out of the system (simulations here have \
             their own)"
        }
        "DrudeForce" => "positions of Drude particles are not sampled; use a force field that is not polarisable",
        _ if kind.starts_with("Amoeba") || kind == "HippoNonbondedForce" => {
            "polarisable force fields of the AMOEBA family are not supported; use one with fixed charges"
        }
        "TorchForce" | "PythonForce" => "its energy is code outside of the system's XML, which is not run here",
        _ => {
            "the forces that can be evaluated are HarmonicBondForce, HarmonicAngleForce, PeriodicTorsionForce, \
             RBTorsionForce, CMAPTorsionForce, NonbondedForce, GBSAOBCForce, CustomBondForce, CustomAngleForce, \
             CustomTorsionForce, CustomExternalForce, CustomCompoundBondForce, CustomNonbondedForce, CustomGBForce and \
             CustomCVForce (CMMotionRemover is ignored)"
        }
    }
}

fn check_not_periodic(force: &Element) -> Result<(), EnergyError> {
    match force.attribute("usesPeriodic") {
        None | Some("0") => Ok(()),
        _ => Err(force.unsupported(
            "it uses periodic boundary conditions (usesPeriodic is not 0); only molecules in open space are supported",
        )),
    }
}

fn check_method(force: &Element) -> Result<(), EnergyError> {
    let method = force.integer("method")?;
    let name = match method {
        0 | 1 => return Ok(()),
        2 => "CutoffPeriodic",
        3 => "Ewald",
        4 => "PME",
        5 => "LJPME",
        _ => "unknown",
    };
    Err(force.unsupported(format!(
        "its method is {method} ({name}), which is for periodic boxes; only molecules in open space are supported, so \
         create the system with nonbondedMethod=NoCutoff or CutoffNonPeriodic"
    )))
}

fn masses(system: &Element) -> Result<Vec<f64>, EnergyError> {
    let list = system.child("Particles")?;
    let mut masses = Vec::new();
    for particle in list.children("Particle") {
        let particle = particle?;
        if masses.len() == MAX_ATOMS {
            return Err(list.fault(format!("more than {MAX_ATOMS} particles; larger systems are not read")));
        }
        if let Some(site) = particle.elements().next() {
            return Err(EnergyError::Unsupported {
                force: format!("virtual site {}", quoted(site.name())),
                reason: format!(
                    "the position of particle {} follows from those of others, so that it cannot be sampled; use a \
                     model without virtual sites",
                    masses.len()
                ),
            });
        }
        masses.push(particle.non_negative("mass")?);
    }
    if masses.is_empty() {
        return Err(list.fault("it is empty; a system needs at least one particle"));
    }
    Ok(masses)
}

fn constraints(system: &Element, atoms: usize) -> Result<Vec<Constraint>, EnergyError> {
    let Some(list) = system.optional_child("Constraints")? else { return Ok(Vec::new()) };
    list.children("Constraint")
        .map(|constraint| {
            let constraint = constraint?;
            let [i, j] = constraint.particles(["p1", "p2"], atoms)?.map(|p| p as usize);
            Ok(Constraint { i, j, distance: constraint.non_negative("d")? })
        })
        .collect()
}

/// The deepest nesting of forces in forces.
const DEEPEST: usize = 4;

/// What global parameters are, as far as they are known: all forces of a system share them.
type Globals<'a> = BTreeMap<&'a str, f64>;

fn term<'a>(element: &Element<'a, '_>, atoms: usize, globals: &mut Globals<'a>) -> Result<Term, EnergyError> {
    let name = element.attribute("name").map_or_else(|| element.required("type"), Ok)?;
    if name.len() > LONGEST_NAME {
        return Err(element.fault(format!("its name has {} bytes; it may have {LONGEST_NAME}", name.len())));
    }
    Ok(Term { name: name.to_string(), force: read_force(element, atoms, globals, DEEPEST)? })
}

fn read_force<'a>(
    element: &Element<'a, '_>,
    atoms: usize,
    globals: &mut Globals<'a>,
    depth: usize,
) -> Result<Force, EnergyError> {
    let kind = element.required("type")?;
    if kind.starts_with("Custom") {
        check_globals(element, globals)?;
    }
    Ok(match kind {
        "HarmonicBondForce" => Force::Bonds(HarmonicBonds::read(element, atoms)?),
        "HarmonicAngleForce" => Force::Angles(HarmonicAngles::read(element, atoms)?),
        "PeriodicTorsionForce" => Force::Torsions(PeriodicTorsions::read(element, atoms)?),
        "RBTorsionForce" => Force::Torsions(PeriodicTorsions::read_ryckaert_bellemans(element, atoms)?),
        "CMAPTorsionForce" => Force::Maps(TorsionMaps::read(element, atoms)?),
        "NonbondedForce" => Force::Nonbonded(Nonbonded::read(element, atoms)?),
        "GBSAOBCForce" => {
            check_all_pairs(element, atoms)?;
            Force::Born(born_reader::read_obc2(element, atoms)?)
        }
        "CustomGBForce" => {
            check_all_pairs(element, atoms)?;
            match born_reader::read_custom(element, atoms)? {
                Some(born) => Force::Born(born),
                None => Force::CustomBorn(Box::new(CustomBorn::read(element, atoms)?)),
            }
        }
        "CustomBondForce"
        | "CustomAngleForce"
        | "CustomTorsionForce"
        | "CustomExternalForce"
        | "CustomCompoundBondForce" => Force::Terms(CustomTerms::read(element, atoms)?),
        "CustomNonbondedForce" => Force::Pairs(CustomPairs::read(element, atoms)?),
        "CustomCVForce" => {
            if depth == 0 {
                return Err(element.unsupported(format!("forces are nested more than {DEEPEST} deep in it")));
            }
            Force::Collective(Box::new(CollectiveVariables::read(element, atoms, |inner| {
                check_supported(inner)?;
                read_force(inner, atoms, globals, depth - 1)
            })?))
        }
        _ => Force::None,
    })
}

/// That a global parameter has one value in all forces, as OpenMM demands.
fn check_globals<'a>(force: &Element<'a, '_>, globals: &mut Globals<'a>) -> Result<(), EnergyError> {
    for (name, value) in global_parameters(force)? {
        let known = *globals.entry(name).or_insert(value);
        if known != value {
            return Err(force.fault(format!(
                "the global parameter {} is {value} here and {known} in another force; it can have one value",
                quoted(name)
            )));
        }
    }
    Ok(())
}
