//! What variables are, what they change with, and what is refused.

use super::*;
use crate::energy::analytic::AnalyticPotential;
use crate::energy::{System, SystemDefinition};
use crate::math::{Purpose, Randoms};
use nalgebra::{Rotation3, Vector3};

/// Molecules of which only masses matter.
fn atoms(masses: &[f64]) -> System {
    let particles: String = masses.iter().map(|mass| format!("<Particle mass=\"{mass}\"/>")).collect();
    let system_xml = format!(
        "<System version=\"1\"><Particles>{particles}</Particles><Constraints/><Forces><Force version=\"2\" \
         type=\"HarmonicBondForce\"><Bonds><Bond p1=\"0\" p2=\"1\" d=\"0.1\" k=\"1000\"/></Bonds></Force></Forces></System>"
    );
    System::build(SystemDefinition::OpenMm { system_xml, topology_pdb: None }).unwrap()
}

fn five() -> System {
    atoms(&[12.0, 1.0, 1.0, 16.0, 14.0])
}

fn built_in(name: &str) -> System {
    System::build(SystemDefinition::Analytic(AnalyticPotential::built_in(name).unwrap())).unwrap()
}

fn bound(text: &str, system: &System) -> BoundVariable {
    text.parse::<CollectiveVariable>().unwrap().bind(system).unwrap()
}

const RMSD: &str = "rmsd(0,2,3,4;0.1,0,0,0,0.3,-0.1,1,0.2,0,-0.5,0.5,0.75)";

/// One of each kind, and expressions with definitions, several variables, a period, and an expression in them.
const ALL: [&str; 14] = [
    "coordinate(4)",
    "linear(0.7,-0.7,2)",
    "distance(1,3)",
    "angle(2,0,3)",
    "dihedral(3,0,2,1)",
    "radius_of_gyration()",
    "radius_of_gyration(4,0,2)",
    RMSD,
    "coordination(0,1;2,3,4;0.9)",
    "coordination(0,1,2;2,1,4;1.2;7)",
    "expression(d1-k*d2;k=sin(d1)^2;d1=distance(0,1);d2=distance(1,2))",
    "expression(a+b;a=dihedral(0,1,2,3);b=dihedral(1,2,3,4);period=6.283185307179586)",
    "expression(select(step(r-1),r,2*x+r);r=radius_of_gyration();x=expression(exp(-y);y=coordinate(0)))",
    "expression(x;x=expression(x;x=expression(x;x=expression(x^3;x=angle(0,1,2)))))",
];

#[test]
fn reads_what_it_writes_and_says_what_is_wrong() {
    let system = five();
    for text in ALL {
        let variable: CollectiveVariable = text.parse().unwrap();
        assert_eq!(variable.to_string(), text);
        assert_eq!(
            serde_json::from_str::<CollectiveVariable>(&serde_json::to_string(&variable).unwrap()).unwrap(),
            variable
        );
        assert!(variable.bind(&system).is_ok(), "{text}");
    }
    // Blanks, orders and shorthands that come out the same.
    for (text, same) in [
        (" coordination( 0 , 1 ; 2,3 ; 0.35 ; 6 ) ", "coordination(0,1;2,3;0.35)"),
        (
            "expression(a + b; period=2pi; b = distance(0,1); a=coordinate(0) )",
            "expression(a + b;a=coordinate(0);b=distance(0,1);period=6.283185307179586)",
        ),
    ] {
        assert_eq!(text.parse::<CollectiveVariable>().unwrap().to_string(), same);
    }
    for text in [
        "",
        "phi",
        "dihedral(1,2,3)",
        "distance(1,-2)",
        "coordinate(0",
        "coordinate(a)",
        "radius_of_gyration(a)",
        "rmsd(0,1)",
        "coordination(0;1)",
        "coordination(0;1;0.3;0)",
        "coordination(0;1;0.3;6;7)",
        "distance(0,1;2)",
        "expression(a;a=distance(0))",
        "expression(a;a=distance(0,1);a=distance(0,2))",
        "expression(a;a=angle(0,1,2);period=-1)",
        "rmsd(0;1,2,x)",
        "rmsd(0,1;reference.pdb)",
        "rmsd(0,1;)",
    ] {
        assert!(text.parse::<CollectiveVariable>().is_err(), "{text}");
    }
    let deep = (0..5000).fold("coordinate(0)".to_string(), |inner, _| format!("expression(x;x={inner})"));
    let error = deep.parse::<CollectiveVariable>().unwrap_err().to_string();
    assert!(error.contains("4 deep") && error.len() < 600, "{error}");
}

#[test]
fn what_a_system_does_not_have_is_named() {
    let (molecule, weightless) = (five(), atoms(&[0.0; 3]));
    let refused = |text: &str, system: &System, words: &str| {
        let error = text.parse::<CollectiveVariable>().unwrap().bind(system).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    };
    refused("coordinate(15)", &molecule, "0 to 14");
    refused("linear(0,0)", &molecule, "not all zero");
    refused("distance(0,5)", &molecule, "no atom 5; the system has atoms 0 to 4");
    refused("distance(1,1)", &molecule, "twice");
    refused("distance(0,1)", &built_in("double-well"), "not made of atoms");
    refused("radius_of_gyration(0)", &molecule, "single atom");
    refused("radius_of_gyration(0,1,0)", &molecule, "twice: 0");
    refused("radius_of_gyration()", &weightless, "mass of 0 together");
    refused("rmsd(0,1;0,0,0,1,0)", &molecule, "5 numbers; 2 atoms need 6");
    refused("rmsd(0,1;0,0,0,1,0,inf)", &molecule, "inf for the atom at place 1");
    refused("rmsd(0,1;1,2,3,1,2,3)", &molecule, "in one place");
    refused("rmsd(0;1,2,3)", &molecule, "single atom");
    refused("coordination(;1;0.3)", &molecule, "first group is empty");
    refused("coordination(1;;0.3)", &molecule, "second group is empty");
    refused("coordination(1;0,7;0.3)", &molecule, "second group there is no atom 7");
    refused("coordination(1;1;0.3)", &molecule, "own neighbour");
    refused("coordination(1;2;-0.3)", &molecule, "r0 is -0.3");
    refused("coordination(1;2;0.3;65)", &molecule, "n is 65");
    refused("expression(a-c;a=distance(0,1))", &molecule, "'c' is not defined");
    refused("expression(a;a=distance(0,1);b=distance(0,2))", &molecule, "does not depend on 'b'");
    refused("expression(a;a=distance(0,9))", &molecule, "no atom 9");
    refused("expression(a+;a=distance(0,1))", &molecule, "character 3");
    refused("expression(1+1)", &molecule, "0 variables");
    refused("expression(a;a b=distance(0,1))", &molecule, "'a b' is not a name");
    let nested = (0..5).fold(CollectiveVariable::Coordinate { index: 0 }, |inner, _| CollectiveVariable::Expression {
        expression: "x".into(),
        variables: [("x".to_string(), inner)].into(),
        period: None,
    });
    assert!(nested.bind(&molecule).unwrap_err().to_string().contains("4 deep"));
    let long = format!("expression(a{};a=distance(0,1))", "+1".repeat(2100));
    refused(&long, &molecule, "at most 4096");
    // What is computed is bounded, and so are the sentences about it.
    let many = atoms(&vec![1.0; 400]);
    let list = (0..400).map(|k| k.to_string()).collect::<Vec<_>>().join(",");
    refused(&format!("coordination({list};{list};0.3)"), &many, "160000 pairs");
    let period = |period| CollectiveVariable::Expression {
        expression: "x".into(),
        variables: [("x".to_string(), CollectiveVariable::Coordinate { index: 0 })].into(),
        period: Some(period),
    };
    assert!(period(0.0).bind(&molecule).is_err() && period(f64::NAN).bind(&molecule).is_err());
    assert!(period(2.0).bind(&molecule).is_ok());
    // Particles in three dimensions are points too, all of the same mass.
    let cluster = built_in("lj13");
    assert!(bound("radius_of_gyration()", &cluster).value(&[1.0; 39]).abs() < 1e-12);
    refused("distance(0,1)", &built_in("dw4"), "not made of atoms");
}

#[test]
fn gradients_are_those_of_the_values() {
    let system = five();
    let mut random = Randoms::new(5, Purpose::Validation, 0);
    for text in ALL {
        let variable = bound(text, &system);
        for _ in 0..20 {
            let x: Vec<f64> = (0..15).map(|_| random.normal()).collect();
            let mut gradient = vec![f64::NAN; 15];
            variable.gradient(&x, &mut gradient);
            for (i, found) in gradient.iter().enumerate() {
                let at = |h: f64| {
                    let mut moved = x.clone();
                    moved[i] += h;
                    variable.value(&moved)
                };
                // Across the seam of a circle the values are a turn apart.
                let turn = variable.description().period().unwrap_or(f64::INFINITY);
                let change = at(1e-6) - at(-1e-6);
                let change = if turn.is_finite() { change - turn * (change / turn).round() } else { change };
                let expected = change / 2e-6;
                assert!((found - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{text}: {found}, {expected}");
            }
        }
    }
}

#[test]
fn rigid_motions_change_no_shape_and_known_shapes_have_known_values() {
    let system = five();
    let mut random = Randoms::new(6, Purpose::Validation, 0);
    for _ in 0..20 {
        let x: Vec<f64> = (0..15).map(|_| random.normal()).collect();
        let turn = Rotation3::from_scaled_axis(Vector3::from_fn(|_, _| 3.0 * random.normal()));
        let shift = Vector3::from_fn(|_, _| 10.0 * random.normal());
        let moved = |x: &[f64], mirror: f64| -> Vec<f64> {
            let of = |p: &[f64]| turn * Vector3::new(mirror * p[0], p[1], p[2]) + shift;
            x.chunks(3).flat_map(|p| <[f64; 3]>::from(of(p))).collect()
        };
        let (rotated, mirrored) = (moved(&x, 1.0), moved(&x, -1.0));
        for text in ["radius_of_gyration()", RMSD, "coordination(0,1;2,3,4;0.9)"] {
            let variable = bound(text, &system);
            let gap = (variable.value(&x) - variable.value(&rotated)).abs();
            assert!(gap < 1e-12, "{text} changes by {gap}");
        }
        // The reference itself, moved, is at no distance; its mirror image is.
        let own = CollectiveVariable::Rmsd { atoms: Vec::new(), reference: x.clone() }.bind(&system).unwrap();
        assert!(own.value(&rotated) < 1e-13 && own.value(&mirrored) > 1e-3);
    }
    // Masses 12 and 1 at a distance of 1.3: Rg² = 12·1/13²·1.3².
    let mut x = vec![0.0; 15];
    (x[0], x[3]) = (1.0, 2.3);
    let found = bound("radius_of_gyration(1,0)", &system).value(&x);
    assert!((found - 12f64.sqrt() / 10.0).abs() < 1e-15);
    // Equal distances of r0: half a contact each; far away and at the same place: none and one.
    (x[6], x[9]) = (1.0 + 1.3, 1.0 + 1e200);
    let coordination = bound("coordination(0;1,2,3,4;1.3)", &system);
    (x[12], x[13], x[14]) = (1.0, 0.0, 0.0);
    assert!((coordination.value(&x) - 2.0).abs() < 1e-15);
    let mut gradient = [0.0; 15];
    coordination.gradient(&x, &mut gradient);
    // −n/(4·r0) each, and nothing from the others.
    assert!((gradient[3] + 6.0 / 5.2).abs() < 1e-14 && gradient[9] == 0.0 && gradient[12] == 0.0);
    assert!((gradient[0] - 12.0 / 5.2).abs() < 1e-14);
}

/// Atoms on a line, in one place, or as near to their reference one way round as another have a distance all the same: that of
/// two atoms is half of what their distances differ by.
#[test]
fn degenerate_superpositions_have_their_distance() {
    let system = five();
    let rmsd = |reference: &[f64]| {
        let atoms = (0..reference.len() / 3).collect();
        CollectiveVariable::Rmsd { atoms, reference: reference.to_vec() }.bind(&system).unwrap()
    };
    let full = |x: &[f64]| [x, &vec![0.0; 15 - x.len()]].concat();
    let mut gradient = [0.0; 15];
    let pair = rmsd(&[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    let x = full(&[5.0, 0.0, 0.0, 5.0, 1.6, 0.0]);
    assert!((pair.value(&x) - 0.3).abs() < 1e-14);
    pair.gradient(&x, &mut gradient);
    assert!((gradient[4] - 0.5).abs() < 1e-14 && (gradient[1] + 0.5).abs() < 1e-14 && gradient[3].abs() < 1e-14);
    // Atoms in one place are at the reference's root mean square radius, whatever its rotation.
    assert!((pair.value(&full(&[2.0; 6])) - 0.5).abs() < 1e-15);
    // Nearly on a line, some way round: products of such bends are lost beside the squares of the lengths.
    for (k, bend) in [0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3].into_iter().enumerate() {
        let bent = [[-1.0, 0.0, 0.0], [0.0, bend, 0.0], [1.5, 0.0, -bend], [2.0, bend, bend]].map(Vector3::from);
        let turned = |turn: f64| -> Vec<f64> {
            let turn = Rotation3::from_scaled_axis(Vector3::new(turn, 0.3 + k as f64, -1.1));
            bent.iter().flat_map(|p| <[f64; 3]>::from(turn * p)).collect()
        };
        let found = rmsd(&turned(0.4)).value(&full(&turned(2.5)));
        assert!(found < 1e-8, "bent by {bend}: {found}");
    }
    // A tetrahedron's mirror image fits as well four ways round, none of them well.
    let corners = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, 1.0];
    let inverted: Vec<f64> = corners.iter().map(|x| -x).collect();
    let found = rmsd(&corners).value(&full(&inverted));
    // Σ x·cᵀ is −4 times one, and the best rotation makes a trace of 4 of it: ⟨|x|²⟩ + ⟨|c|²⟩ − 2·4/4 = 4.
    assert!((found - 2.0).abs() < 1e-14, "{found}");
}

#[test]
fn intervals_on_a_circle_may_cross_its_seam() {
    let phi = CollectiveVariable::Dihedral { atoms: [0, 1, 2, 3] };
    assert!(phi.contains(2.5, -2.5, 3.1) && phi.contains(2.5, -2.5, -3.0) && !phi.contains(2.5, -2.5, 0.0));
    assert!(phi.contains(-3.2, 3.2, 1.0));
    let x = CollectiveVariable::Coordinate { index: 0 };
    assert!(x.contains(0.0, f64::INFINITY, 3.0) && !x.contains(0.0, 1.0, 1.0));
    let turns: CollectiveVariable = "expression(a;a=coordinate(0);period=10)".parse().unwrap();
    assert!(turns.contains(8.0, 2.0, 31.0) && !turns.contains(8.0, 2.0, 35.0));
}
