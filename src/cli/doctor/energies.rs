//! Energies and forces, held against exact values and OpenMM's.

use super::super::alanine_dipeptide::{REFERENCE, array, system};
use super::super::client::CliError;
use super::check::{Check, relative_deviation};
use crate::energy::analytic::{
    AnalyticPotential, DoubleWell, GaussianMixture, Harmonic, LennardJonesCluster, ManyWell, MullerBrown,
};
use crate::energy::{Potential, System, SystemDefinition};
use std::f64::consts::PI;

/// Both sides compute in f64; OpenMM's Reference platform writes its constants with fewer digits than that.
const EXACT: f64 = 1e-12;
const OPENMM: f64 = 1e-9;

/// The stationary point of the surface of Müller and Brown is known to so many digits.
const MINIMUM: f64 = 1e-9;

pub(super) fn checks() -> Result<Vec<Check>, CliError> {
    let mut checks = Vec::new();
    for exact in exact_values() {
        let name = exact.name;
        let built = System::build(SystemDefinition::Analytic(exact.potential));
        let system = built.map_err(|e| CliError::failed(format!("{name}: {e}")))?;
        checks.extend(compare(
            name,
            system.potential().as_ref(),
            &exact.position,
            &[exact.energy],
            &exact.gradient,
            exact.tolerance,
        )?);
    }
    let positions = array(REFERENCE, "positions_nm")?.numbers;
    let energies = array(REFERENCE, "energy_kj_mol")?.numbers;
    let gradients: Vec<f64> = array(REFERENCE, "forces_kj_mol_nm")?.numbers.iter().map(|f| -f).collect();
    let molecule = system()?;
    let potential = molecule.potential().as_ref();
    checks.extend(compare("alanine dipeptide", potential, &positions, &energies, &gradients, OPENMM)?);
    Ok(checks)
}

fn compare(
    name: &str,
    potential: &dyn Potential,
    positions: &[f64],
    energies: &[f64],
    gradients: &[f64],
    tolerance: f64,
) -> Result<Vec<Check>, CliError> {
    let (mut e, mut g) = (vec![0.0; energies.len()], vec![0.0; positions.len()]);
    potential.evaluate(positions, &mut e, Some(&mut g)).map_err(|e| CliError::failed(format!("{name}: {e}")))?;
    let check = |quantity, deviation| Check { subject: name.to_string(), quantity, deviation, tolerance };
    Ok(vec![check("energy", relative_deviation(&e, energies)), check("forces", relative_deviation(&g, gradients))])
}

/// A potential at a place where its energy and gradient are known.
struct Exact {
    name: &'static str,
    potential: AnalyticPotential,
    position: Vec<f64>,
    energy: f64,
    gradient: Vec<f64>,
    tolerance: f64,
}

fn exact_values() -> Vec<Exact> {
    let (mean, width) = ([1.0, -2.0], 0.5);
    let one_gaussian = GaussianMixture { means: vec![mean], standard_deviation: width };
    let pairs = |x: f64, y: f64| [x, y].repeat(16);
    vec![
        Exact {
            name: "harmonic",
            potential: AnalyticPotential::Harmonic(Harmonic { stiffness: vec![1.0, 4.0], centre: vec![0.0, 1.0] }),
            position: vec![2.0, 1.5],
            energy: 2.5,
            gradient: vec![2.0, 2.0],
            tolerance: EXACT,
        },
        Exact {
            name: "double well",
            potential: AnalyticPotential::DoubleWell(DoubleWell::default()),
            position: vec![1.0, 2.0],
            energy: -2.0,
            gradient: vec![-7.0, 2.0],
            tolerance: EXACT,
        },
        Exact {
            name: "many well",
            potential: AnalyticPotential::ManyWell(ManyWell::default()),
            position: pairs(1.0, 2.0),
            energy: 16.0 * -3.5,
            gradient: pairs(-8.5, 2.0),
            tolerance: EXACT,
        },
        Exact {
            name: "Müller-Brown",
            potential: AnalyticPotential::MullerBrown(MullerBrown::default()),
            position: vec![-0.558_223_634_633, 1.441_725_841_805],
            energy: -14.669_951_720_995,
            gradient: vec![0.0, 0.0],
            tolerance: MINIMUM,
        },
        Exact {
            name: "Gaussian",
            potential: AnalyticPotential::GaussianMixture(one_gaussian),
            position: vec![2.0, -2.5],
            energy: 0.5 * (1.0 + 0.25) / 0.25 + (2.0 * PI * 0.25).ln(),
            gradient: vec![4.0, -2.0],
            tolerance: EXACT,
        },
        Exact {
            name: "Lennard-Jones pair",
            potential: AnalyticPotential::LennardJonesCluster(LennardJonesCluster {
                particles: 2,
                ..Default::default()
            }),
            position: vec![0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            energy: -0.75,
            gradient: vec![0.0, -0.5, 0.0, 0.0, 0.5, 0.0],
            tolerance: EXACT,
        },
    ]
}
