//! Systems: what they are made of.

use super::v1::{self, analytic_potential as proto, system::Definition};
use super::{FieldError, numbers};
use crate::energy::analytic::{
    AnalyticPotential, DoubleWell, DoubleWellCluster, Funnel, GaussianMixture, Harmonic, LennardJonesCluster, ManyWell,
    MullerBrown, ParticleDimer,
};
use crate::energy::{EnergyScale, SystemDefinition};

pub fn energy_unit(scale: EnergyScale) -> v1::EnergyUnit {
    match scale {
        EnergyScale::Reduced => v1::EnergyUnit::Reduced,
        EnergyScale::KilojoulePerMole => v1::EnergyUnit::KjPerMol,
    }
}

/// A system's definition; what is left out takes its default.
pub fn system_definition(definition: Option<&Definition>) -> Result<SystemDefinition, FieldError> {
    match definition {
        None => Err(FieldError::invalid("definition", "it is missing; give analytic or openmm")),
        Some(Definition::Openmm(openmm)) => {
            if openmm.system_xml.is_empty() {
                return Err(FieldError::invalid(
                    "openmm.system_xml",
                    "it is empty; send XmlSerializer.serialize(system)",
                ));
            }
            Ok(SystemDefinition::OpenMm {
                system_xml: openmm.system_xml.clone(),
                topology_pdb: (!openmm.topology_pdb.is_empty()).then(|| openmm.topology_pdb.clone()),
            })
        }
        Some(Definition::Analytic(analytic)) => Ok(SystemDefinition::Analytic(analytic_potential(analytic)?)),
    }
}

fn analytic_potential(message: &v1::AnalyticPotential) -> Result<AnalyticPotential, FieldError> {
    use proto::Potential;
    let Some(potential) = &message.potential else {
        return Err(FieldError::invalid("analytic.potential", "it is missing; give double_well or another potential"));
    };
    Ok(match potential {
        Potential::Harmonic(p) => {
            let default = Harmonic::default();
            let stiffness = if p.stiffness.is_empty() { default.stiffness } else { p.stiffness.clone() };
            let centre = if p.centre.is_empty() { vec![0.0; stiffness.len()] } else { p.centre.clone() };
            AnalyticPotential::Harmonic(Harmonic { stiffness, centre })
        }
        Potential::DoubleWell(p) => {
            let default = DoubleWell::default();
            AnalyticPotential::DoubleWell(DoubleWell {
                a4: p.a4.unwrap_or(default.a4),
                a2: p.a2.unwrap_or(default.a2),
                a1: p.a1.unwrap_or(default.a1),
                k: p.k.unwrap_or(default.k),
                dimension: count("analytic.double_well.dimension", p.dimension, default.dimension)?,
            })
        }
        Potential::MullerBrown(p) => {
            let default = MullerBrown::default();
            AnalyticPotential::MullerBrown(MullerBrown {
                scale: p.scale.unwrap_or(default.scale),
                dimension: count("analytic.muller_brown.dimension", p.dimension, default.dimension)?,
            })
        }
        Potential::ManyWell(p) => AnalyticPotential::ManyWell(ManyWell {
            dimension: count("analytic.many_well.dimension", p.dimension, ManyWell::default().dimension)?,
        }),
        Potential::GaussianMixture(p) => {
            let default = GaussianMixture::forty();
            let means = match &p.means {
                None => default.means,
                Some(array) => {
                    let field = "analytic.gaussian_mixture.means";
                    let (numbers, shape) = numbers(field, array)?;
                    if !matches!(shape[..], [_, 2]) {
                        return Err(FieldError::invalid(field, format!("its shape is {shape:?}; it must be (n, 2)")));
                    }
                    numbers.as_chunks::<2>().0.to_vec()
                }
            };
            let standard_deviation = p.standard_deviation.unwrap_or(default.standard_deviation);
            AnalyticPotential::GaussianMixture(GaussianMixture { means, standard_deviation })
        }
        Potential::DoubleWellCluster(p) => {
            let default = DoubleWellCluster::default();
            AnalyticPotential::DoubleWellCluster(DoubleWellCluster {
                particles: count("analytic.double_well_cluster.particles", p.particles, default.particles)?,
                space: count("analytic.double_well_cluster.space", p.space, default.space)?,
                a: p.a.unwrap_or(default.a),
                b: p.b.unwrap_or(default.b),
                c: p.c.unwrap_or(default.c),
                offset: p.offset.unwrap_or(default.offset),
            })
        }
        Potential::LennardJonesCluster(p) => {
            let default = LennardJonesCluster::default();
            AnalyticPotential::LennardJonesCluster(LennardJonesCluster {
                particles: count("analytic.lennard_jones_cluster.particles", p.particles, default.particles)?,
                space: count("analytic.lennard_jones_cluster.space", p.space, default.space)?,
                epsilon: p.epsilon.unwrap_or(default.epsilon),
                r_m: p.r_m.unwrap_or(default.r_m),
                k: p.k.unwrap_or(default.k),
            })
        }
        Potential::ParticleDimer(p) => {
            AnalyticPotential::ParticleDimer(ParticleDimer { slope: p.slope.unwrap_or(ParticleDimer::default().slope) })
        }
        Potential::Funnel(p) => {
            let default = Funnel::default();
            AnalyticPotential::Funnel(Funnel {
                standard_deviation: p.standard_deviation.unwrap_or(default.standard_deviation),
                dimension: count("analytic.funnel.dimension", p.dimension, default.dimension)?,
            })
        }
    })
}

fn count(field: &str, value: i64, default: usize) -> Result<usize, FieldError> {
    match value {
        0 => Ok(default),
        _ => usize::try_from(value).map_err(|_| FieldError::invalid(field, format!("{value} is negative"))),
    }
}

/// The message of an analytic potential, with all parameters.
pub fn analytic_message(potential: &AnalyticPotential) -> v1::AnalyticPotential {
    let potential = match potential {
        AnalyticPotential::Harmonic(p) => {
            proto::Potential::Harmonic(proto::Harmonic { stiffness: p.stiffness.clone(), centre: p.centre.clone() })
        }
        AnalyticPotential::DoubleWell(p) => proto::Potential::DoubleWell(proto::DoubleWell {
            a4: Some(p.a4),
            a2: Some(p.a2),
            a1: Some(p.a1),
            k: Some(p.k),
            dimension: p.dimension as i64,
        }),
        AnalyticPotential::MullerBrown(p) => {
            proto::Potential::MullerBrown(proto::MullerBrown { scale: Some(p.scale), dimension: p.dimension as i64 })
        }
        AnalyticPotential::ManyWell(p) => proto::Potential::ManyWell(proto::ManyWell { dimension: p.dimension as i64 }),
        AnalyticPotential::GaussianMixture(p) => proto::Potential::GaussianMixture(proto::GaussianMixture {
            means: Some(v1::Array {
                shape: vec![p.means.len() as i64, 2],
                values: p.means.iter().flatten().copied().collect(),
                ..v1::Array::default()
            }),
            standard_deviation: Some(p.standard_deviation),
        }),
        AnalyticPotential::DoubleWellCluster(p) => proto::Potential::DoubleWellCluster(proto::DoubleWellCluster {
            particles: p.particles as i64,
            space: p.space as i64,
            a: Some(p.a),
            b: Some(p.b),
            c: Some(p.c),
            offset: Some(p.offset),
        }),
        AnalyticPotential::LennardJonesCluster(p) => {
            proto::Potential::LennardJonesCluster(proto::LennardJonesCluster {
                particles: p.particles as i64,
                space: p.space as i64,
                epsilon: Some(p.epsilon),
                r_m: Some(p.r_m),
                k: Some(p.k),
            })
        }
        AnalyticPotential::ParticleDimer(p) => {
            proto::Potential::ParticleDimer(proto::ParticleDimer { slope: Some(p.slope) })
        }
        AnalyticPotential::Funnel(p) => proto::Potential::Funnel(proto::Funnel {
            standard_deviation: Some(p.standard_deviation),
            dimension: p.dimension as i64,
        }),
    };
    v1::AnalyticPotential { potential: Some(potential) }
}
