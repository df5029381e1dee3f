//! The generalized Born model in the two forms that OpenMM writes: GBSAOBCForce (OBC2), and the expressions of a
//! CustomGBForce (OBC1 or OBC2 without salt, as `implicit/obc1.xml` and `GBSAOBC1Force` make them).

use super::born::{Atom, Cutoff, GeneralizedBorn};
use super::born_forms::Expression;
use super::custom_reader::{cutoff, parameter_names};
use super::nonbonded::COULOMB;
use super::xml::Element;
use crate::energy::potential::EnergyError;
use std::f64::consts::PI;

/// Offset between intrinsic radii and those of the descreening integral in nm, of GBSAOBCForce.
const OFFSET: f64 = 0.009;
/// Radius of a solvent molecule in nm, of GBSAOBCForce.
const PROBE: f64 = 0.14;
/// α, β and γ of OBC2.
const OBC2: [f64; 3] = [1.0, 0.8, 4.85];
/// Surface energy in kJ/(mol·nm²) where a GBSAOBCForce of version 1 has no number for it.
const SURFACE_ENERGY: f64 = 2.259_36;

/// What the expressions of a CustomGBForce say.
struct CustomModel {
    rescaling: [f64; 3],
    /// The offset in the expression of the Born radius, in nm.
    offset: f64,
    /// −½κ in kJ·nm/(mol·e²), as the energy of single atoms has it.
    self_energy: f64,
    /// −κ, as the energy of pairs has it.
    pair_energy: f64,
    /// What 1/f is less by, in nm⁻¹.
    shift: f64,
    surface: Option<Surface>,
    /// Which of a particle's parameters is its charge, ρ, and s.
    parameters: [String; 3],
}

/// prefactor·(R + probe)²·(R/B)⁶ with R = ρ + offset.
struct Surface {
    prefactor: f64,
    probe: f64,
    offset: f64,
}

/// Reads a GBSAOBCForce.
pub(super) fn read_obc2(force: &Element, atoms: usize) -> Result<GeneralizedBorn, EnergyError> {
    let contrast = contrast(force, force.number("soluteDielectric")?, force.number("solventDielectric")?)?;
    let surface_energy = match force.integer("version")? {
        1 => SURFACE_ENERGY,
        _ => force.number("surfaceAreaEnergy")?,
    };
    let atom = |particle: Element| {
        let (charge, radius) = (particle.number("q")?, particle.number("r")?);
        let offset_radius = radius - OFFSET;
        check_radius(&particle, offset_radius)?;
        Ok(Atom {
            charge,
            offset_radius,
            scaled_radius: offset_radius * particle.non_negative("scale")?,
            radius,
            self_energy: -0.5 * COULOMB * contrast * charge * charge,
            surface: 4.0 * PI * surface_energy * (radius + PROBE).powi(2) * radius.powi(6),
        })
    };
    let particles = force.particles_of("Particles", "Particle", atoms)?;
    Ok(GeneralizedBorn {
        atoms: particles.into_iter().map(atom).collect::<Result<_, _>>()?,
        rescaling: OBC2,
        pair_energy: -COULOMB * contrast,
        cutoff: cutoff(force)?.map(|distance| Cutoff { distance, shift: 1.0 / distance }),
        engulfed_term: true,
    })
}

/// Reads a CustomGBForce whose expressions are those of OBC1 or OBC2; nothing if they are others.
pub(super) fn read_custom(force: &Element, atoms: usize) -> Result<Option<GeneralizedBorn>, EnergyError> {
    let Some(model) = custom_model(force)? else { return Ok(None) };
    let [charge, offset_radius, scaled_radius] = &model.parameters;
    let atom = |particle: Element| {
        let (charge, offset_radius) = (particle.number(charge)?, particle.number(offset_radius)?);
        check_radius(&particle, offset_radius)?;
        let surface = model.surface.as_ref().map_or(0.0, |surface| {
            let radius = offset_radius + surface.offset;
            surface.prefactor * (radius + surface.probe).powi(2) * radius.powi(6)
        });
        Ok(Atom {
            charge,
            offset_radius,
            scaled_radius: particle.non_negative(scaled_radius)?,
            radius: offset_radius + model.offset,
            self_energy: model.self_energy * charge * charge,
            surface,
        })
    };
    let particles = force.particles_of("Particles", "Particle", atoms)?;
    Ok(Some(GeneralizedBorn {
        atoms: particles.into_iter().map(atom).collect::<Result<_, _>>()?,
        rescaling: model.rescaling,
        pair_energy: model.pair_energy,
        cutoff: cutoff(force)?.map(|distance| Cutoff { distance, shift: model.shift }),
        engulfed_term: false,
    }))
}

fn custom_model(force: &Element) -> Result<Option<CustomModel>, EnergyError> {
    for list in ["GlobalParameters", "Functions"] {
        if force.has_any(list)? {
            return Ok(None);
        }
    }
    let Some(parameters) = parameters(force)? else { return Ok(None) };
    let values = force.child("ComputedValues")?.children("Value").collect::<Result<Vec<_>, _>>()?;
    let [integral, radius] = values.as_slice() else { return Ok(None) };
    let is_integral = expression(integral, Some("I"), "2")?.is_some_and(|integral| integral.is_descreening());
    let radius = expression(radius, Some("B"), "0")?.and_then(|radius| radius.born_radius());
    let (true, Some((rescaling, offset))) = (is_integral, radius) else { return Ok(None) };

    let (mut self_energy, mut pair_energy, mut surface) = (None, None, None);
    for term in force.child("EnergyTerms")?.children("Term") {
        let term = term?;
        let kind = term.required("type")?;
        let Some(expression) = expression(&term, None, kind)? else { return Ok(None) };
        let repeated = if let ("0", Some(energy)) = (kind, expression.self_energy()) {
            self_energy.replace(energy.prefactor * contrast(&term, energy.solute, energy.solvent)?).is_some()
        } else if let ("2", Some((energy, shift))) = (kind, expression.pair_energy()) {
            let prefactor = energy.prefactor * contrast(&term, energy.solute, energy.solvent)?;
            pair_energy.replace((prefactor, shift)).is_some()
        } else if let ("0", Some([prefactor, probe, offset])) = (kind, expression.surface_energy()) {
            surface.replace(Surface { prefactor, probe, offset }).is_some()
        } else {
            return Ok(None);
        };
        if repeated {
            return Ok(None);
        }
    }
    let (Some(self_energy), Some((pair_energy, shift))) = (self_energy, pair_energy) else { return Ok(None) };
    Ok(Some(CustomModel { rescaling, offset, self_energy, pair_energy, shift, surface, parameters }))
}

/// The attributes of particles that hold the parameters charge, or, and sr.
fn parameters(force: &Element) -> Result<Option<[String; 3]>, EnergyError> {
    let names = parameter_names(force, "PerParticleParameters")?;
    let place = |name: &str| names.iter().position(|n| *n == name).map(|i| format!("param{}", i + 1));
    Ok(match (names.len(), place("charge"), place("or"), place("sr")) {
        (3, Some(charge), Some(or), Some(sr)) => Some([charge, or, sr]),
        _ => None,
    })
}

/// The expression of a computed value or energy term, if it has the name and type.
fn expression(element: &Element, name: Option<&str>, kind: &str) -> Result<Option<Expression>, EnergyError> {
    let text = element.required("expression")?;
    let actual_name = name.map(|_| element.required("name")).transpose()?;
    let fits = actual_name == name && element.required("type")? == kind;
    Ok(Expression::parse(text).filter(|_| fits))
}

/// 1/ε_solute − 1/ε_solvent.
fn contrast(element: &Element, solute: f64, solvent: f64) -> Result<f64, EnergyError> {
    if solute > 0.0 && solvent > 0.0 {
        return Ok(1.0 / solute - 1.0 / solvent);
    }
    Err(element.fault(format!("its dielectric constants are {solute} and {solvent}; both must be positive")))
}

fn check_radius(particle: &Element, offset_radius: f64) -> Result<(), EnergyError> {
    if offset_radius > 0.0 {
        return Ok(());
    }
    Err(particle.fault(format!(
        "its radius less the offset of the model is {offset_radius} nm; it must be positive (give every atom a radius)"
    )))
}
