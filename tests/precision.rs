//! A conditioner may be rounded as one likes: the weights stay exact, as long as both directions round alike.

use boltzflow::energy::analytic::{AnalyticPotential, ManyWell};
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::flow::{
    ConditionerSpec, CoordinateKind, CouplingSpec, Direction, Flow, FlowSpec, LatentAddress, LayerSpec, Precision,
    Prior, Tau,
};
use boltzflow::math::{Purpose, Randoms, log_sum_exp};
use candle_core::{DType, Device, Tensor};

const D: usize = 4;

/// Couplings that are far from the identity, behind a layer that spreads them over the wells.
fn flow(precision: Precision) -> Flow {
    let conditioner = ConditionerSpec {
        kind: Default::default(),
        hidden: vec![48, 48],
        activation: Default::default(),
        tokens: None,
    };
    let half = |odd: usize| CouplingSpec { transformed: vec![odd, odd + 2], conditioner: conditioner.clone() };
    let layers = vec![
        LayerSpec::Affine { coupling: half(0), bound: 1.0 },
        LayerSpec::Spline { coupling: half(1), bins: 8, bound: 4.0 },
        LayerSpec::Affine { coupling: half(1), bound: 1.0 },
        LayerSpec::Spline { coupling: half(0), bins: 8, bound: 4.0 },
        LayerSpec::GlobalAffine,
    ];
    let kinds = vec![CoordinateKind::Real; D];
    let spec = FlowSpec { prior: Prior::natural(&kinds), coordinates: kinds, layers, temperatures: None };
    let (_, weights) = Flow::initialise(spec.clone(), 1, DType::F32, &Device::Cpu).unwrap();
    let weights = weights.values().unwrap().into_iter().enumerate().map(|(i, (name, old))| {
        let mut random = Randoms::new(3, Purpose::Validation, i as u64);
        let values: Vec<f32> = match name.as_str() {
            "layers.4.log_scale" => vec![0.45, 0.1, 0.45, 0.1],
            _ => (0..old.elem_count()).map(|_| (0.09 * random.normal()) as f32).collect(),
        };
        let tensor = Tensor::from_vec(values, old.shape(), &Device::Cpu).unwrap();
        (name, tensor)
    });
    Flow::from_weights(spec, weights.collect(), DType::F32, &Device::Cpu).unwrap().with_precision(precision)
}

fn addresses(n: u64) -> Vec<LatentAddress> {
    (0..n).map(|index| LatentAddress { seed: 11, purpose: Purpose::Sample, index, tau: 1.0 }).collect()
}

/// log Z of two wells: of the quartic by quadrature, of the Gaussian in closed form.
fn exact_log_z() -> f64 {
    let n = 200_000;
    let terms: Vec<f64> = (0..n)
        .map(|i| {
            let x = -6.0 + 12.0 * (f64::from(i) + 0.5) / f64::from(n);
            -(x.powi(4) - 6.0 * x * x - 0.5 * x)
        })
        .collect();
    let quartic = log_sum_exp(&terms) + (12.0 / f64::from(n)).ln();
    2.0 * (quartic + 0.5 * (2.0 * std::f64::consts::PI).ln())
}

/// E[w]/Z = 1 at four standard errors, an alarm in 16,000 by chance alone. Rounding changes every sample, and the
/// weights go along.
#[test]
fn weights_of_a_rounded_model_are_exact() {
    let system =
        System::build(SystemDefinition::Analytic(AnalyticPotential::ManyWell(ManyWell { dimension: D }))).unwrap();
    let n = 1_000_000;
    let draw = |precision| flow(precision).draw(&addresses(n)).unwrap();
    let (full, rounded) = (draw(Precision::Full), draw(Precision::Bf16));
    let moved: f64 = full.coordinates.iter().zip(&rounded.coordinates).map(|(a, b)| (a - b).abs()).sum();
    let moved = moved / full.coordinates.len() as f64;
    assert!(moved > 1e-4, "bf16 moved coordinates by {moved:e} only: was it used?");
    for (name, draws) in [("f32", full), ("bf16", rounded)] {
        let mut energies = vec![0.0; n as usize];
        system.potential().evaluate(&draws.coordinates, &mut energies, None).unwrap();
        let log_w: Vec<f64> = energies.iter().zip(&draws.log_probs).map(|(u, p)| -u - p).collect();
        let log_mean = log_sum_exp(&log_w) - (n as f64).ln();
        let relative: f64 = log_w.iter().map(|w| ((w - log_mean).exp() - 1.0).powi(2)).sum::<f64>() / n as f64;
        let error = (relative / n as f64).sqrt();
        let gap = log_mean - exact_log_z();
        println!("{name}: log Z is off by {gap:.5}, standard error {error:.5}");
        assert!(error < 0.02 && gap.abs() < 4.0 * error, "{name}: log Z is off by {gap} with standard error {error}");
    }
}

/// The inverse finds the latent and ladj of a rounded model again, to rounding in f64: not to that of bf16. A coordinate
/// that comes back an ulp off may round to another bf16 once in a long while.
#[test]
fn both_directions_round_alike() {
    for precision in [Precision::Full, Precision::Bf16] {
        let flow = flow(precision);
        let draws = flow.draw(&addresses(4096)).unwrap();
        let (latents, ladj) = flow.apply_rows(&draws.coordinates, Tau::REFERENCE, Direction::Inverse).unwrap();
        let mut gaps: Vec<f64> = latents
            .chunks(D)
            .zip(&ladj)
            .zip(&draws.log_probs)
            .map(|((z, ladj), log_prob)| (flow.prior().log_prob(z, 1.0) + ladj - log_prob).abs())
            .collect();
        gaps.sort_by(f64::total_cmp);
        let almost_all = gaps[gaps.len() - 5];
        assert!(almost_all < 1e-9, "{precision:?}: log p differs by {almost_all:e} between the directions");
    }
}
