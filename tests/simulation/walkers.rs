//! What the tests share.

use boltzflow::energy::analytic::AnalyticPotential;
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::simulate::{Frames, Method, Phase, Simulation, SimulationPlan, Temperatures};

pub fn analytic(name: &str) -> System {
    System::build(SystemDefinition::Analytic(AnalyticPotential::built_in(name).unwrap())).unwrap()
}

pub fn molecule(name: &str) -> (System, String) {
    let read = |file: &str| {
        std::fs::read_to_string(format!("{}/tests/data/openmm/{name}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let system_xml = read("system.xml");
    let topology_pdb = Some(read("topology.pdb"));
    let system = System::build(SystemDefinition::OpenMm { system_xml: system_xml.clone(), topology_pdb }).unwrap();
    (system, system_xml)
}

pub fn plan(method: Method, temperatures: &[f64], walkers: usize) -> SimulationPlan {
    SimulationPlan {
        method,
        temperatures: Temperatures::List(temperatures.to_vec()),
        walkers,
        equilibration_steps: 100,
        production_steps: 1000,
        save_stride: 10,
        exchange_stride: 0,
        seed: 7,
    }
}

/// Runs to the end, and shows every frame.
pub fn finish(simulation: &mut Simulation, mut each: impl FnMut(&Frames)) {
    loop {
        let progress = simulation.advance().unwrap();
        if let Some(frames) = &progress.frames {
            each(frames);
        }
        if progress.phase == Phase::Finished {
            return;
        }
    }
}

/// Means over time of a function of a configuration and its energy, for each temperature and walker.
pub struct WalkerMeans {
    temperatures: usize,
    sums: Vec<f64>,
    frames: f64,
}

impl WalkerMeans {
    pub fn new(temperatures: usize) -> Self {
        Self { temperatures, sums: Vec::new(), frames: 0.0 }
    }

    pub fn add(&mut self, frames: &Frames, f: impl Fn(&[f64], f64) -> f64) {
        let rows = frames.energies.len();
        self.sums.resize(rows, 0.0);
        let d = frames.positions.len() / rows;
        for ((sum, x), u) in self.sums.iter_mut().zip(frames.positions.chunks(d)).zip(&frames.energies) {
            *sum += f(x, *u);
        }
        self.frames += 1.0;
    }

    /// Mean at a temperature and its standard error, by the scatter of independent walkers.
    pub fn estimate(&self, temperature: usize) -> (f64, f64) {
        let walkers = self.sums.len() / self.temperatures;
        let means = &self.sums[temperature * walkers..(temperature + 1) * walkers];
        let means: Vec<f64> = means.iter().map(|s| s / self.frames).collect();
        let n = walkers as f64;
        let mean = means.iter().sum::<f64>() / n;
        let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, (variance / n).sqrt())
    }

    /// That an estimate is within five standard errors of what it should be (false alarms below 1e-5 for 64 walkers or
    /// more), and that these are small enough to mean something.
    pub fn expect(&self, what: &str, temperature: usize, exact: f64, precision: f64) {
        let (mean, error) = self.estimate(temperature);
        println!("{what}: {mean:.5} ± {error:.5}, exact {exact:.5}");
        assert!(error < precision, "{what}: the error {error} is not below {precision}");
        assert!((mean - exact).abs() < 5.0 * error, "{what}: {mean} ± {error}, not {exact}");
    }
}
