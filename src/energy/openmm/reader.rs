//! From the text of an OpenMM System to its potential, masses and constraints.

use super::angles::HarmonicAngles;
use super::bonds::HarmonicBonds;
use super::born::GeneralizedBorn;
use super::born_reader;
use super::mechanics::{Force, MolecularMechanics, Term};
use super::nonbonded::Nonbonded;
use super::torsions::PeriodicTorsions;
use super::xml::{self, Element, MAX_ATOMS, check_all_pairs, quoted};
use crate::energy::potential::EnergyError;
use std::collections::BTreeSet;

/// The longest name of a force in bytes; answers repeat it.
const LONGEST_NAME: usize = 256;

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
#[derive(Clone, Copy, Debug, PartialEq)]
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
    forces.iter().try_for_each(check_supported)?;

    let masses = masses(&system)?;
    let atoms = masses.len();
    let constraints = constraints(&system, atoms)?;
    let terms = forces.iter().map(|force| term(force, atoms)).collect::<Result<Vec<_>, _>>()?;
    let constrained = constraints.iter().map(|c| (c.i.min(c.j), c.i.max(c.j)));
    let bonds: BTreeSet<_> = terms.iter().flat_map(Term::bonds).chain(constrained).collect();
    let potential = MolecularMechanics::new(atoms, terms, bonds.into_iter().collect());
    Ok(OpenMmSystem { potential, masses, constraints })
}

/// That a force is one of those that can be evaluated; looks at nothing that is long.
fn check_supported(force: &Element) -> Result<(), EnergyError> {
    let newest = match force.required("type")? {
        "HarmonicBondForce" | "HarmonicAngleForce" | "PeriodicTorsionForce" | "RBTorsionForce" => {
            check_not_periodic(force)?;
            2
        }
        "NonbondedForce" => {
            check_no_cutoff(force)?;
            for list in ["GlobalParameters", "ParticleOffsets", "ExceptionOffsets"] {
                if force.has_any(list)? {
                    let reason = format!("it has {list}, and parameters that change are not supported; set them fixed");
                    return Err(force.unsupported(reason));
                }
            }
            if force.attribute("includeDirectSpace").is_some_and(|text| text != "1") {
                return Err(force.unsupported("it leaves out its direct space part (includeDirectSpace is not 1)"));
            }
            4
        }
        "GBSAOBCForce" => {
            check_no_cutoff(force)?;
            2
        }
        "CustomGBForce" => {
            check_no_cutoff(force)?;
            born_reader::check_custom(force)?;
            2
        }
        "CMMotionRemover" => 1,
        kind if kind.ends_with("Barostat") => {
            return Err(force.unsupported(
                "it changes the volume of a periodic box, and configurations are sampled at no volume at all; leave \
                 the barostat out of the system",
            ));
        }
        _ => {
            return Err(force.unsupported(
                "the forces that can be evaluated are HarmonicBondForce, HarmonicAngleForce, PeriodicTorsionForce, \
                 RBTorsionForce, NonbondedForce, GBSAOBCForce and the CustomGBForce of OBC1 and OBC2 (CMMotionRemover is \
                 ignored)",
            ));
        }
    };
    let version = force.integer("version")?;
    if !(1..=newest).contains(&version) {
        let reason = format!("version {version} of its XML is not known; the versions from 1 to {newest} are");
        return Err(force.unsupported(reason));
    }
    Ok(())
}

fn check_not_periodic(force: &Element) -> Result<(), EnergyError> {
    match force.attribute("usesPeriodic") {
        None | Some("0") => Ok(()),
        _ => Err(force.unsupported(
            "it uses periodic boundary conditions (usesPeriodic is not 0); only molecules in open space are supported",
        )),
    }
}

fn check_no_cutoff(force: &Element) -> Result<(), EnergyError> {
    let method = force.integer("method")?;
    let name = match method {
        0 => return Ok(()),
        1 => "CutoffNonPeriodic",
        2 => "CutoffPeriodic",
        3 => "Ewald",
        4 => "PME",
        5 => "LJPME",
        _ => "unknown",
    };
    Err(force.unsupported(format!(
        "its method is {method} ({name}); only 0 (NoCutoff) is supported, so create the system with \
         nonbondedMethod=NoCutoff"
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

fn term(element: &Element, atoms: usize) -> Result<Term, EnergyError> {
    let kind = element.required("type")?;
    let force = match kind {
        "HarmonicBondForce" => Force::Bonds(HarmonicBonds::read(element, atoms)?),
        "HarmonicAngleForce" => Force::Angles(HarmonicAngles::read(element, atoms)?),
        "PeriodicTorsionForce" => Force::Torsions(PeriodicTorsions::read(element, atoms)?),
        "RBTorsionForce" => Force::Torsions(PeriodicTorsions::read_ryckaert_bellemans(element, atoms)?),
        "NonbondedForce" => Force::Nonbonded(Nonbonded::read(element, atoms)?),
        "GBSAOBCForce" => Force::Born(born(born_reader::read_obc2, element, atoms)?),
        "CustomGBForce" => Force::Born(born(born_reader::read_custom, element, atoms)?),
        _ => Force::None,
    };
    let name = element.attribute("name").unwrap_or(kind);
    if name.len() > LONGEST_NAME {
        return Err(element.fault(format!("its name has {} bytes; it may have {LONGEST_NAME}", name.len())));
    }
    Ok(Term { name: name.to_string(), force })
}

fn born(
    read: fn(&Element, usize) -> Result<GeneralizedBorn, EnergyError>,
    element: &Element,
    atoms: usize,
) -> Result<GeneralizedBorn, EnergyError> {
    check_all_pairs(element, atoms)?;
    read(element, atoms)
}
