//! The generalized Born model in the two forms that OpenMM writes: GBSAOBCForce (OBC2), and the expressions of a
//! CustomGBForce (OBC1 or OBC2 without salt, as `implicit/obc1.xml` and `GBSAOBC1Force` make them).

use super::born::{Atom, Cutoff, GeneralizedBorn};
use super::born_forms::Expression;
use super::custom_reader::cutoff;
use super::nonbonded::COULOMB;
use super::xml::{Element, quoted};
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

/// Reads a CustomGBForce whose expressions are those of OBC1 or OBC2; others are unsupported here.
pub(super) fn read_custom(force: &Element, atoms: usize) -> Result<GeneralizedBorn, EnergyError> {
    let model = custom_model(force)?;
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
    Ok(GeneralizedBorn {
        atoms: particles.into_iter().map(atom).collect::<Result<_, _>>()?,
        rescaling: model.rescaling,
        pair_energy: model.pair_energy,
        cutoff: cutoff(force)?.map(|distance| Cutoff { distance, shift: model.shift }),
        engulfed_term: false,
    })
}

fn custom_model(force: &Element) -> Result<CustomModel, EnergyError> {
    for list in ["GlobalParameters", "EnergyParameterDerivatives", "Functions"] {
        if force.has_any(list)? {
            return Err(force.unsupported(format!("it has {list}, which the OBC1 and OBC2 models do not")));
        }
    }
    let parameters = parameters(force)?;
    let values = force.child("ComputedValues")?.children("Value").collect::<Result<Vec<_>, _>>()?;
    let [integral, radius] = values.as_slice() else {
        return Err(force.unsupported(format!("it has {} computed values; OBC1 and OBC2 have I and B", values.len())));
    };
    let integral = expression(force, integral, Some("I"), "2")?;
    integral.is_descreening().then_some(()).ok_or_else(|| unknown(force, &integral))?;
    let radius = expression(force, radius, Some("B"), "0")?;
    let (rescaling, offset) = radius.born_radius().ok_or_else(|| unknown(force, &radius))?;

    let (mut self_energy, mut pair_energy, mut surface) = (None, None, None);
    for term in force.child("EnergyTerms")?.children("Term") {
        let term = term?;
        let kind = term.required("type")?;
        let expression = expression(force, &term, None, kind)?;
        if expression.number("kappa").is_some_and(|kappa| kappa != 0.0) {
            let reason = format!(
                "its term \"{}\" has kappa other than 0; salt is not supported, so create the system without \
                 implicitSolventKappa",
                quoted(expression.text())
            );
            return Err(force.unsupported(reason));
        }
        let repeated = if let ("0", Some(energy)) = (kind, expression.self_energy()) {
            self_energy.replace(energy.prefactor * contrast(&term, energy.solute, energy.solvent)?).is_some()
        } else if let ("2", Some((energy, shift))) = (kind, expression.pair_energy()) {
            let prefactor = energy.prefactor * contrast(&term, energy.solute, energy.solvent)?;
            pair_energy.replace((prefactor, shift)).is_some()
        } else if let ("0", Some([prefactor, probe, offset])) = (kind, expression.surface_energy()) {
            surface.replace(Surface { prefactor, probe, offset }).is_some()
        } else {
            return Err(unknown(force, &expression));
        };
        if repeated {
            return Err(force.unsupported(format!("it has the term \"{}\" twice", quoted(expression.text()))));
        }
    }
    let missing = |what: &str| force.unsupported(format!("it has no energy term for {what}, which OBC1 and OBC2 have"));
    let (pair_energy, shift) = pair_energy.ok_or_else(|| missing("pairs of atoms"))?;
    Ok(CustomModel {
        rescaling,
        offset,
        self_energy: self_energy.ok_or_else(|| missing("single atoms"))?,
        pair_energy,
        shift,
        surface,
        parameters,
    })
}

/// The attributes of particles that hold the parameters charge, or, and sr.
fn parameters(force: &Element) -> Result<[String; 3], EnergyError> {
    let list = force.child("PerParticleParameters")?;
    let names =
        list.children("Parameter").map(|parameter| parameter?.required("name")).collect::<Result<Vec<_>, _>>()?;
    let place = |name: &str| names.iter().position(|n| *n == name).map(|i| format!("param{}", i + 1));
    match (names.len(), place("charge"), place("or"), place("sr")) {
        (3, Some(charge), Some(or), Some(sr)) => Ok([charge, or, sr]),
        _ => Err(force.unsupported("its parameters of particles are not charge, or and sr, as those of OBC1 and OBC2")),
    }
}

/// The expression of a computed value or energy term, which must have the name and type.
fn expression<'a>(
    force: &Element,
    element: &Element<'a, '_>,
    name: Option<&str>,
    kind: &str,
) -> Result<Expression<'a>, EnergyError> {
    let text = element.required("expression")?;
    let actual_name = name.map(|_| element.required("name")).transpose()?;
    let expression = Expression::parse(text);
    match expression {
        Some(expression) if actual_name == name && element.required("type")? == kind => Ok(expression),
        _ => Err(unknown_text(force, text)),
    }
}

fn unknown(force: &Element, expression: &Expression) -> EnergyError {
    unknown_text(force, expression.text())
}

fn unknown_text(force: &Element, text: &str) -> EnergyError {
    force.unsupported(format!(
        "its expression \"{}\" is not one of those that OpenMM writes for OBC1 and OBC2 without salt",
        quoted(text)
    ))
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
