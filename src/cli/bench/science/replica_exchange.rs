//! Frames of our own replica exchange, whose temperatures have the target's among them: the reference of a molecule or a cluster,
//! and data to train on.

use super::super::super::client::CliError;
use super::target::{Frames, Reference, Regions, Samples};
use crate::energy::{EnergyScale, System, own_start};
use crate::simulate::{Method, Simulation, SimulationPlan, Temperatures};
use crate::train::TrainingData;

const WALKERS: usize = 32;
/// 1 fs and 2/ps, as all the references of the molecule that comes with the binary were made.
const OF_MOLECULES: Method = Method::Langevin { timestep_ps: 0.001, friction_per_ps: 2.0 };
/// Of particles without units, whose mass is one.
const OF_PARTICLES: Method =
    Method::HybridMonteCarlo { timestep_ps: 0.02, steps: LEAPFROG_STEPS, target_acceptance: Some(0.8) };
const LEAPFROG_STEPS: u32 = 10;
const EQUILIBRATION: u64 = 20_000;
/// Steps between frames, and between exchanges.
const STRIDE: u64 = 200;
/// The same, of moves of particles.
const EQUILIBRATION_MOVES: u64 = 2000;
const MOVE_STRIDE: u64 = 10;
/// Frames that a flow of particles is trained on.
const TRAINING_FRAMES: usize = 200_000;
/// All frames are counted in histograms. One in so many is kept to evaluate densities at: neighbours are alike.
const KEPT_EVERY: u64 = 4;
/// The largest component of the gradient (kJ/mol/nm) that the structure is relaxed to.
const RELAXED: f64 = 10.0;
const SEED: u64 = 1;
const TRAINING_SEED: u64 = 2;

/// A simulation that saves frames so many times.
fn plan(system: &System, ladder: &[f64], saves: u64, seed: u64) -> SimulationPlan {
    let (method, equilibration_steps, stride) = match system.scale() {
        EnergyScale::KilojoulePerMole => (OF_MOLECULES, EQUILIBRATION, STRIDE),
        EnergyScale::Reduced => (OF_PARTICLES, EQUILIBRATION_MOVES, MOVE_STRIDE),
    };
    SimulationPlan {
        method,
        temperatures: Temperatures::List(ladder.to_vec()),
        walkers: WALKERS,
        equilibration_steps,
        production_steps: saves * stride,
        save_stride: stride,
        exchange_stride: stride,
        seed,
    }
}

/// Frames to train on of each rung of the ladder from the least to the largest of the temperatures, and the energy evaluations of
/// the whole ladder that they took.
pub(super) fn training_data(
    system: &System,
    ladder: &[f64],
    temperatures: &[f64],
) -> Result<(TrainingData, u64), CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::failed(format!("replica exchange: {e}"));
    let (low, high) = ends(temperatures);
    let rungs: Vec<usize> = (0..ladder.len()).filter(|&i| (low..=high).contains(&ladder[i])).collect();
    if rungs.is_empty() {
        return Err(failed(&format!("nothing from {low} to {high} is on the ladder")));
    }
    let (start, _) = own_start(system, RELAXED).map_err(|e| failed(&e))?;
    let saves = TRAINING_FRAMES.div_ceil(WALKERS * rungs.len()) as u64;
    let plan = plan(system, ladder, saves, TRAINING_SEED);
    let moves = plan.equilibration_steps + plan.production_steps;
    let of_a_move = if matches!(plan.method, Method::HybridMonteCarlo { .. }) { u64::from(LEAPFROG_STEPS) } else { 1 };
    let evaluations = moves * of_a_move * (WALKERS * ladder.len()) as u64;
    let d = system.dimension();
    let mut simulation = Simulation::new(plan, system.clone(), &start).map_err(|e| failed(&e))?;
    let mut data = TrainingData {
        positions: Vec::with_capacity(saves as usize * WALKERS * rungs.len() * d),
        temperatures: Vec::new(),
        digest: format!("replica exchange of seed {TRAINING_SEED} of the system {}", system.digest()),
    };
    for _ in 0..saves {
        let saved = loop {
            if let Some(saved) = simulation.advance().map_err(|e| failed(&e))?.frames {
                break saved;
            }
        };
        for &rung in &rungs {
            data.positions.extend_from_slice(&saved.positions[rung * WALKERS * d..][..WALKERS * d]);
            if rungs.len() > 1 {
                data.temperatures.extend([ladder[rung]; WALKERS]);
            }
        }
    }
    Ok((data, evaluations))
}

/// The least and the largest of the temperatures.
pub(super) fn ends(temperatures: &[f64]) -> (f64, f64) {
    temperatures.iter().fold((f64::INFINITY, 0.0f64), |(low, high), &t| (low.min(t), high.max(t)))
}

/// What is gathered at one temperature.
struct Rung {
    index: usize,
    positions: Vec<f64>,
    /// Frames in each region, of the first and of the second half of the walkers, which never meet.
    counts: [Vec<u64>; 2],
}

/// References at the temperatures, from about so many frames of each.
pub(super) fn references(
    system: &System,
    regions: Option<&Regions>,
    ladder: &[f64],
    temperatures: &[f64],
    frames: usize,
) -> Result<Vec<Reference>, CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::failed(format!("replica exchange: {e}"));
    let (start, _) = own_start(system, RELAXED).map_err(|e| failed(&e))?;
    let saves = (frames.div_ceil(WALKERS) as u64).max(2 * KEPT_EVERY);
    let plan = plan(system, ladder, saves, SEED);
    let mut rungs = Vec::new();
    for temperature in temperatures {
        let index = ladder.iter().position(|t| t == temperature);
        let index = index.ok_or_else(|| failed(&format!("{temperature} is not on the ladder")))?;
        let counts = || vec![0; regions.map_or(0, |r| r.sets * r.regions)];
        rungs.push(Rung { index, positions: Vec::new(), counts: [counts(), counts()] });
    }
    let d = system.dimension();
    let mut simulation = Simulation::new(plan, system.clone(), &start).map_err(|e| failed(&e))?;
    for save in 0..saves {
        let saved = loop {
            if let Some(saved) = simulation.advance().map_err(|e| failed(&e))?.frames {
                break saved;
            }
        };
        for rung in &mut rungs {
            let of_rung = &saved.positions[rung.index * WALKERS * d..][..WALKERS * d];
            if save.is_multiple_of(KEPT_EVERY) {
                rung.positions.extend_from_slice(of_rung);
            }
            let Some(regions) = regions else { continue };
            for (walker, x) in of_rung.chunks_exact(d).enumerate() {
                let half = &mut rung.counts[usize::from(2 * walker >= WALKERS)];
                for (set, region) in regions.of_all(x).enumerate() {
                    half[set * regions.regions + region] += 1;
                }
            }
        }
    }
    let summary = simulation.summary();
    let reference = |rung: Rung| {
        let [first, second] = &rung.counts;
        let half = (saves * WALKERS as u64 / 2) as f64;
        let weights = first.iter().zip(second).map(|(a, b)| (a + b) as f64 / (2.0 * half)).collect();
        let apart: f64 = first.iter().zip(second).map(|(a, b)| a.abs_diff(*b) as f64 / half).sum();
        let all = summary.rungs.get(rung.index).map_or(1.0, |r| r.statistical_inefficiency);
        let frames = Frames {
            positions: rung.positions,
            inefficiency: (all / KEPT_EVERY as f64).max(1.0),
            // Two halves differ by twice what all of them differ by from the truth.
            noise: 0.5 * 0.5 * apart,
            halves: [first, second].map(|counts| counts.iter().map(|&count| count as f64 / half).collect()),
        };
        Reference { weights, samples: Samples::Frames(frames), ..Reference::unknown() }
    };
    Ok(rungs.into_iter().map(reference).collect())
}
