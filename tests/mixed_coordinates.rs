//! A core in whitened Cartesian coordinates beside internal ones: round trips, the volume element, gradients, integrals.

mod coordinate_checks;
mod npz;

use boltzflow::coords::{
    CoordinateChoice, CoordinatesError, CoordinatesSpec, ReducedTarget, choose_coordinates, preview_kinds,
};
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::math::{LogSumExp, Purpose, Randoms};
use boltzflow::train::{Trainer, TrainingData, default_plan};
use candle_core::Device;
use coordinate_checks::{check_gradient, check_round_trip, log_volume, perturbed};

const SKELETON: CoordinateChoice = CoordinateChoice::Mixed { core_atoms: Vec::new() };

fn mixed(core_atoms: &[usize]) -> CoordinateChoice {
    CoordinateChoice::Mixed { core_atoms: core_atoms.to_vec() }
}

/// A molecule, and frames scattered about those of the reference.
fn molecule(case: &str) -> (System, Vec<f64>) {
    let folder = format!("{}/tests/data/openmm/{case}", env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
    let definition =
        SystemDefinition::OpenMm { system_xml: read("system.xml"), topology_pdb: Some(read("topology.pdb")) };
    let reference: Vec<f64> = npz::read(format!("{folder}/reference.npz"), "positions_nm");
    let mut random = Randoms::new(7, Purpose::Validation, 0);
    let frames = reference.repeat(6).into_iter().map(|x| x + 0.002 * random.normal()).collect();
    (System::build(definition).unwrap(), frames)
}

/// Harmonic bonds of (i, j, length) between atoms of one mass, and frames scattered about a structure.
fn springs(start: &[[f64; 3]], bonds: &[(usize, usize)], frames: usize) -> (System, Vec<f64>) {
    let length = |i: usize, j: usize| boltzflow::coords::distance(start[i], start[j]);
    let rows: String = bonds
        .iter()
        .map(|&(i, j)| format!("<Bond p1=\"{i}\" p2=\"{j}\" d=\"{}\" k=\"20000\"/>", length(i, j)))
        .collect();
    let masses = "<Particle mass=\"12\"/>".repeat(start.len());
    let system_xml = format!(
        "<System version=\"1\"><Particles>{masses}</Particles><Constraints/><Forces><Force type=\"HarmonicBondForce\" \
         version=\"2\"><Bonds>{rows}</Bonds></Force></Forces></System>"
    );
    let system = System::build(SystemDefinition::OpenMm { system_xml, topology_pdb: None }).unwrap();
    let mut random = Randoms::new(3, Purpose::Validation, 0);
    let data = (0..frames).flat_map(|_| start.concat()).map(|x| x + 0.006 * random.normal()).collect();
    (system, data)
}

#[test]
fn positions_come_back_with_the_volume_element_of_the_dense_jacobian() {
    let (peptide, frames) = molecule("alanine-dipeptide-obc1");
    // The ring of six atoms, each with one more.
    let corner = |i: usize, r: f64| {
        let angle = i as f64 * std::f64::consts::PI / 3.0;
        [r * angle.cos(), r * angle.sin(), if i.is_multiple_of(2) { 0.02 } else { -0.02 }]
    };
    let start: Vec<[f64; 3]> = (0..6).map(|i| corner(i, 0.14)).chain((0..6).map(|i| corner(i, 0.25))).collect();
    let bonds: Vec<(usize, usize)> = (0..6).map(|i| (i, (i + 1) % 6)).chain((0..6).map(|i| (i, i + 6))).collect();
    let (ring, ring_frames) = springs(&start, &bonds, 40);
    // The second has the five atoms of the rigid block, and pairs of equivalent hydrogens on the rest.
    for (system, x, choice, pairs) in [
        (&peptide, &frames, SKELETON, 3.0),
        (&peptide, &frames, mixed(&[8, 10, 6, 9, 14]), 3.0),
        (&ring, &ring_frames, SKELETON, 0.0),
        (&ring, &ring_frames, mixed(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]), 0.0),
    ] {
        let d = system.dimension();
        let transform = choose_coordinates(system, Some(x), 300.0, &choice).unwrap();
        assert_eq!(transform.kinds().len(), d - 6);
        assert_eq!(preview_kinds(system, true, &choice).unwrap().len(), d - 6);
        assert!(transform.description().contains("whitened Cartesian coordinates"), "{}", transform.description());
        for (i, frame) in x.chunks_exact(d).take(8).enumerate() {
            let y = perturbed(transform.as_ref(), frame, 0.2, i as u64);
            let (ladj, _) = check_round_trip(transform.as_ref(), &y);
            assert!((ladj - pairs * 2f64.ln() - log_volume(transform.as_ref(), &y)).abs() < 1e-6);
        }
        check_gradient(system, &transform, &perturbed(transform.as_ref(), &x[d..2 * d], 0.2, 9));
        let stored: CoordinatesSpec = serde_json::from_str(&serde_json::to_string(&transform.spec()).unwrap()).unwrap();
        assert_eq!(stored.build(d).unwrap().spec(), transform.spec());
    }
}

/// The core moves along the principal axes of the data, each in units of its spread.
#[test]
fn the_core_is_white_in_the_data() {
    let (system, x) = molecule("alanine-dipeptide-obc1");
    let d = system.dimension();
    let transform = choose_coordinates(&system, Some(&x), 300.0, &SKELETON).unwrap();
    let frames = x.len() / d;
    let rows: Vec<Vec<f64>> = x
        .chunks_exact(d)
        .map(|x| {
            let mut y = vec![0.0; d - 6];
            transform.to_coordinates(x, &mut y);
            y
        })
        .collect();
    // Five atoms: C, N, CA, C, N of the backbone.
    for i in 0..9 {
        for j in 0..=i {
            let mean: f64 = rows.iter().map(|y| y[i]).sum::<f64>() / frames as f64;
            let product: f64 = rows.iter().map(|y| y[i] * y[j]).sum::<f64>() / frames as f64;
            assert!(mean.abs() < 1e-6 && (product - f64::from(u8::from(i == j))).abs() < 1e-6, "{i}, {j}: {product}");
        }
    }
}

/// log Z of a centre with four different atoms by importance sampling from a normal distribution in both kinds of
/// coordinates, which both have one of its hands.
#[test]
fn integrals_are_those_of_internal_coordinates() {
    // Of the proposals, in units of the spread of the data, which is less than that of the molecule.
    const SPREAD: f64 = 2.0;
    let start =
        [[0.0, 0.0, 0.0], [0.07, 0.06, 0.05], [-0.06, -0.06, 0.06], [-0.07, 0.055, -0.06], [0.065, -0.06, -0.07]];
    let bonds = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)];
    let (system, x) = springs(&start, &bonds, 400);
    let kt = system.scale().kt(300.0);
    let log_z = |choice: &CoordinateChoice| {
        let transform = choose_coordinates(&system, Some(&x), 300.0, choice).unwrap();
        let target = ReducedTarget::new(system.clone(), transform);
        let mut random = Randoms::new(11, Purpose::Validation, 0);
        let (n, d) = (1_000_000, 9);
        let y: Vec<f64> = (0..n * d).map(|_| SPREAD * random.normal()).collect();
        let batch = target.evaluate(&y).unwrap();
        let log_p = |y: &[f64]| -> f64 {
            y.iter().map(|y| -0.5 * (y / SPREAD).powi(2) - (SPREAD * (2.0 * std::f64::consts::PI).sqrt()).ln()).sum()
        };
        let weights: Vec<f64> =
            (0..n).map(|i| batch.ladj[i] - batch.energies[i] / kt - log_p(&y[d * i..d * (i + 1)])).collect();
        let (mut sum, mut squares) = (LogSumExp::default(), LogSumExp::default());
        weights.iter().for_each(|w| {
            sum.add(*w);
            squares.add(2.0 * w);
        });
        let effective = (2.0 * sum.value() - squares.value()).exp();
        (sum.value() - (n as f64).ln(), (1.0 / effective - 1.0 / n as f64).sqrt())
    };
    let internal = log_z(&CoordinateChoice::Automatic);
    let mixed = log_z(&SKELETON);
    let error = internal.1.hypot(mixed.1);
    // Four standard errors: a false alarm in 16,000 seeds.
    assert!(error < 0.02 && (internal.0 - mixed.0).abs() < 4.0 * error, "{internal:?} and {mixed:?}");
}

/// Two molecules have no internal coordinates in common; a core with atoms of both has.
#[test]
fn several_molecules_share_a_core() {
    let water = |x: f64| [[x, 0.0, 0.0], [x + 0.06, 0.076, 0.0], [x - 0.06, 0.02, 0.074]];
    let start: Vec<[f64; 3]> = water(0.0).into_iter().chain(water(0.35)).collect();
    let (system, x) = springs(&start, &[(0, 1), (0, 2), (3, 4), (3, 5)], 60);
    let error = choose_coordinates(&system, Some(&x), 300.0, &CoordinateChoice::Automatic).unwrap_err().to_string();
    assert!(error.contains("not connected") && error.contains("mixed"), "{error}");
    for choice in [SKELETON, mixed(&[0, 1, 3])] {
        let transform = choose_coordinates(&system, Some(&x), 300.0, &choice).unwrap();
        let y = perturbed(transform.as_ref(), &x[..18], 0.2, 1);
        let mut placed = vec![0.0; 18];
        let ladj = transform.to_positions(&y, &mut placed);
        assert!((ladj - log_volume(transform.as_ref(), &y)).abs() < 1e-6);
    }
}

#[test]
fn there_is_one_hand_and_constraints_hold() {
    let (system, x) = molecule("alanine-dipeptide-obc1");
    let d = system.dimension();
    // The alpha carbon, and three of its neighbours, or two.
    for core in [vec![6, 8, 10, 14], vec![4, 6, 8, 14, 16]] {
        let transform = choose_coordinates(&system, Some(&x), 300.0, &mixed(&core)).unwrap();
        let reflected: Vec<f64> = x[..d].chunks(3).flat_map(|p| [-p[0], p[1], p[2]]).collect();
        let (mut y, mut placed) = (vec![0.0; d - 6], vec![0.0; d]);
        transform.to_coordinates(&x[..d], &mut y);
        assert!(transform.to_positions(&y, &mut placed).is_finite());
        transform.to_coordinates(&reflected, &mut y);
        assert_eq!(transform.to_positions(&y, &mut placed), f64::NEG_INFINITY);
        // Far from where superposing means anything.
        y[..3].fill(1e4);
        assert_eq!(transform.to_positions(&y, &mut placed), f64::NEG_INFINITY);
    }

    let (system, x) = molecule("ace-aaa-nme-hbonds");
    let d = system.dimension();
    let transform = choose_coordinates(&system, Some(&x), 300.0, &mixed(&[4, 6, 8, 12])).unwrap();
    assert_eq!(transform.kinds().len(), d - 6 - system.constraints().len());
    let y = perturbed(transform.as_ref(), &x[..d], 0.2, 2);
    let mut placed = vec![0.0; d];
    assert!(transform.to_positions(&y, &mut placed).is_finite());
    let at = |atom: usize| [placed[3 * atom], placed[3 * atom + 1], placed[3 * atom + 2]];
    for c in system.constraints() {
        assert!((boltzflow::coords::distance(at(c.i), at(c.j)) - c.distance).abs() < 1e-9);
    }
}

/// A run that is taken up again has the coordinates that it began with, and goes on with the same bits.
#[test]
fn a_run_keeps_its_coordinates() {
    let (system, positions) = molecule("alanine-dipeptide-obc1");
    let mut plan = default_plan(&system, 300.0, None, true);
    plan.coordinates = SKELETON;
    (plan.architecture.couplings, plan.architecture.hidden) = (2, vec![16]);
    plan.stages.iter_mut().for_each(|stage| stage.batch = 16);
    let data =
        || Some(TrainingData { positions: positions.clone(), temperatures: Vec::new(), digest: "frames".into() });
    let mut run = Trainer::new(plan.clone(), system.clone(), data(), &Device::Cpu).unwrap();
    run.step().unwrap();
    let bytes = run.checkpoint().unwrap();
    let mut resumed = Trainer::resume(plan, system, data(), &bytes, &Device::Cpu).unwrap();
    assert_eq!(resumed.target().coordinates().spec(), run.target().coordinates().spec());
    for trainer in [&mut run, &mut resumed] {
        trainer.step().unwrap();
    }
    assert!(run.checkpoint().unwrap() == resumed.checkpoint().unwrap());
}

#[test]
fn what_cannot_be_a_core_is_refused_with_the_reason() {
    let (system, x) = molecule("alanine-dipeptide-obc1");
    let refused =
        |data: Option<&[f64]>, choice: &CoordinateChoice| match choose_coordinates(&system, data, 300.0, choice) {
            Err(CoordinatesError::Unsuitable(reason)) => reason,
            other => panic!("{other:?}"),
        };
    for (core, reason) in [
        (vec![6, 8], "has 2 atoms; it must have from 3 to 256"),
        (vec![6, 8, 22], "has 22; the system has 22 atoms"),
        (vec![6, 8, 14, 8], "has 8 twice"),
    ] {
        let message = refused(Some(&x), &mixed(&core));
        assert!(message.contains(reason), "{message}");
        assert_eq!(preview_kinds(&system, true, &mixed(&core)).unwrap_err().to_string(), message);
    }
    assert!(refused(None, &SKELETON).contains("name a dataset"));
    assert!(refused(Some(&x[..66 * 9]), &SKELETON).contains("needs more than 9 frames; the dataset has 9"));
    assert!(refused(Some(&x[..66].repeat(20)), &SKELETON).contains("the dataset never moves"));

    let (hbonds, frames) = molecule("ace-aaa-nme-hbonds");
    let error = choose_coordinates(&hbonds, Some(&frames), 300.0, &mixed(&[4, 6, 7, 8])).unwrap_err().to_string();
    assert!(error.contains("between atoms 6 and 7 is within the core"), "{error}");

    let double_well = System::build(SystemDefinition::Analytic(
        boltzflow::energy::analytic::AnalyticPotential::built_in("double-well").unwrap(),
    ))
    .unwrap();
    let error = choose_coordinates(&double_well, None, 1.0, &SKELETON).unwrap_err().to_string();
    assert!(error.contains("mixed coordinates are for molecules"), "{error}");

    // A stored core that is not orthonormal would have another volume element than it says.
    let transform = choose_coordinates(&system, Some(&x), 300.0, &SKELETON).unwrap();
    let mut stored = serde_json::to_value(transform.spec()).unwrap();
    let first = &mut stored["internal"]["core"]["directions"][0];
    *first = (first.as_f64().unwrap() + 1e-3).into();
    let spec: CoordinatesSpec = serde_json::from_value(stored).unwrap();
    assert!(spec.build(66).unwrap_err().to_string().contains("do not fit"));
    // And one whose structure is not about its centre.
    let mut stored = serde_json::to_value(transform.spec()).unwrap();
    for x in stored["internal"]["core"]["centre"].as_array_mut().unwrap().iter_mut().step_by(3) {
        *x = (x.as_f64().unwrap() + 1.0).into();
    }
    let spec: CoordinatesSpec = serde_json::from_value(stored).unwrap();
    assert!(spec.build(66).unwrap_err().to_string().contains("do not fit"));
}
