//! Criterion benches of what flows and energies are made of: `cargo bench`. For figures to compare with others', use
//! `boltzflow bench`.

use boltzflow::compute::bias_activation::Activation;
use boltzflow::energy::analytic::{AnalyticPotential, Harmonic};
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::flow::{Architecture, ArchitectureKind, CoordinateKind, Direction, Flow, Tau};
use boltzflow::math::{Purpose, Randoms};
use boltzflow::train::{AdamSettings, Budget, EnergyCut, Ramp, Replay, Stage, Trainer, TrainingPlan, Validation};
use candle_core::{DType, Device};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const D: usize = 60;
const ROWS: usize = 1024;

fn architectures() -> [(&'static str, Architecture); 2] {
    let architecture = |kind, couplings, width| Architecture {
        conditioner: Default::default(),
        mixing: Default::default(),
        kind,
        couplings,
        hidden: vec![width; 2],
        activation: Activation::Relu,
        bins: 8,
        spline_bound: 5.0,
        log_scale_bound: 1.0,
        tolerance: 1e-5,
        auxiliary: 0,
    };
    [
        ("realnvp-60", architecture(ArchitectureKind::RealNvp, 8, 128)),
        ("spline-60", architecture(ArchitectureKind::Spline, 12, 256)),
    ]
}

fn normals(n: usize) -> Vec<f64> {
    let mut random = Randoms::new(0, Purpose::Validation, 0);
    (0..n).map(|_| random.normal()).collect()
}

fn flows(c: &mut Criterion) {
    for (name, architecture) in architectures() {
        let spec = architecture.expand(&[CoordinateKind::Real; D], None, None, 0).unwrap();
        let (_, weights) = Flow::initialise(spec.clone(), 0, DType::F32, &Device::Cpu).unwrap();
        let weights = weights.values().unwrap().into_iter().collect();
        let flow = Flow::from_weights(spec, weights, DType::F32, &Device::Cpu).unwrap();
        let input = normals(ROWS * D);
        let mut group = c.benchmark_group(name);
        group.sample_size(20).throughput(Throughput::Elements(ROWS as u64));
        for direction in [Direction::Forward, Direction::Inverse] {
            let label = format!("{direction:?}").to_lowercase();
            group.bench_function(label, |b| {
                b.iter(|| flow.apply_rows(black_box(&input), Tau::REFERENCE, direction).unwrap())
            });
        }
        let harmonic = Harmonic { stiffness: vec![1.0; D], centre: vec![0.0; D] };
        let system = System::build(SystemDefinition::Analytic(AnalyticPotential::Harmonic(harmonic))).unwrap();
        let mut trainer = Trainer::new(plan(architecture), system, None, &Device::Cpu).unwrap();
        group.bench_function("step of training", |b| b.iter(|| trainer.step().unwrap()));
        group.finish();
    }
}

fn plan(architecture: Architecture) -> TrainingPlan {
    TrainingPlan {
        temperature: 1.0,
        temperature_range: None,
        seed: 0,
        coordinates: boltzflow::coords::CoordinateChoice::Automatic,
        architecture,
        stages: vec![Stage {
            steps: 1_000_000_000,
            batch: ROWS,
            maximum_likelihood: Ramp::constant(0.0),
            flow_matching: Ramp::constant(0.0),
            own_samples: Ramp::constant(0.0),
            log_variance: Ramp::constant(0.0),
            temperature_gradient: Ramp::constant(0.0),
            coordinate_entropy: Ramp::constant(0.0),
            replay: Replay::default(),
            reverse_kl: Ramp::constant(1.0),
            temperature_factor: Ramp::constant(1.0),
            learning_rate: Ramp::constant(1e-4),
        }],
        adam: AdamSettings::default(),
        weight_average: None,
        patience: None,
        gradient_clip: 10.0,
        energy_cut: EnergyCut { high: 1e6, max: 1e12 },
        budget: Budget::default(),
        validation: Validation { every: 1, samples: 512 },
        checkpoint_every: 1,
        collective_variable: None,
    }
}

fn energies(c: &mut Criterion) {
    let system_xml = include_str!("../examples/alanine-dipeptide/system.xml").to_string();
    let topology_pdb = Some(include_str!("../examples/alanine-dipeptide/topology.pdb").to_string());
    let molecule = System::build(SystemDefinition::OpenMm { system_xml, topology_pdb }).unwrap();
    let structure = molecule.topology().unwrap().positions.clone();
    let many_well = AnalyticPotential::built_in("many-well-32").unwrap();
    let many_well = System::build(SystemDefinition::Analytic(many_well)).unwrap();
    let mut group = c.benchmark_group("energies and forces");
    group.sample_size(20).throughput(Throughput::Elements(ROWS as u64));
    let molecules = structure.repeat(ROWS);
    for (name, system, x) in
        [("alanine dipeptide", molecule, molecules), ("many-well-32", many_well, normals(ROWS * 32))]
    {
        let (mut energies, mut gradients) = (vec![0.0; ROWS], vec![0.0; x.len()]);
        group.bench_function(name, |b| {
            b.iter(|| system.potential().evaluate(black_box(&x), &mut energies, Some(&mut gradients)).unwrap());
        });
    }
    group.finish();
}

criterion_group!(kernels, flows, energies);
criterion_main!(kernels);
