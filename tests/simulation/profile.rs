//! Replica exchange of alanine dipeptide against OpenMM's, by the profile of φ at 300 K.

use boltzflow::energy::{System, SystemDefinition, own_start};
use boltzflow::simulate::{Method, Phase, Simulation, SimulationPlan, Temperatures};
use boltzflow::thermo::CollectiveVariable;
use std::f64::consts::{FRAC_1_SQRT_2, TAU};
use std::time::Instant;

const WALKERS: usize = 64;

/// Mean over independent walkers, and its standard error.
fn estimate(shares: &[f64]) -> (f64, f64) {
    let n = shares.len() as f64;
    let mean = shares.iter().sum::<f64>() / n;
    let variance = shares.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

/// All bins that both visited are within the joint 95 % interval of normal errors (Šidák): so one seed in twenty would fail.
#[test]
#[ignore = "1.1e8 steps, four minutes on two cores: cargo test --release --test simulation -- --ignored --nocapture"]
fn the_profile_of_alanine_dipeptide_is_that_of_openmm() {
    let folder = format!("{}/examples/alanine-dipeptide", env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
    let definition =
        SystemDefinition::OpenMm { system_xml: read("system.xml"), topology_pdb: Some(read("topology.pdb")) };
    let system = System::build(definition).unwrap();
    let (start, _) = own_start(&system, 10.0).unwrap();
    let plan = SimulationPlan {
        method: Method::Langevin { timestep_ps: 0.001, friction_per_ps: 2.0 },
        temperatures: Temperatures::Geometric { low: 300.0, high: 820.0, count: 8 },
        walkers: WALKERS,
        equilibration_steps: 60_000,
        production_steps: 160_000,
        save_stride: 500,
        exchange_stride: 250,
        seed: 20,
    };
    let reference: serde_json::Value = serde_json::from_str(&read("reference-profile.json")).unwrap();
    let reference = &reference["profiles"][0]["phi"];
    let bins = reference["probability"].as_array().unwrap().len();
    let phi = CollectiveVariable::Dihedral { atoms: [4, 6, 8, 14] }.bind(&system).unwrap();
    let (begin, steps) = (Instant::now(), plan.total_steps() as f64 * (8 * WALKERS) as f64);
    let mut simulation = Simulation::new(plan, system.clone(), &start).unwrap();
    let mut counts = vec![vec![0.0; WALKERS]; bins];
    let mut frames = 0.0;
    while simulation.phase() != Phase::Finished {
        let Some(saved) = simulation.advance().unwrap().frames else { continue };
        frames += 1.0;
        for (walker, x) in saved.positions.chunks(system.dimension()).take(WALKERS).enumerate() {
            let turn = (phi.value(x) / TAU + 0.5).rem_euclid(1.0);
            counts[((turn * bins as f64) as usize).min(bins - 1)][walker] += 1.0;
        }
    }
    println!("{:.0} steps of replicas a second", steps / begin.elapsed().as_secs_f64());
    let mut gaps = Vec::new();
    for (bin, counts) in counts.iter().enumerate() {
        let (p, error) = estimate(&counts.iter().map(|c| c / frames).collect::<Vec<_>>());
        let of = |name: &str| reference[name][bin].as_f64().filter(|value| *value > 0.0);
        if let (Some(theirs), Some(their_error), true) = (of("probability"), of("stderr_kT"), p > 0.0) {
            let gap = (theirs / p).ln() / (their_error.powi(2) + (error / p).powi(2)).sqrt();
            println!("bin {bin}: {p:.5}, OpenMM {theirs:.5}, {gap:.2} standard errors");
            gaps.push(gap.abs());
        }
    }
    // The probability that all of so many normal numbers are within the largest gap.
    let largest = gaps.iter().copied().fold(0.0, f64::max);
    let all_within = libm::erf(largest * FRAC_1_SQRT_2).powi(gaps.len() as i32);
    assert!(gaps.len() > 20 && all_within < 0.95, "{} bins, the largest gap is {largest}", gaps.len());
}
