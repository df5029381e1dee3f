//! Molecular mechanics against OpenMM's Reference platform, against finite differences, and against bad input.

mod npz;

use boltzflow::energy::openmm::{MAX_XML_BYTES, MolecularMechanics, read_system};
use boltzflow::energy::{EnergyError, Potential, System, SystemDefinition};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

const CASES: [&str; 12] = [
    "alanine-dipeptide-vacuum",
    "alanine-dipeptide-obc1",
    "alanine-dipeptide-obc2",
    "alanine-dipeptide-rb",
    "ace-aaa-nme",
    "ace-aaa-nme-hbonds",
    "ace-aaaaa-nme",
    "ace-aaa-nme-cutoff",
    "alanine-dipeptide-custom",
    "tri-alanine-charmm36",
    "every-form",
    "../../../examples/peptide",
];

fn text(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/openmm").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn potential(case: &str) -> MolecularMechanics {
    read_system(&text(&format!("{case}/system.xml"))).unwrap().potential
}

/// OpenMM's numbers for eight configurations of a case.
struct Reference {
    positions: Vec<f64>,
    energies: Vec<f64>,
    energies_by_force: Vec<f64>,
    forces: Vec<f64>,
    force_names: Vec<String>,
}

impl Reference {
    fn read(case: &str) -> Self {
        let path = format!("{}/tests/data/openmm/{case}/reference.npz", env!("CARGO_MANIFEST_DIR"));
        let numbers = |name| npz::read(&path, name);
        Self {
            positions: numbers("positions_nm"),
            energies: numbers("energy_kj_mol"),
            energies_by_force: numbers("energy_by_force_kj_mol"),
            forces: numbers("forces_kj_mol_nm"),
            force_names: npz::read(&path, "force_names"),
        }
    }
}

fn energies_and_gradients(potential: &MolecularMechanics, positions: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let mut energies = vec![0.0; positions.len() / potential.dimension()];
    let mut gradients = vec![0.0; positions.len()];
    potential.evaluate(positions, &mut energies, Some(&mut gradients)).unwrap();
    (energies, gradients)
}

fn energy_of(potential: &MolecularMechanics, positions: &[f64]) -> f64 {
    let mut energy = [0.0];
    potential.evaluate(positions, &mut energy, None).unwrap();
    energy[0]
}

fn largest_deviation(a: impl IntoIterator<Item = f64>, b: impl IntoIterator<Item = f64>) -> f64 {
    let deviation = |(a, b): (f64, f64)| if a.is_nan() || b.is_nan() { f64::INFINITY } else { (a - b).abs() };
    a.into_iter().zip(b).map(deviation).fold(0.0, f64::max)
}

#[test]
fn energies_and_forces_are_those_of_openmm() {
    let mut largest: BTreeMap<String, f64> = BTreeMap::new();
    let mut record = |name: &str, deviation: f64| {
        let entry = largest.entry(name.to_string()).or_default();
        *entry = entry.max(deviation);
    };
    for case in CASES {
        let (potential, reference) = (potential(case), Reference::read(case));
        assert_eq!(potential.term_names(), reference.force_names, "{case}");
        let (energies, gradients) = energies_and_gradients(&potential, &reference.positions);
        record("total energy", largest_deviation(energies, reference.energies));
        record("force component", largest_deviation(gradients, reference.forces.iter().map(|f| -f)));

        let terms = reference.force_names.len();
        let mut by_force = vec![0.0; reference.energies_by_force.len()];
        potential.evaluate_terms(&reference.positions, &mut by_force).unwrap();
        for (i, name) in reference.force_names.iter().enumerate() {
            let column = |all: &[f64]| all.iter().copied().skip(i).step_by(terms).collect::<Vec<_>>();
            record(name, largest_deviation(column(&by_force), column(&reference.energies_by_force)));
        }
    }
    println!("{:<22} largest deviation from OpenMM (kJ/mol; force component in kJ/mol/nm)", "");
    for (name, deviation) in &largest {
        println!("{name:<22} {deviation:.1e}");
    }
    // Far below the 1e-5 and 1e-4 that anyone needs: a constant with one digit wrong would hide in those.
    for (name, deviation) in largest {
        let allowed = if name == "force component" { 1e-7 } else { 1e-9 };
        assert!(deviation < allowed, "{name} deviates by {deviation:e}");
    }
}

/// A System of `particles` particles with the given forces, as OpenMM would write it.
fn system_xml(particles: usize, forces: &str) -> String {
    let particles = "<Particle mass=\"1\"/>".repeat(particles);
    format!("<System version=\"1\"><Particles>{particles}</Particles><Constraints/><Forces>{forces}</Forces></System>")
}

/// A GBSAOBCForce of (charge, radius, scale).
fn obc2_xml(particles: &[(f64, f64, f64)]) -> String {
    let mut rows = String::new();
    for (q, r, scale) in particles {
        write!(rows, "<Particle q=\"{q}\" r=\"{r}\" scale=\"{scale}\"/>").unwrap();
    }
    format!(
        "<Force type=\"GBSAOBCForce\" version=\"2\" method=\"0\" soluteDielectric=\"1\" solventDielectric=\"78.5\" \
         surfaceAreaEnergy=\"2.25936\"><Particles>{rows}</Particles></Force>"
    )
}

/// The CustomGBForce that OpenMM would write for the same, with tanh of the given polynomial and the given constants.
fn custom_gb_xml(particles: &[(f64, f64, f64)], tanh: &str, constants: &str) -> String {
    let mut rows = String::new();
    for (q, r, scale) in particles {
        let rho = r - 0.009;
        write!(rows, "<Particle param1=\"{q}\" param2=\"{rho}\" param3=\"{}\"/>", rho * scale).unwrap();
    }
    let coulomb = "138.93545764438198*(1/soluteDielectric-1/solventDielectric)";
    format!(
        "<Force type=\"CustomGBForce\" version=\"2\" method=\"0\"><PerParticleParameters><Parameter name=\"charge\"/>\
         <Parameter name=\"or\"/><Parameter name=\"sr\"/></PerParticleParameters><GlobalParameters/><ComputedValues>\
         <Value name=\"I\" type=\"2\" expression=\"select(step(r+sr2-or1), 0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)\
         -1/(L^2))+0.5*log(L/U)/r), 0);U=r+sr2;L=max(or1, D);D=abs(r-sr2)\"/><Value name=\"B\" type=\"0\" \
         expression=\"1/(1/or-tanh({tanh})/radius);psi=I*or; radius=or+offset; offset=0.009\"/></ComputedValues>\
         <EnergyTerms><Term type=\"0\" expression=\"-0.5*{coulomb}*charge^2/B; {constants}\"/>\
         <Term type=\"0\" expression=\"28.39195511125854*(radius+0.14)^2*(radius/B)^6; radius=or+offset; {constants}\"/>\
         <Term type=\"2\" expression=\"-{coulomb}*charge1*charge2/f;f=sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2))); {constants}\"/>\
         </EnergyTerms><Particles>{rows}</Particles><Exclusions/><Functions/></Force>"
    )
}

const WATER: &str = "solventDielectric=78.5; soluteDielectric=1; kappa=0; offset=0.009";

fn read(xml: &str) -> MolecularMechanics {
    read_system(xml).unwrap_or_else(|e| panic!("{e}")).potential
}

/// Atoms on a cubic lattice 0.2 nm apart, each off its place by what `noise` says.
fn lattice(atoms: usize, noise: &[f64]) -> Vec<f64> {
    let side = (atoms as f64).cbrt().ceil() as usize;
    let place = |k: usize| [k % side, k / side % side, k / (side * side)];
    (0..atoms).flat_map(place).zip(noise.iter().cycle()).map(|(x, n)| 0.2 * x as f64 + n).collect()
}

/// That the derivative along `direction` is what energies on a line say (differences of fourth order).
fn check_slope(potential: &MolecularMechanics, positions: &[f64], direction: &[f64], step: f64) {
    let (_, gradient) = energies_and_gradients(potential, positions);
    let slope: f64 = gradient.iter().zip(direction).map(|(g, v)| g * v).sum();
    let at =
        |t: f64| energy_of(potential, &positions.iter().zip(direction).map(|(x, v)| x + t * v).collect::<Vec<_>>());
    let difference = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step);
    let scale = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
    assert!((slope - difference).abs() < 1e-6 * (1.0 + scale), "slope {slope}, difference {difference}, |g| {scale}");
}

fn rotation([a, b, c]: [f64; 3]) -> [[f64; 3]; 3] {
    let ((sa, ca), (sb, cb), (sc, cc)) = (a.sin_cos(), b.sin_cos(), c.sin_cos());
    [
        [ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc],
        [sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc],
        [-sb, cb * sc, cb * cc],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn gradients_are_derivatives_of_energies(
        // Without those of cutoffs and steps, where energies jump; their forces are compared with OpenMM's.
        case in prop::sample::select(CASES.iter().filter(|c| !["ace-aaa-nme-cutoff", "every-form"].contains(c)).collect::<Vec<_>>()),
        frame in 0usize..8,
        noise in prop::collection::vec(-0.01..0.01, 441),
        direction in prop::collection::vec(-1.0..1.0, 441),
    ) {
        let (potential, reference) = (potential(case), Reference::read(case));
        let d = potential.dimension();
        let frame = &reference.positions[frame * d..(frame + 1) * d];
        let positions: Vec<f64> = frame.iter().zip(&noise).map(|(x, n)| x + n).collect();
        check_slope(&potential, &positions, &direction[..d], 1e-5);
    }

    #[test]
    fn energies_do_not_change_with_the_frame_of_reference(
        case in 0..CASES.len(),
        angles in prop::array::uniform3(-3.0..3.0),
        shift in prop::array::uniform3(-2.0..2.0),
    ) {
        let (potential, reference) = (potential(CASES[case]), Reference::read(CASES[case]));
        // Those with forces that hold the molecule in space know it.
        prop_assert_eq!(potential.is_rigid_invariant(), !["alanine-dipeptide-custom", "every-form"].contains(&CASES[case]));
        if !potential.is_rigid_invariant() {
            return Ok(());
        }
        let r = rotation(angles);
        let turn = |x: &[f64], t: [f64; 3]| -> Vec<f64> {
            let turned = |p: &[f64]| [0, 1, 2].map(|a| r[a][0] * p[0] + r[a][1] * p[1] + r[a][2] * p[2] + t[a]);
            x.chunks(3).flat_map(turned).collect()
        };
        let (energies, gradients) = energies_and_gradients(&potential, &reference.positions);
        let (moved, moved_gradients) = energies_and_gradients(&potential, &turn(&reference.positions, shift));
        prop_assert!(largest_deviation(energies, moved) < 1e-8);
        prop_assert!(largest_deviation(turn(&gradients, [0.0; 3]), moved_gradients) < 1e-6);
    }

    /// The lanes of a batch must not know of each other, nor of how many threads there are.
    #[test]
    fn a_batch_is_as_good_as_its_rows(case in 0..CASES.len(), rows in 1usize..23) {
        let (potential, reference) = (potential(CASES[case]), Reference::read(CASES[case]));
        let d = potential.dimension();
        let positions: Vec<f64> = reference.positions.iter().copied().cycle().skip(3 * d).take(rows * d).collect();
        let (energies, gradients) = energies_and_gradients(&potential, &positions);
        for (row, x) in positions.chunks(d).enumerate() {
            let (alone, alone_gradient) = energies_and_gradients(&potential, x);
            prop_assert_eq!(energies[row].to_bits(), alone[0].to_bits());
            prop_assert_eq!(energies[row].to_bits(), energy_of(&potential, x).to_bits());
            prop_assert_eq!(&gradients[row * d..(row + 1) * d], &alone_gradient[..]);
        }
    }
}

/// No reference configuration has an atom inside another one's sphere, where the two forms of the model differ; and none
/// has enough atoms for the gradient to be computed without slopes kept from the first loop.
#[test]
fn generalized_born_gradients_hold_beyond_the_reference_cases() {
    let big_and_small = [(0.5, 0.4, 0.9), (-0.5, 0.1, 0.8), (0.2, 0.15, 0.7)];
    let forms = [obc2_xml(&big_and_small), custom_gb_xml(&big_and_small, "0.8*psi+2.909125*psi^3", WATER)];
    for force in forms {
        let potential = read(&system_xml(3, &force));
        for r in [0.05, 0.2, 0.26, 0.3, 0.44, 0.6] {
            let positions = [0.0, 0.0, 0.0, r, 0.01, 0.0, 0.1, 0.5, 0.2];
            check_slope(&potential, &positions, &[0.3, 0.1, -0.2, 1.0, 0.2, -0.1, 0.0, -0.4, 0.6], 1e-6);
        }
    }
    let noise: Vec<f64> = (0..97).map(|k| 0.02 * f64::from(k * k % 97) / 97.0).collect();
    let direction: Vec<f64> = (0..1200).map(|k| f64::from(k * 7 % 13) - 6.0).collect();
    let potential = read(&system_xml(400, &obc2_xml(&[(0.1, 0.15, 0.8); 400])));
    check_slope(&potential, &lattice(400, &noise), &direction, 1e-6);
}

/// The same model through both readers: it holds the CustomGBForce's numbers against GBSAOBCForce's own.
#[test]
fn a_custom_force_with_the_expressions_of_obc2_is_a_gbsaobc_force() {
    let particles: Vec<_> = (0..8).map(|k| (0.3 - 0.1 * f64::from(k), 0.12 + 0.01 * f64::from(k), 0.8)).collect();
    let positions = lattice(8, &[0.01, -0.02, 0.03, 0.0, 0.02]);
    let own = obc2_xml(&particles);
    let custom = |constants| custom_gb_xml(&particles, "psi-0.8*psi^2+4.85*psi^3", constants);
    let with = |force: &str| energy_of(&read(&system_xml(8, force)), &positions);
    assert!((with(&own) - with(&custom(WATER))).abs() < 1e-9);

    let dielectric = own.replace("\"1\" solventDielectric=\"78.5\"", "\"2\" solventDielectric=\"20\"");
    let constants = "solventDielectric=2e+01; soluteDielectric=2.0; kappa=0; offset=0.008999999999999999";
    assert!((with(&dielectric) - with(&custom(constants))).abs() < 1e-9);

    let begin = custom(WATER).find("<Term type=\"0\" expression=\"28.39").unwrap();
    let end = custom(WATER).find("<Term type=\"2\"").unwrap();
    let mut without_surface = custom(WATER);
    without_surface.replace_range(begin..end, "");
    let own = own.replace("surfaceAreaEnergy=\"2.25936\"", "surfaceAreaEnergy=\"0\"");
    assert!((with(&own) - with(&without_surface)).abs() < 1e-9);
}

/// The reference cases have no phase that tells φ from −φ by more than 1e-6 rad, and no periodicity above 6.
#[test]
fn torsions_follow_the_sign_convention_of_iupac() {
    let torsion = |n: i64, phase: f64| {
        format!("<Torsion p1=\"3\" p2=\"2\" p3=\"1\" p4=\"0\" periodicity=\"{n}\" phase=\"{phase}\" k=\"2\"/>")
    };
    let terms = [(3, 0.7), (1, -0.4), (11, 2.0)];
    let rows: String = terms.iter().map(|(n, phase)| torsion(*n, *phase)).collect();
    let force = format!("<Force type=\"PeriodicTorsionForce\" version=\"2\"><Torsions>{rows}</Torsions></Force>");
    let potential = read(&system_xml(4, &force));
    for phi in [-2.5f64, -1.0, 0.3, 1.2, 3.0] {
        // Looking from the second atom to the third (along −z), a clockwise turn of the bond to the fourth is positive.
        let positions = [0.1, 0.0, 0.2, 0.0, 0.0, 0.2, 0.0, 0.0, 0.0, 0.1 * phi.cos(), -0.1 * phi.sin(), 0.0];
        let expected: f64 = terms.iter().map(|(n, phase)| 2.0 * (1.0 + (*n as f64 * phi - phase).cos())).sum();
        assert!((energy_of(&potential, &positions) - expected).abs() < 1e-12, "{phi}");
    }
}

#[test]
fn impossible_positions_have_no_finite_energy_and_never_panic() {
    let (potential, reference) = (potential("alanine-dipeptide-obc1"), Reference::read("alanine-dipeptide-obc1"));
    let good = &reference.positions[..potential.dimension()];
    for (atom, values) in [(0, [f64::NAN; 3]), (21, [f64::INFINITY, 0.0, 0.0]), (5, [1e200; 3]), (9, [-1e308; 3])] {
        let mut positions = [good, good].concat();
        positions[3 * atom..3 * atom + 3].copy_from_slice(&values);
        let (energies, gradients) = energies_and_gradients(&potential, &positions);
        assert!(!energies[0].is_finite(), "{values:?} has the energy {}", energies[0]);
        assert!(energies[1].is_finite() && gradients[good.len()..].iter().all(|g| g.is_finite()));
    }
    // Atoms 1 and 18, both carbons, are far apart along the chain.
    let mut coinciding = good.to_vec();
    coinciding.copy_within(3..6, 54);
    assert!(!energy_of(&potential, &coinciding).is_finite());
    // All atoms on a line, in one place, and out of every force's reach.
    for scale in [1.0, 0.0, 1e6] {
        let line: Vec<f64> = (0..good.len()).map(|k| if k % 3 == 0 { 0.1 * scale * k as f64 } else { 0.0 }).collect();
        energies_and_gradients(&potential, &line);
    }
    // OpenMM bends a straight angle in no direction, and so must this.
    let angle = "<Force type=\"HarmonicAngleForce\" version=\"2\"><Angles>\
                 <Angle p1=\"0\" p2=\"1\" p3=\"2\" a=\"3.141592653589793\" k=\"10\"/></Angles></Force>";
    let straight = [0.0, 0.0, 0.0, 0.1, 0.0, 0.0, 0.2, 0.0, 0.0];
    let (energies, gradients) = energies_and_gradients(&read(&system_xml(3, angle)), &straight);
    assert!(energies[0] == 0.0 && gradients.iter().all(|g| *g == 0.0));

    assert!(matches!(potential.evaluate(&good[1..], &mut [0.0], None), Err(EnergyError::Shape { .. })));
    assert!(matches!(potential.evaluate_terms(good, &mut [0.0; 5]), Err(EnergyError::Shape { .. })));
}

#[test]
fn a_system_knows_its_bonds_with_and_without_constraints() {
    let build = |case: &str| {
        System::build(SystemDefinition::OpenMm {
            system_xml: text(&format!("{case}/system.xml")),
            topology_pdb: Some(text(&format!("{case}/topology.pdb"))),
        })
        .unwrap()
    };
    let (free, constrained) = (build("ace-aaa-nme"), build("ace-aaa-nme-hbonds"));
    assert_eq!((free.constraints().len(), constrained.constraints().len()), (0, 22));
    assert_eq!(free.bonds(), constrained.bonds());
    assert_eq!(free.bonds().len(), 41, "42 atoms of one molecule without rings");
    assert!(free.bonds().is_sorted() && free.bonds().iter().all(|(i, j)| i < j));

    let nanometres = Reference::read("ace-aaa-nme").positions;
    assert_eq!(free.unit_warning(&nanometres), None);
    let angstroms: Vec<f64> = nanometres.iter().map(|x| 10.0 * x).collect();
    assert!(free.unit_warning(&angstroms).unwrap().contains("are the positions in Å?"));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (file, name, reason) in [("pme", "NonbondedForce", "PME"), ("barostat", "MonteCarloBarostat", "volume")] {
        match read_system(&text(&format!("refused/{file}.xml"))) {
            Err(EnergyError::Unsupported { force, reason: actual }) => {
                assert!(force == name && actual.contains(reason), "{file}: {force}: {actual}");
            }
            other => panic!("{file}: {other:?}"),
        }
    }
}

fn error_of(xml: &str) -> String {
    match read_system(xml) {
        Ok(_) => "no error".to_string(),
        Err(error) => error.to_string(),
    }
}

/// Edits of a good file, each with a word that its error must have.
#[test]
fn bad_xml_is_refused_with_the_reason() {
    let good = text("alanine-dipeptide-obc1/system.xml");
    let obc2 = text("alanine-dipeptide-obc2/system.xml");
    let bond = "<Bond d=\".10900000000000001\" k=\"284512\" p1=\"1\" p2=\"2\"/>";
    let charge = "<Particle param1=\".1123\" param2=\".111\" param3=\".09435\"/>";
    let exception = "<Exception eps=\".12012161236147947\" p1=\"5\" p2=\"7\"";
    let edits = [
        ("<System ", "<Context ", "well-formed"),
        ("</System>", "", "well-formed"),
        ("<?xml version=\"1.0\" ?>", "<!DOCTYPE System [<!ENTITY a \"b\">]>", "DTD"),
        ("<Constraints/>", "<Constraints xmlns=\"a\"/>", "xmlns"),
        ("type=\"System\" version=\"1\"", "type=\"System\" version=\"3\"", "version"),
        ("type=\"System\" version=\"1\"", "type=\"System\"", "version"),
        ("<Particle mass=\"12.01\"/>", "<Particle mass=\"-1\"/>", "line 10"),
        ("<Particle mass=\"12.01\"/>", "<Particle/>", "mass is missing"),
        (
            "<Particle mass=\"12.01\"/>",
            "<Particle mass=\"0\"><OutOfPlaneSite/></Particle>",
            "virtual site OutOfPlaneSite",
        ),
        ("<Particle mass=\"12.01\"/>", "", "one of 21 particles"),
        (charge, "", "must have as many"),
        ("<Particle mass=\"12.01\"/>", "<Atom mass=\"1\"/>", "only <Particle>"),
        ("<Constraints/>", "<Constraints/><Constraints/>", "second element"),
        ("<Constraints/>", "<Constraints><Constraint p1=\"3\" p2=\"3\" d=\"1\"/></Constraints>", "named twice"),
        (bond, "<Bond d=\"nan\" k=\"1\" p1=\"1\" p2=\"2\"/>", "line 36"),
        (bond, "<Bond d=\"0.1\" k=\"1e999\" p1=\"1\" p2=\"2\"/>", "finite"),
        (bond, "<Bond d=\"0.1\" k=\"stiff\" p1=\"1\" p2=\"2\"/>", "\"stiff\""),
        (bond, "<Bond d=\"-0.1\" k=\"1\" p1=\"1\" p2=\"2\"/>", "negative"),
        (bond, "<Bond d=\"0.1\" k=\"1\" p1=\"1\" p2=\"22\"/>", "22 particles"),
        (bond, "<Bond d=\"0.1\" k=\"1\" p1=\"-1\" p2=\"2\"/>", "p1"),
        (bond, "<Bond d=\"0.1\" k=\"1\" p1=\"1\" p2=\"18446744073709551617\"/>", "integer"),
        (bond, "<Bond d=\"0.1\" k=\"1\" p1=\"2\" p2=\"2\"/>", "named twice"),
        (bond, "<Bond d=\"0.1\" d=\"0.1\" k=\"1\" p1=\"1\" p2=\"2\"/>", "well-formed"),
        ("<Angle a=\"2.094396\"", "<Angle a=\"7\"", "radian"),
        ("p4=\"7\" periodicity=\"1\"", "p4=\"7\" periodicity=\"0\"", "at least 1"),
        ("p4=\"7\" periodicity=\"1\"", "p4=\"6\" periodicity=\"1\"", "named twice"),
        (exception, "<Exception eps=\"1\" p1=\"5\" p2=\"5\"", "named twice"),
        (exception, "<Exception eps=\"1\" p1=\"9\" p2=\"4\"", "second exception"),
        ("<ParticleOffsets/>", "<ParticleOffsets><Offset/></ParticleOffsets>", "ParticleOffsets"),
        (
            "name=\"HarmonicBondForce\" type=\"HarmonicBondForce\" usesPeriodic=\"0\"",
            "type=\"HarmonicBondForce\" usesPeriodic=\"1\"",
            "periodic",
        ),
        (
            "type=\"HarmonicAngleForce\" usesPeriodic=\"0\" version=\"2\"",
            "type=\"HarmonicAngleForce\" version=\"9\"",
            "version 9",
        ),
        ("type=\"CMMotionRemover\"", "type=\"Thermostat\"", "Thermostat"),
        ("tanh(0.8*psi", "tanh(0.8*phi", "'phi' is not defined"),
        ("U=r+sr2;L=max", "U=r+sr2;L=mux", "the function 'mux' is not known"),
        ("name=\"B\" type=\"0\"", "name=\"B\" type=\"1\"", "only the first may be"),
        ("name=\"B\" type=\"0\"", "name=\"B\" type=\"5\"", "must be 0, 1 or 2"),
        ("solventDielectric=78.5; soluteDielectric=1", "solventDielectric=0; soluteDielectric=1", "positive"),
        ("<Parameter name=\"or\"/>", "<Parameter name=\"rad\"/>", "'or1' is not defined"),
        ("<Parameter name=\"or\"/>", "<Parameter name=\"sr\"/>", "there twice"),
        (charge, "<Particle param1=\".1\" param2=\"0\" param3=\".1\"/>", "radius"),
        (charge, "<Particle param1=\".1\" param2=\"0.1\"/>", "param3"),
    ];
    let edits_of_obc2 = [
        ("method=\"0\" name=\"GBSAOBCForce\"", "method=\"2\" name=\"solvent\"", "GBSAOBCForce (solvent)"),
        ("r=\".12\"", "r=\".009\"", "radius"),
        ("scale=\".85\"", "scale=\"-1\"", "negative"),
    ];
    let edits = edits.iter().map(|edit| (&good, edit)).chain(edits_of_obc2.iter().map(|edit| (&obc2, edit)));
    for (xml, (from, to, word)) in edits {
        assert!(xml.contains(from), "{from} is not in the file");
        let error = error_of(&xml.replacen(from, to, 1));
        assert!(error.contains(word) && error.len() < 500, "{to}: {error}");
    }
    for cut in (0..good.len()).step_by(211) {
        assert!(read_system(&good[..cut]).is_err(), "the first {cut} bytes");
    }
}

/// A CustomBondForce between two of three particles.
fn custom_bond(energy: &str, more: &str) -> String {
    let force = format!(
        "<Force type=\"CustomBondForce\" version=\"3\" energy=\"{energy}\"><PerBondParameters><Parameter name=\"k\"/>\
         </PerBondParameters><GlobalParameters><Parameter name=\"g\" default=\"2\"/></GlobalParameters>\
         <Bonds><Bond p1=\"0\" p2=\"1\" param1=\"1.5\"/></Bonds></Force>{more}"
    );
    system_xml(3, &force)
}

/// Expressions that cannot be read, with the place that the error points at.
#[test]
fn errors_in_expressions_point_at_the_character() {
    let deep = format!("{}r{}", "(".repeat(300), ")".repeat(300));
    let cases = [
        ("", "character 1 ", "expected"),
        ("k*", "character 3 ", "expected"),
        ("k*(r-1", "character 7 ", "')' is expected"),
        ("k*(r-1))", "character 8 ", "operator or the end"),
        ("k r", "character 3 ", "operator or the end"),
        ("k**r", "character 3 ", "expected"),
        ("+r", "character 1 ", "expected"),
        ("k*é", "character 3 ", "'é' is not defined"),
        ("1 + k*theta", "character 7 ", "'theta' is not defined; known here are g, k, r"),
        ("1.2.3*r", "character 1 ", "not a finite number"),
        ("1e999*r", "character 1 ", "not a finite number"),
        ("r ? k", "character 3 ", "no meaning"),
        ("sin(r,k)", "character 1 ", "sin() has 1 arguments, not 2"),
        ("select(r,k)", "character 1 ", "select() has 3 arguments"),
        ("sine(r)", "character 1 ", "the function 'sine' is not known"),
        ("distance(p1,p2)", "character 1 ", "'distance' is not known"),
        ("a*r; b=2", "character 1 ", "'a' is not defined"),
        ("a*r; 2", "character 5 ", "must be a definition"),
        ("a*r; =2", "character 5 ", "no name"),
        ("a*r; a=b; b=c", "character 13 ", "'c' is not defined"),
        // A definition knows what follows it, not what comes before.
        ("b*r; a=2; b=a", "character 13 ", "'a' is not defined"),
        (deep.as_str(), "character 201 ", "nested"),
    ];
    for (energy, place, word) in cases {
        let error = error_of(&custom_bond(energy, ""));
        assert!(error.contains(place) && error.contains(word) && error.len() < 500, "{energy}: {error}");
    }
    let long = format!("r{}", "+r".repeat(60_000));
    assert!(error_of(&custom_bond(&long, "")).contains("bytes"));
    // Each definition doubles what there is to say, if nothing is shared.
    let doubled: String = (0..40).map(|k| format!("a{k}=sin(a{})*a{};", k + 1, k + 1)).collect();
    assert_eq!(error_of(&custom_bond(&format!("a0;{doubled}a40=1+r"), "")), "no error");
    let sum: String = (1..3000).map(|k| format!("+sin({k}*r)")).collect();
    assert_eq!(error_of(&custom_bond(&format!("0{sum}"), "")), "no error");

    let other = "<Force type=\"CustomExternalForce\" version=\"1\" energy=\"g*x\"><PerParticleParameters/>\
                 <GlobalParameters><Parameter name=\"g\" default=\"3\"/></GlobalParameters><Particles/></Force>";
    assert!(error_of(&custom_bond("g*r", other)).contains("it can have one value"));
    assert!(error_of(&custom_bond("g*r", "").replace("param1", "param2")).contains("param1 is missing"));
    assert!(error_of(&custom_bond("g*r", "").replace("\"2\"/></Global", "\"inf\"/></Global")).contains("finite"));
    let nested = |depth: usize| {
        let inner = "<Force type=\"HarmonicBondForce\" version=\"2\"><Bonds/></Force>".to_string();
        (0..depth).fold(inner, |inner, _| {
            format!(
                "<Force type=\"CustomCVForce\" version=\"0\" energy=\"a\"><CollectiveVariables><CollectiveVariable \
                 name=\"a\">{inner}</CollectiveVariable></CollectiveVariables></Force>"
            )
        })
    };
    assert_eq!(error_of(&system_xml(2, &nested(4))), "no error");
    assert!(error_of(&system_xml(2, &nested(6))).contains("nested more than"));
    let hidden = nested(1).replace("HarmonicBondForce", "RMSDForce");
    assert!(error_of(&system_xml(2, &hidden)).contains("RMSDForce"));
}

/// An expression of the distance and a parameter, with its text fully in parentheses.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("r".to_string()),
        Just("k".to_string()),
        Just("g".to_string()),
        (-3.0..3.0f64).prop_map(|x| format!("({x:.4})")),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let function = prop::sample::select(vec![
            "sin", "cos", "exp", "tanh", "erf", "erfc", "sinh", "cosh", "atan", "abs", "square", "cube", "step",
            "floor",
        ]);
        // Functions with a domain, on what is always inside of it.
        let guarded = prop::sample::select(vec![
            "sqrt(0.1+square(#))",
            "log(1.5+sin(#))",
            "asin(0.9*sin(#))",
            "acos(0.9*tanh(#))",
            "1/(0.2+square(#))",
            "(1.1+cos(#))^1.7",
            "(2+sin(#))^(0.3*cos(#))",
            "tan(0.5*tanh(#))",
            "(1+square(#))^(-3)",
            "-#^2",
            "(#)^3",
        ]);
        prop_oneof![
            (function, inner.clone()).prop_map(|(f, a)| format!("{f}({a})")),
            (guarded, inner.clone()).prop_map(|(f, a)| f.replace('#', &format!("({a})"))),
            (prop::sample::select(vec!["+", "-", "*"]), inner.clone(), inner.clone())
                .prop_map(|(sign, a, b)| format!("({a}{sign}{b})")),
            (prop::sample::select(vec!["min", "max", "atan2"]), inner.clone(), inner.clone())
                .prop_map(|(f, a, b)| format!("{f}({a},{b})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("select(step({a}),{b},{c})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Forces are minus the gradient of the energy, for any expression, where it has a derivative at all.
    #[test]
    fn derivatives_of_random_expressions_are_derivatives(energy in expressions(), r in 0.3..2.0f64) {
        let potential = read(&custom_bond(&energy, ""));
        let at = |r: f64| [0.0, 0.0, 0.0, r * 0.6, r * 0.8, 0.0, 5.0, 5.0, 5.0];
        let (value, gradient) = energies_and_gradients(&potential, &at(r));
        let slope = 0.6 * gradient[3] + 0.8 * gradient[4];
        let of = |r: f64| energy_of(&potential, &at(r));
        let step = 1e-4;
        let differences = [1.0, 0.5].map(|s: f64| {
            let h = s * step;
            (8.0 * (of(r + h) - of(r - h)) - (of(r + 2.0 * h) - of(r - 2.0 * h))) / (12.0 * h)
        });
        // Two steps agree where there is no kink and no jump between the points.
        let scale = 1.0 + value[0].abs() + slope.abs();
        prop_assume!(value[0].is_finite() && scale < 1e6);
        prop_assume!((differences[0] - differences[1]).abs() < 1e-7 * scale);
        prop_assert!((slope - differences[1]).abs() < 1e-5 * scale, "{}: {} {:?}", energy, slope, differences);
    }
}

/// Files that are made to take time or memory; the test is that it ends, and what it says.
#[test]
fn hostile_xml_is_refused_early() {
    let nonbonded = "<Force type=\"NonbondedForce\" version=\"4\" method=\"0\"><Particles/><Exceptions/></Force>";
    let attributes = |n: usize| {
        (0..n).fold(String::new(), |mut s, k| {
            write!(s, " a{k}=\"\"").unwrap();
            s
        })
    };
    let cases = [
        (String::new(), "well-formed"),
        ("<System".repeat(10), "well-formed"),
        (" ".repeat(MAX_XML_BYTES + 1), "bytes"),
        ("<".repeat(3_000_000), "tags"),
        ("<a>".repeat(1_000_000), "well-formed"),
        (format!("{}{}", "<a>".repeat(500_000), "</a>".repeat(500_000)), "root element"),
        (format!("<System{}/>", attributes(100_000)), "attributes"),
        (format!("<System version=\"{}\"/>", "1".repeat(1_000_000)), "version"),
        (format!("<{}/>", "a".repeat(1_000_000)), "root element"),
        ("<!DOCTYPE l [<!ENTITY a \"aa\"><!ENTITY b \"&a;&a;\">]><System>&b;</System>".to_string(), "DTD"),
        (system_xml(0, nonbonded), "at least one particle"),
        (system_xml(1, ""), "no forces"),
        (system_xml(5001, nonbonded), "5000 atoms"),
        (system_xml(100_001, nonbonded), "100000 particles"),
    ];
    for (xml, word) in cases {
        let error = error_of(&xml);
        assert!(error.contains(word) && error.len() < 500, "{word}: {error}");
    }
}
