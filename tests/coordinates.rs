//! Internal coordinates of real molecules: round trips, the volume element, and gradients.

mod coordinate_checks;
mod npz;

use boltzflow::coords::{
    CoordinateChoice, CoordinateKind, CoordinateTransform, CoordinatesSpec, InternalCoordinates, InternalQuantity,
    ReducedTarget, choose_coordinates, dihedral,
};
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::math::{Purpose, Randoms};
use coordinate_checks::{check_gradient, check_round_trip, log_volume, perturbed};

fn molecule(case: &str) -> (System, Vec<f64>) {
    let folder = format!("{}/tests/data/openmm/{case}", env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
    let definition =
        SystemDefinition::OpenMm { system_xml: read("system.xml"), topology_pdb: Some(read("topology.pdb")) };
    let positions = npz::read(format!("{folder}/reference.npz"), "positions_nm");
    (System::build(definition).unwrap(), positions)
}

#[test]
fn positions_come_back_and_jacobians_cancel() {
    for case in ["alanine-dipeptide-obc1", "ace-aaa-nme", "ace-aaa-nme-hbonds"] {
        let (system, x) = molecule(case);
        let d = system.dimension();
        let transform = choose_coordinates(&system, None, 300.0, &CoordinateChoice::Automatic).unwrap();
        assert_eq!(transform.kinds().len(), d - 6 - system.constraints().len());
        for (i, x) in x.chunks_exact(d).enumerate() {
            let y = perturbed(transform.as_ref(), x, 0.3, i as u64);
            let (_, back) = check_round_trip(transform.as_ref(), &y);
            // The same molecule up to a rigid motion has the same energy.
            let (mut y, mut again, mut energies) = (back, vec![0.0; d], [0.0, 0.0]);
            transform.to_coordinates(x, &mut y);
            transform.to_positions(&y, &mut again);
            system.potential().evaluate(x, &mut energies[..1], None).unwrap();
            system.potential().evaluate(&again, &mut energies[1..], None).unwrap();
            // OpenMM holds constraints to a millionth of their length.
            let allowed = if system.constraints().is_empty() { 1e-7 } else { 1e-3 };
            assert!((energies[0] - energies[1]).abs() < allowed, "{case}: energies {energies:?}");
        }
    }
}

/// Frames of the other hand, which coordinates map to numbers all the same, are not what a model can make; rigid motions are.
#[test]
fn the_other_hand_is_outside_of_the_domain() {
    let (system, x) = molecule("alanine-dipeptide-obc1");
    let d = system.dimension();
    let transform = choose_coordinates(&system, None, 300.0, &CoordinateChoice::Automatic).unwrap();
    let target = ReducedTarget::new(system, transform);
    let makes = |x: &[f64]| {
        let (y, ladj) = target.to_coordinates(x);
        ladj[0].is_finite() && target.has_density(&y)[0]
    };
    for x in x.chunks_exact(d) {
        let turned: Vec<f64> = x.chunks_exact(3).flat_map(|r| [1.0 - r[1], r[0] + 2.0, r[2]]).collect();
        let mirrored: Vec<f64> = x.chunks_exact(3).flat_map(|r| [r[0], r[1], -r[2]]).collect();
        assert!(makes(x) && makes(&turned) && !makes(&mirrored));
    }
    assert!(!makes(&vec![0.0; d]));
}

/// Beside six rigid motions the determinant is Π r² sin θ times the scales.
#[test]
fn ladj_is_that_of_the_dense_jacobian() {
    let (system, x) = molecule("alanine-dipeptide-obc1");
    let d = system.dimension();
    let transform = choose_coordinates(&system, None, 300.0, &CoordinateChoice::Automatic).unwrap();
    let y = perturbed(transform.as_ref(), &x[..d], 0.3, 5);
    let ladj = transform.to_positions(&y, &mut vec![0.0; d]);
    // Two hydrogens of each of three methyl groups have one order, which stands for both.
    assert!((ladj - 3.0 * 2f64.ln() - log_volume(transform.as_ref(), &y)).abs() < 1e-6);
}

/// The hydrogens of a methyl group are told apart by their numbers only: two exchanged are the same sample. Data in which
/// they have both orders are put into one.
#[test]
fn equivalent_atoms_have_one_order() {
    let (system, x) = molecule("alanine-dipeptide-obc1");
    let d = system.dimension();
    let exchanged = |x: &[f64]| {
        let mut x = x.to_vec();
        for (a, b) in [(2, 3), (12, 13), (20, 21)] {
            (0..3).for_each(|k| x.swap(3 * a + k, 3 * b + k));
        }
        x
    };
    let (one, others) = x.split_at(x.len() / d / 2 * d);
    let mixed = [one, &others.chunks_exact(d).flat_map(exchanged).collect::<Vec<_>>()].concat();
    let transform = choose_coordinates(&system, Some(&x), 300.0, &CoordinateChoice::Automatic).unwrap();
    assert!(transform.description().contains("3 pairs of equivalent atoms"), "{}", transform.description());
    assert_eq!(
        choose_coordinates(&system, Some(&mixed), 300.0, &CoordinateChoice::Automatic).unwrap().spec(),
        transform.spec()
    );
    let y_of = |x: &[f64]| {
        let mut y = vec![0.0; transform.kinds().len()];
        let ladj = transform.to_coordinates(x, &mut y);
        (y, ladj)
    };
    for x in x.chunks_exact(d) {
        assert_eq!(y_of(x), y_of(&exchanged(x)));
    }
}

/// Atoms that two equal bonds hold, and one force that tells them apart when it is stretched.
#[test]
fn what_differs_far_from_the_structure_is_not_equivalent() {
    let x: Vec<f64> = [
        [0.0, 0.0, 0.0],
        [0.15, 0.0, 0.0],
        [0.19, 0.14, 0.0],
        [-0.036, 0.0515, 0.0892],
        [-0.036, 0.0515, -0.0892],
        [-0.036, -0.103, 0.0],
        [0.33, 0.15, 0.03],
    ]
    .concat();
    let build = |force: &str| {
        let bonds = [(0, 1, 0.15), (1, 2, 0.145), (0, 3, 0.109), (0, 4, 0.109), (0, 5, 0.109), (2, 6, 0.145)];
        let rows: String =
            bonds.iter().map(|(i, j, d)| format!("<Bond p1=\"{i}\" p2=\"{j}\" d=\"{d}\" k=\"200000\"/>")).collect();
        let masses = [12, 12, 12, 2, 1, 1, 12].map(|m| format!("<Particle mass=\"{m}\"/>")).concat();
        let system_xml = format!(
            "<System version=\"1\"><Particles>{masses}</Particles><Constraints/><Forces><Force type=\"HarmonicBondForce\" \
             version=\"2\"><Bonds>{rows}</Bonds></Force>{force}</Forces></System>"
        );
        System::build(SystemDefinition::OpenMm { system_xml, topology_pdb: None }).unwrap()
    };
    let data: Vec<f64> = [&x, &x].into_iter().flatten().enumerate().map(|(k, x)| x + 1e-3 * (k as f64).sin()).collect();
    let description = |force: &str, data: &[f64]| {
        let transform = choose_coordinates(&build(force), Some(data), 300.0, &CoordinateChoice::Automatic).unwrap();
        (transform.description(), transform)
    };
    let flat = "<Force type=\"CustomBondForce\" version=\"3\" energy=\"500*step(r-0.12)*(r-0.12)^2\"><PerBondParameters/>\
                <GlobalParameters/><Bonds><Bond p1=\"0\" p2=\"4\"/></Bonds></Force>";
    assert!(description("", &data).0.contains("1 pairs of equivalent atoms"));
    assert!(!description(flat, &data).0.contains("equivalent atoms"));

    // A frame in which the two are on one side: neither order is theirs, and both may be anywhere.
    let mut odd = x.clone();
    odd[15..18].copy_from_slice(&[-0.036, 0.0968, -0.0352]);
    let frames = [data.clone(), odd].concat();
    let (text, transform) = description("", &frames);
    assert!(!text.contains("equivalent atoms"), "{text}");
    let (mut y, mut placed) = (vec![0.0; 15], vec![0.0; 21]);
    let mut exchanged = x.clone();
    (12..15).for_each(|k| exchanged.swap(k, k + 3));
    for frame in frames.chunks_exact(21).chain([exchanged.as_slice()]) {
        transform.to_coordinates(frame, &mut y);
        assert!(transform.to_positions(&y, &mut placed).is_finite());
    }
}

/// Bonds by an expression, and a spring that makes two molecules one. A correction between atoms that bonds connect is no
/// bond.
#[test]
fn bonds_may_be_written_as_expressions() {
    let start =
        [[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.13, 0.09, 0.0], [0.3, 0.0, 0.05], [0.4, 0.0, 0.0], [0.43, 0.09, 0.02]];
    let bonds = |pairs: &[(usize, usize)]| -> String {
        pairs.iter().map(|(i, j)| format!("<Bond p1=\"{i}\" p2=\"{j}\" d=\"0.1\" k=\"2e4\"/>")).collect()
    };
    let build = |harmonic: &[(usize, usize)], expressions: &[(usize, usize)]| {
        let masses = "<Particle mass=\"12\"/>".repeat(6);
        let system_xml = format!(
            "<System version=\"1\"><Particles>{masses}</Particles><Constraints/><Forces><Force type=\"HarmonicBondForce\" \
             version=\"2\"><Bonds>{}</Bonds></Force><Force type=\"CustomBondForce\" version=\"3\" \
             energy=\"400*(1-exp(-20*(r-0.1)))^2\"><PerBondParameters/><GlobalParameters/><Bonds>{}</Bonds></Force></Forces>\
             </System>",
            bonds(harmonic),
            bonds(expressions),
        );
        System::build(SystemDefinition::OpenMm { system_xml, topology_pdb: None }).unwrap()
    };
    let mut random = Randoms::new(4, Purpose::Validation, 0);
    let data: Vec<f64> = (0..9).flat_map(|_| start.concat()).map(|x| x + 0.003 * random.normal()).collect();
    let chain = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)];
    for system in [build(&[], &chain), build(&[(0, 1), (1, 2), (3, 4), (4, 5)], &[(2, 3)])] {
        assert_eq!(system.bonds(), chain);
        let transform = choose_coordinates(&system, Some(&data), 300.0, &CoordinateChoice::Automatic).unwrap();
        assert_eq!(transform.kinds().len(), 12);
    }
    assert_eq!(build(&chain, &[(0, 3), (1, 4)]).bonds(), chain);
}

/// Five atoms on a centre have no order of two to be made in; the molecule has coordinates all the same.
#[test]
fn five_equal_atoms_on_one_centre() {
    let start: [[f64; 3]; 6] = [
        [0.0, 0.0, 0.0],
        [0.15, 0.0, 0.0],
        [-0.075, 0.13, 0.0],
        [-0.075, -0.13, 0.0],
        [0.0, 0.0, 0.15],
        [0.0, 0.0, -0.15],
    ];
    let rows: String = (1..6).map(|j| format!("<Bond p1=\"0\" p2=\"{j}\" d=\"0.15\" k=\"200000\"/>")).collect();
    let masses = "<Particle mass=\"31\"/>".to_string() + &"<Particle mass=\"19\"/>".repeat(5);
    let system_xml = format!(
        "<System version=\"1\"><Particles>{masses}</Particles><Constraints/><Forces><Force type=\"HarmonicBondForce\" \
         version=\"2\"><Bonds>{rows}</Bonds></Force></Forces></System>"
    );
    let system = System::build(SystemDefinition::OpenMm { system_xml, topology_pdb: None }).unwrap();
    let mut random = Randoms::new(2, Purpose::Validation, 0);
    let data: Vec<f64> = (0..40).flat_map(|_| start.concat()).map(|x| x + 0.003 * random.normal()).collect();
    let transform = choose_coordinates(&system, Some(&data), 300.0, &CoordinateChoice::Automatic).unwrap();
    let (mut y, mut placed) = (vec![0.0; 12], vec![0.0; 18]);
    for frame in data.chunks_exact(18) {
        let ladj = transform.to_coordinates(frame, &mut y);
        assert!((transform.to_positions(&y, &mut placed) - ladj).abs() < 1e-9);
    }
}

/// Bonds to hydrogens that are held at their lengths, and the angles of rigid water.
#[test]
fn constraints_hold_whatever_the_flow_makes() {
    let (system, x) = molecule("ace-aaa-nme-hbonds");
    let transform = choose_coordinates(&system, Some(&x), 300.0, &CoordinateChoice::Automatic).unwrap();
    assert!(transform.description().contains("22 more are fixed by constraints"), "{}", transform.description());
    for (i, frame) in x.chunks_exact(system.dimension()).enumerate() {
        check_constraints(&system, transform.as_ref(), frame, i as u64);
    }

    // Methanol with the angles at its hydrogens rigid, as OpenMM's HAngles makes them, but for that of its hydroxyl.
    let start = [
        [0.0, 0.0, 0.0],
        [0.142, 0.0, 0.0],
        [-0.036, 0.103, 0.0],
        [-0.036, -0.0515, 0.0892],
        [-0.036, -0.0515, -0.0892],
        [0.172, 0.09, 0.0],
    ];
    let distance = |i: usize, j: usize| boltzflow::coords::distance(start[i], start[j]);
    let held = [(0, 2), (0, 3), (0, 4), (2, 3), (2, 4), (3, 4), (1, 5)];
    let row = |&(i, j): &(usize, usize)| format!("<Constraint p1=\"{i}\" p2=\"{j}\" d=\"{}\"/>", distance(i, j));
    let constraints: String = held.iter().map(row).collect();
    let masses: String = [12.0, 16.0, 1.0, 1.0, 1.0, 1.0].map(|m| format!("<Particle mass=\"{m}\"/>")).concat();
    let xml = |constraints: &str| {
        format!(
            "<System version=\"1\"><Particles>{masses}</Particles><Constraints>{constraints}</Constraints><Forces><Force \
             type=\"HarmonicBondForce\" version=\"2\"><Bonds><Bond p1=\"0\" p2=\"1\" d=\"0.142\" k=\"200000\"/></Bonds>\
             </Force><Force type=\"HarmonicAngleForce\" version=\"2\"><Angles><Angle p1=\"0\" p2=\"1\" p3=\"5\" a=\"1.9\" \
             k=\"400\"/><Angle p1=\"1\" p2=\"0\" p3=\"2\" a=\"1.9\" k=\"400\"/></Angles></Force></Forces></System>"
        )
    };
    let build = |constraints: &str| {
        let definition = SystemDefinition::OpenMm { system_xml: xml(constraints), topology_pdb: None };
        System::build(definition).unwrap()
    };
    let system = build(&constraints);
    let x = start.concat();
    let transform =
        choose_coordinates(&system, Some(&[x.clone(), x.clone()].concat()), 300.0, &CoordinateChoice::Automatic)
            .unwrap();
    assert_eq!(transform.kinds().len(), 18 - 6 - held.len());
    check_constraints(&system, transform.as_ref(), &x, 1);

    // A distance across two bonds that stretch is no coordinate.
    let across = format!("<Constraint p1=\"0\" p2=\"5\" d=\"{}\"/>", distance(0, 5));
    let loose = build(&(constraints + &across));
    let error = choose_coordinates(&loose, Some(&[x.clone(), x].concat()), 300.0, &CoordinateChoice::Automatic)
        .unwrap_err()
        .to_string();
    assert!(error.contains("the constraint between atoms"), "{error}");
}

fn check_constraints(system: &System, transform: &dyn CoordinateTransform, frame: &[f64], seed: u64) {
    let y = perturbed(transform, frame, 0.3, seed);
    let mut placed = vec![0.0; system.dimension()];
    let ladj = transform.to_positions(&y, &mut placed);
    assert!(ladj.is_finite());
    let at = |atom: usize| [placed[3 * atom], placed[3 * atom + 1], placed[3 * atom + 2]];
    for c in system.constraints() {
        let distance = boltzflow::coords::distance(at(c.i), at(c.j));
        assert!((distance - c.distance).abs() < 1e-9, "{} and {}: {distance} for {}", c.i, c.j, c.distance);
    }
    let mut back = vec![0.0; y.len()];
    assert!((transform.to_coordinates(&placed, &mut back) - ladj).abs() < 1e-9);
}

/// Propyne: four atoms on a line. Torsions are measured from atoms beside it; where the flow puts such atoms on a line,
/// there is no density, and nothing that is not a number.
#[test]
fn atoms_on_a_line_have_finite_coordinates() {
    let x: Vec<f64> = [
        [0.0, 0.0, 0.0],
        [0.146, 0.0, 0.0],
        [0.267, 0.0, 0.0],
        [0.373, 0.0, 0.0],
        [-0.036, 0.103, 0.0],
        [-0.036, -0.0515, 0.0892],
        [-0.036, -0.0515, -0.0892],
    ]
    .concat();
    let bonds = [(0, 1), (1, 2), (2, 3), (0, 4), (0, 5), (0, 6)];
    let rows: String =
        bonds.iter().map(|(i, j)| format!("<Bond p1=\"{i}\" p2=\"{j}\" d=\"0.11\" k=\"200000\"/>")).collect();
    let masses = "<Particle mass=\"12\"/>".repeat(3) + &"<Particle mass=\"1\"/>".repeat(4);
    let system_xml = format!(
        "<System version=\"1\"><Particles>{masses}</Particles><Constraints/><Forces><Force type=\"HarmonicBondForce\" \
         version=\"2\"><Bonds>{rows}</Bonds></Force></Forces></System>"
    );
    let system = System::build(SystemDefinition::OpenMm { system_xml, topology_pdb: None }).unwrap();
    let bent: Vec<f64> = x.iter().enumerate().map(|(k, x)| x + 1e-3 * (k as f64).sin()).collect();
    let transform =
        choose_coordinates(&system, Some(&[bent.clone(), x.clone()].concat()), 300.0, &CoordinateChoice::Automatic)
            .unwrap();
    let (mut y, mut placed) = (vec![0.0; 15], vec![0.0; 21]);
    for frame in [&bent, &x] {
        let ladj = transform.to_coordinates(frame, &mut y);
        assert!(!ladj.is_nan() && y.iter().all(|y| y.is_finite()), "{y:?}");
        let ladj = transform.to_positions(&y, &mut placed);
        assert!(!ladj.is_nan() && placed.iter().all(|x| x.is_finite()), "{placed:?}");
    }
    let (mut force, mut gradient) = (vec![1.0; 21], vec![0.0; 15]);
    transform.pull_back(&y, &placed, &mut force, &mut gradient);
    let target = ReducedTarget::new(system, transform);
    let batch = target.evaluate(&y).unwrap();
    assert!(!batch.energies[0].is_nan());
}

#[test]
fn gradients_in_flow_coordinates_are_those_of_finite_differences() {
    for case in ["alanine-dipeptide-obc1", "ace-aaa-nme"] {
        let (system, x) = molecule(case);
        let d = system.dimension();
        let transform = choose_coordinates(&system, Some(&x), 300.0, &CoordinateChoice::Automatic).unwrap();
        check_gradient(&system, &transform, &perturbed(transform.as_ref(), &x[d..2 * d], 0.3, 9));
    }
}

#[test]
fn torsions_are_one_a_bond_and_there_is_no_density_out_of_the_domain() {
    let (system, x) = molecule("alanine-dipeptide-obc1");
    let transform = choose_coordinates(&system, None, 300.0, &CoordinateChoice::Automatic).unwrap();
    // Rotatable bonds of the dipeptide: φ, ψ, two peptide bonds, three methyl groups. Rings and terminal atoms have none.
    let circular = transform.kinds().iter().filter(|k| **k == CoordinateKind::Circular).count();
    assert_eq!(circular, 7);
    let CoordinatesSpec::Internal(spec) = transform.spec() else { panic!("a molecule has internal coordinates") };
    let place = |atom: usize| [x[3 * atom], x[3 * atom + 1], x[3 * atom + 2]];
    let values = InternalCoordinates::measure(spec.zmatrix(), &x[..system.dimension()]);
    for atoms in [[4, 6, 8, 14], [6, 8, 14, 16]] {
        let angle = dihedral(place(atoms[0]), place(atoms[1]), place(atoms[2]), place(atoms[3]));
        assert!(values.iter().any(|v| (v - angle).abs() < 1e-9), "no coordinate is the dihedral {atoms:?}");
    }
    let stored: CoordinatesSpec = serde_json::from_str(&serde_json::to_string(&transform.spec()).unwrap()).unwrap();
    assert_eq!(stored.build(system.dimension()).unwrap().spec(), transform.spec());

    // Wherever there is density the molecule has its own handedness, and hydrogens have their order: seen along a bond of
    // the centre, the other three atoms go round one way. The mirror image has no density.
    let hands = |x: &[f64]| {
        let at = |atom: usize| [x[3 * atom], x[3 * atom + 1], x[3 * atom + 2]];
        [([8, 14, 15], [6, 9, 10]), ([1, 4, 5], [0, 2, 3]), ([10, 8, 6], [11, 12, 13]), ([18, 16, 17], [19, 20, 21])]
            .map(|([centre, axis, beyond], atoms)| {
                let [a, b, c] = atoms.map(|atom| dihedral(at(atom), at(centre), at(axis), at(beyond)));
                ((b - a).sin() + (c - b).sin() + (a - c).sin()).signum()
            })
    };
    let mut mirror = vec![0.0; transform.kinds().len()];
    let reflected: Vec<f64> = x[..system.dimension()].chunks(3).flat_map(|p| [-p[0], p[1], p[2]]).collect();
    let mut placed = vec![0.0; system.dimension()];
    transform.to_coordinates(&reflected, &mut mirror);
    assert_eq!(transform.to_positions(&mirror, &mut placed), f64::NEG_INFINITY);
    let mut random = Randoms::new(5, Purpose::Validation, 0);
    let (mut inside, mut all) = (0, 0);
    let mut own = vec![0.0; transform.kinds().len()];
    transform.to_coordinates(&x[..system.dimension()], &mut own);
    for _ in 0..20_000 {
        // Torsions anywhere, bonds and angles as they are.
        let y: Vec<f64> = spec
            .coordinates()
            .iter()
            .zip(&own)
            .map(|(c, own)| match c.quantity {
                InternalQuantity::Torsion if c.kind == CoordinateKind::Real => own + 0.7 / c.scale * random.normal(),
                _ => *own,
            })
            .collect();
        all += 1;
        if transform.to_positions(&y, &mut placed) > f64::NEG_INFINITY {
            inside += 1;
            assert_eq!(hands(&placed), hands(&x[..66]));
        }
    }
    assert!(inside > all / 100 && inside < all, "{inside} of {all} are inside");

    let mut out = vec![0.0; system.dimension()];
    for (k, y) in [(0, -1e3), (2, 1e3), (2, -1e3)] {
        let mut outside = vec![0.0; transform.kinds().len()];
        outside[k] = y;
        assert_eq!(transform.to_positions(&outside, &mut out), f64::NEG_INFINITY);
    }
}

#[test]
fn molecules_without_a_bond_graph_are_refused_with_the_reason() {
    let xml = std::fs::read_to_string(format!(
        "{}/tests/data/openmm/alanine-dipeptide-vacuum/system.xml",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap();
    let system = System::build(SystemDefinition::OpenMm { system_xml: xml, topology_pdb: None }).unwrap();
    let error = choose_coordinates(&system, None, 300.0, &CoordinateChoice::Automatic).unwrap_err().to_string();
    assert!(error.contains("topology_pdb"), "{error}");
}
