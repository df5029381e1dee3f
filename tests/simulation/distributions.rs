//! That the methods sample the distributions that they claim to. Seeds are fixed; every bound is five standard errors of
//! independent walkers, so that another seed would fail one comparison in 100,000 or fewer.

use crate::walkers::{WalkerMeans, analytic, finish, plan};
use boltzflow::energy::analytic::{AnalyticPotential, Harmonic};
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::simulate::{Method, Simulation, SimulationPlan, Temperatures};

/// (p(x > saddle), ⟨u⟩) of the built-in double well at a temperature, by quadrature.
fn exact_double_well(temperature: f64) -> (f64, f64) {
    let (n, low, high) = (400_000, -5.0, 5.0);
    let (mut z, mut right, mut energy) = (0.0, 0.0, 0.0);
    for i in 0..n {
        let x = low + (high - low) * (f64::from(i) + 0.5) / f64::from(n);
        let u = x.powi(4) - 6.0 * x * x + x;
        let w = (-(u + 10.0) / temperature).exp();
        z += w;
        energy += w * u;
        right += if x > 0.083_527_59 { w } else { 0.0 };
    }
    (right / z, energy / z + 0.5 * temperature)
}

fn is_right(x: &[f64], _: f64) -> f64 {
    f64::from(x[0] > 0.083_527_59)
}

const BOTH_WELLS: [f64; 4] = [-1.77, 0.0, 1.69, 0.0];

#[test]
fn the_quadrature_has_the_published_values() {
    assert!((exact_double_well(1.0).0 - 0.032_926_21).abs() < 1e-7);
    assert!((exact_double_well(2.0).0 - 0.163_358_66).abs() < 1e-7);
    assert!((exact_double_well(1.0).1 + 9.615_144).abs() < 1e-5);
}

/// BAOAB samples the positions of harmonic oscillators exactly, however large its timestep: here up to ω·dt = 1.8. And
/// velocities of half steps have the exact temperature.
#[test]
fn positions_of_oscillators_are_exact_at_large_timesteps() {
    let stiffness = vec![1.0, 4.0, 9.0];
    let harmonic = AnalyticPotential::Harmonic(Harmonic { centre: vec![0.5; 3], stiffness: stiffness.clone() });
    let system = System::build(SystemDefinition::Analytic(harmonic)).unwrap();
    let method = Method::Langevin { timestep_ps: 0.6, friction_per_ps: 0.5 };
    let mut plan = plan(method, &[2.0], 256);
    (plan.production_steps, plan.save_stride) = (20_000, 5);
    let mut simulation = Simulation::new(plan, system, &[0.5; 3]).unwrap();
    let mut variances: Vec<_> = stiffness.iter().map(|_| WalkerMeans::new(1)).collect();
    finish(&mut simulation, |frames| {
        for (i, variance) in variances.iter_mut().enumerate() {
            variance.add(frames, |x, _| (x[i] - 0.5) * (x[i] - 0.5));
        }
    });
    for (i, k) in stiffness.iter().enumerate() {
        variances[i].expect(&format!("variance at stiffness {k}"), 0, 2.0 / k, 0.005 * 2.0 / k);
    }
    let kinetic = simulation.summary().rungs[0].kinetic_temperature.unwrap();
    assert!((kinetic / 2.0 - 1.0).abs() < 0.005, "kinetic temperature {kinetic}");
}

fn double_well(method: Method, temperature: f64, steps: u64, stride: u64) -> (WalkerMeans, WalkerMeans, Simulation) {
    let mut plan = plan(method, &[temperature], 512);
    (plan.equilibration_steps, plan.production_steps, plan.save_stride) = (steps / 4, steps, stride);
    let mut simulation = Simulation::new(plan, analytic("double-well"), &BOTH_WELLS).unwrap();
    let (mut right, mut energy) = (WalkerMeans::new(1), WalkerMeans::new(1));
    finish(&mut simulation, |frames| {
        right.add(frames, is_right);
        energy.add(frames, |_, u| u);
    });
    (right, energy, simulation)
}

#[test]
fn langevin_dynamics_fills_both_wells() {
    let method = Method::Langevin { timestep_ps: 0.02, friction_per_ps: 1.0 };
    let (right, energy, simulation) = double_well(method, 2.0, 400_000, 50);
    let (p, u) = exact_double_well(2.0);
    right.expect("p(right)", 0, p, 0.005);
    energy.expect("mean energy", 0, u, 0.05);
    let summary = simulation.summary();
    assert!(summary.drift_per_time.unwrap().abs() < 1e-3, "{:?}", summary.drift_per_time);
}

#[test]
fn hybrid_monte_carlo_fills_both_wells() {
    let method = Method::HybridMonteCarlo { timestep_ps: 0.05, steps: 8, target_acceptance: Some(0.8) };
    let (right, energy, simulation) = double_well(method, 2.0, 40_000, 5);
    let (p, u) = exact_double_well(2.0);
    right.expect("p(right)", 0, p, 0.005);
    energy.expect("mean energy", 0, u, 0.05);
    let rung = &simulation.summary().rungs[0];
    println!("{rung:?}");
    assert!((rung.acceptance.unwrap() - 0.8).abs() < 0.05);
    // A few trajectories from far out diverge, and their counterparts of large weight are too rare to be seen.
    assert!(rung.diverged.unwrap() < 0.01 && rung.mean_error.unwrap() < 1.0);
    assert!((rung.mean_weight.unwrap() - 1.0).abs() < 0.05);
}

#[test]
fn metropolis_monte_carlo_fills_both_wells() {
    let method = Method::Metropolis { step: 0.01, scale_with_temperature: true, target_acceptance: Some(0.4) };
    let (right, energy, simulation) = double_well(method, 2.0, 200_000, 20);
    let (p, u) = exact_double_well(2.0);
    right.expect("p(right)", 0, p, 0.005);
    energy.expect("mean energy", 0, u, 0.05);
    assert!((simulation.summary().rungs[0].acceptance.unwrap() - 0.4).abs() < 0.05);
}

/// With exchanges the lowest temperature has both wells in their proportions too; frames are by temperature, though
/// replicas move through all of them.
#[test]
fn exchanges_keep_the_distribution_of_every_temperature() {
    let methods = [
        Method::Langevin { timestep_ps: 0.02, friction_per_ps: 1.0 },
        Method::HybridMonteCarlo { timestep_ps: 0.1, steps: 8, target_acceptance: None },
        Method::Metropolis { step: 0.5, scale_with_temperature: true, target_acceptance: None },
    ];
    for method in methods {
        let temperatures = [1.0, 1.6, 2.6, 4.2];
        let mut plan = plan(method, &temperatures, 128);
        let factor = if matches!(method, Method::Langevin { .. }) { 10 } else { 1 };
        plan.exchange_stride = factor;
        (plan.equilibration_steps, plan.production_steps) = (4_000 * factor, 40_000 * factor);
        plan.save_stride = 3 * factor;
        let system = analytic("double-well");
        let mut simulation = Simulation::new(plan, system.clone(), &BOTH_WELLS).unwrap();
        let (mut right, mut energy) = (WalkerMeans::new(4), WalkerMeans::new(4));
        let mut seen = vec![[false; 4]; 512];
        finish(&mut simulation, |frames| {
            right.add(frames, is_right);
            energy.add(frames, |_, u| u);
            frames.replicas.iter().enumerate().for_each(|(slot, &row)| seen[row as usize][slot / 128] = true);
        });
        for (k, &temperature) in temperatures.iter().enumerate() {
            let (p, u) = exact_double_well(temperature);
            right.expect(&format!("p(right) at {temperature}"), k, p, 0.005);
            energy.expect(&format!("mean energy at {temperature}"), k, u, 0.05);
        }
        assert!(seen.iter().flatten().all(|seen| *seen), "a replica did not visit all temperatures");
        let summary = simulation.summary();
        assert!(summary.exchanges.iter().all(|e| e.acceptance() > 0.3 && e.attempts > 0));
        assert!(summary.round_trips > 512, "{} round trips", summary.round_trips);
        let frames = simulation.frames();
        let mut energies = vec![0.0; frames.energies.len()];
        system.potential().evaluate(&frames.positions, &mut energies, None).unwrap();
        assert_eq!(energies, frames.energies);
    }
}

/// √(2·⟨ΔH⟩) is the root mean square of ΔH at equilibrium, and goes as dt² for trajectories of one length.
#[test]
fn the_energy_error_of_hybrid_monte_carlo_goes_as_the_timestep_squared() {
    let error = |timestep_ps: f64, steps: u32| {
        let method = Method::HybridMonteCarlo { timestep_ps, steps, target_acceptance: None };
        let mut plan = plan(method, &[1.0], 256);
        plan.production_steps = 2000;
        let start = [-1.71, 0.0].repeat(16);
        let mut simulation = Simulation::new(plan, analytic("many-well-32"), &start).unwrap();
        finish(&mut simulation, |_| {});
        let rung = &simulation.summary().rungs[0];
        println!("{timestep_ps}: {:?} {:?} {:?}", rung.mean_error, rung.mean_weight, rung.acceptance);
        assert!((rung.mean_weight.unwrap() - 1.0).abs() < 0.01);
        (2.0 * rung.mean_error.unwrap()).sqrt()
    };
    let (coarse, fine) = (error(0.04, 10), error(0.02, 20));
    assert!((coarse / fine / 4.0 - 1.0).abs() < 0.1, "{coarse} and {fine}");
}

/// Rungs that a pilot placed exchange as often as it predicted.
#[test]
fn a_pilot_places_the_temperatures() {
    let method = Method::HybridMonteCarlo { timestep_ps: 0.08, steps: 8, target_acceptance: Some(0.75) };
    let plan = SimulationPlan {
        temperatures: Temperatures::Acceptance { low: 1.0, high: 4.0, acceptance: 0.4, pilot_steps: 2000 },
        exchange_stride: 1,
        production_steps: 2000,
        ..plan(method, &[1.0], 64)
    };
    let start = [-1.71, 0.0, 1.75, 0.0].repeat(8);
    let mut simulation = Simulation::new(plan, analytic("many-well-32"), &start).unwrap();
    finish(&mut simulation, |_| {});
    let summary = simulation.summary();
    for pair in &summary.exchanges {
        let predicted = pair.predicted.unwrap();
        println!("{:.3} {:.3}: {predicted:.3} {:.3}", pair.low, pair.high, pair.acceptance());
        assert!((0.4..0.6).contains(&predicted) && (predicted - pair.acceptance()).abs() < 0.05);
    }
    assert_eq!(simulation.temperatures().first(), Some(&1.0));
    assert_eq!(simulation.temperatures().last(), Some(&4.0));
}
