//! Trajectories against files that other programs wrote (`data/make.py`), and there and back.

use super::topology;
use boltzflow::energy::openmm::Atom;
use boltzflow::trajectory::{Format, Trajectory, TrajectoryError, read, write};
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/trajectories").join(name)
}

fn positions(name: &str) -> Vec<f64> {
    let bytes = std::fs::read(data(name)).unwrap();
    npyz::NpyFile::new(&bytes[..]).unwrap().into_vec().unwrap()
}

fn open(name: &str) -> Trajectory {
    read(&std::fs::read(data(name)).unwrap(), Format::of_path(Path::new(name)).unwrap()).unwrap()
}

fn assert_near(actual: &[f64], expected: &[f64], tolerance: f64, name: &str) {
    assert_eq!(actual.len(), expected.len(), "{name}");
    for (i, (a, b)) in actual.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance + 1e-7 * b.abs(), "{name}: number {i} is {a}, not {b}");
    }
}

/// Five frames of 22 atoms, one of them 40 nm away, where f32 in Å is good to 2e-6 nm.
#[test]
fn files_of_other_programs_are_read() {
    let expected = positions("positions.npy");
    let since = |first: f64| Some((0..5).map(|i| first + f64::from(i)).collect::<Vec<_>>());
    for (name, tolerance, times) in [
        ("openmm.xtc", 5.1e-4, since(1.0)),
        ("openmm.dcd", 4e-6, since(1.0)),
        ("openmm-cell.dcd", 4e-6, since(1.0)),
        ("openmm.pdb", 5.1e-5, None),
        ("mdanalysis.xtc", 5.1e-4, since(0.0)),
        ("mdanalysis.dcd", 4e-6, since(0.0)),
        ("mdanalysis.nc", 4e-6, since(0.0)),
        ("scipy-cdf1.nc", 4e-6, since(0.0)),
        ("scipy-cdf2.nc", 1e-12, since(0.0)),
        ("netcdf4-cdf5.nc", 4e-6, since(0.0)),
    ] {
        let trajectory = open(name);
        assert_eq!((trajectory.atoms, trajectory.frames(), &trajectory.lost), (22, 5, &None), "{name}");
        assert_near(&trajectory.positions, &expected, tolerance, name);
        match (&trajectory.times_ps, &times) {
            (Some(actual), Some(times)) => assert_near(actual, times, 1e-6, name),
            (actual, times) => assert_eq!(actual, times, "{name}"),
        }
    }
}

#[test]
fn few_atoms_are_not_compressed() {
    let expected: Vec<f64> = positions("positions.npy").chunks(66).flat_map(|row| row[..15].to_vec()).collect();
    let trajectory = open("openmm-5-atoms.xtc");
    assert_eq!((trajectory.atoms, trajectory.frames()), (5, 5));
    assert_near(&trajectory.positions, &expected, 1e-6, "5 atoms");
}

/// Waters and a chain: runs, swapped atoms, differences whose size changes; and the same over 30 µm, where each
/// coordinate has its own bits. GROMACS's library rounds in f32.
#[test]
fn all_ways_of_compressing_are_read() {
    let mixed = positions("mixed.npy");
    assert_near(&open("mixed.xtc").positions, &mixed, 5.1e-4, "mixed");
    let wide: Vec<f64> = mixed.iter().map(|x| 1e4 * x).collect();
    assert_near(&open("wide.xtc").positions, &wide, 4e-3, "wide");
}

fn molecule(atoms: usize) -> Vec<Atom> {
    (0..atoms)
        .map(|i| Atom {
            name: format!("C{i}"),
            element: ["C", "Cl", "H"][i % 3].to_string(),
            residue_name: ["ALA", "LIGX", "U"][i % 3].to_string(),
            residue_number: i as i32 - 2,
            chain: [' ', 'A'][i % 2],
        })
        .collect()
}

#[test]
fn what_is_written_is_read_back() {
    for (name, scale) in [("positions.npy", 1.0), ("mixed.npy", 1.0), ("mixed.npy", 1e4), ("mixed.npy", 0.0)] {
        let positions: Vec<f64> = positions(name).iter().map(|x| scale * x).collect();
        let atoms = if name == "mixed.npy" { 280 } else { 22 };
        let frames = positions.len() / atoms / 3;
        let times = Some((0..frames).map(|i| 10.0 + 0.5 * i as f64).collect());
        let trajectory = Trajectory { atoms, positions, times_ps: times.clone(), lost: None };
        let (labels, bonds) = (molecule(atoms), [(0, 1), (1, 2), (0, 3), (0, 4), (0, 5), (6, 0)]);
        let named = topology(&labels, &bonds);
        let molecule = Some(&named);
        let formats =
            [(Format::Xtc, 5e-4 + 1e-9, &times), (Format::Dcd, 1e-6, &times), (Format::Pdb, 5e-5 + 1e-9, &None)];
        for (format, tolerance, times) in formats {
            if scale > 1.0 && format == Format::Pdb {
                let error = write(&trajectory, format, molecule).unwrap_err().to_string();
                assert!(error.contains("too far away") && error.contains("XTC"), "{error}");
                continue;
            }
            let back = read(&write(&trajectory, format, molecule).unwrap(), format).unwrap();
            let name = format!("{name} times {scale} as {format}");
            assert_eq!((back.atoms, back.frames(), &back.lost), (atoms, frames, &None), "{name}");
            assert_near(&back.positions, &trajectory.positions, tolerance, &name);
            assert_eq!(back.times_ps.is_some(), times.is_some(), "{name}");
            if let (Some(back), Some(times)) = (&back.times_ps, times) {
                assert_near(back, times, 1e-5, &name);
            }
        }
    }
}

/// Rounding once more changes nothing, and the compression is no worse than GROMACS's own by more than a tenth.
#[test]
fn xtc_is_stable_and_compresses() {
    for name in ["mixed.xtc", "wide.xtc", "openmm.xtc"] {
        let file = std::fs::read(data(name)).unwrap();
        let trajectory = read(&file, Format::Xtc).unwrap();
        let written = write(&trajectory, Format::Xtc, None).unwrap();
        assert_eq!(read(&written, Format::Xtc).unwrap(), trajectory, "{name}");
        assert!(written.len() * 10 <= file.len() * 11, "{name}: {} bytes, {} by others", written.len(), file.len());
    }
}

#[test]
fn every_number_of_atoms_compresses() {
    for atoms in 1..60 {
        let random = |i: usize| (i.wrapping_mul(2_654_435_761) % 1013) as f64 * if i % 7 < 4 { 1e-4 } else { 1e-2 };
        let positions: Vec<f64> = (0..6 * atoms).map(|i| random(i + atoms)).collect();
        let trajectory = Trajectory { atoms, positions, times_ps: None, lost: None };
        let back = read(&write(&trajectory, Format::Xtc, None).unwrap(), Format::Xtc).unwrap();
        assert_near(&back.positions, &trajectory.positions, 5e-4 + 1e-9, "random");
    }
}

#[test]
fn other_byte_orders_and_lengths_are_read() {
    // A DCD of the other byte order.
    let file = std::fs::read(data("openmm-cell.dcd")).unwrap();
    let mut swapped = file.clone();
    for (i, number) in swapped.chunks_exact_mut(4).enumerate() {
        let is_text = i == 1 || (24..64).contains(&i);
        if !is_text {
            number.reverse();
        }
    }
    assert_eq!(read(&swapped, Format::Dcd), read(&file, Format::Dcd));

    // X-PLOR's DCD, with a time step of 64 bits; and CHARMM's with a fourth dimension.
    let file = std::fs::read(data("openmm.dcd")).unwrap();
    let mut xplor = file.clone();
    xplor[44..52].copy_from_slice(&(0.002 / 0.048_888_21_f64).to_le_bytes());
    xplor[84..88].fill(0);
    let (xplor, charmm) = (read(&xplor, Format::Dcd).unwrap(), read(&file, Format::Dcd).unwrap());
    assert_eq!(xplor.positions, charmm.positions);
    assert_near(&xplor.times_ps.unwrap(), &charmm.times_ps.unwrap(), 1e-6, "X-PLOR");
    let (frames, frame_bytes) = (file.len() - 5 * 3 * 96, 3 * 96);
    let mut with_fourth = file[..frames].to_vec();
    with_fourth[52] = 1;
    for frame in file[frames..].chunks(frame_bytes) {
        with_fourth.extend([frame, &frame[..96]].concat());
    }
    assert_eq!(read(&with_fourth, Format::Dcd), read(&file, Format::Dcd));

    // GROMACS 2023's magic number, with lengths of 64 bits.
    let file = std::fs::read(data("openmm.xtc")).unwrap();
    let (mut long, mut rest) = (Vec::new(), &file[..]);
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[88..92].try_into().unwrap()) as usize;
        let end = 92 + length.next_multiple_of(4);
        long.extend([&2023_i32.to_be_bytes(), &rest[4..88], &[0; 4], &rest[88..end]].concat());
        rest = &rest[end..];
    }
    assert_eq!(read(&long, Format::Xtc), read(&file, Format::Xtc));

    // A NetCDF file whose writer never counted its records.
    let mut file = std::fs::read(data("scipy-cdf1.nc")).unwrap();
    let counted = read(&file, Format::AmberNetCdf).unwrap();
    file[4..8].fill(0xff);
    assert_eq!(read(&file, Format::AmberNetCdf).unwrap(), counted);
    file.truncate(file.len() - 10);
    let cut = read(&file, Format::AmberNetCdf).unwrap();
    assert_eq!(cut.positions, counted.positions[..4 * 66]);
    assert!(cut.lost.unwrap().contains("frame 5"));
}

#[test]
fn times_that_a_dcd_cannot_hold_are_left_out() {
    for times in [vec![0.0, 1.0, 3.0], vec![0.5, 1.7, 2.9], vec![3.0, 2.0, 1.0], vec![1.0; 3]] {
        let trajectory = Trajectory { atoms: 1, positions: vec![0.0; 9], times_ps: Some(times), lost: None };
        assert_eq!(read(&write(&trajectory, Format::Dcd, None).unwrap(), Format::Dcd).unwrap().times_ps, None);
    }
}

#[test]
fn what_cannot_be_written_is_refused() {
    let good = Trajectory { atoms: 2, positions: vec![0.0; 12], times_ps: None, lost: None };
    let edit = |change: fn(&mut Trajectory)| {
        let mut trajectory = good.clone();
        change(&mut trajectory);
        trajectory
    };
    for (trajectory, word) in [
        (edit(|t| t.atoms = 0), "no positions of 0 atoms"),
        (edit(|t| t.atoms = usize::MAX), "no positions"),
        (edit(|t| t.positions.clear()), "0 numbers"),
        (edit(|t| t.positions.truncate(11)), "11 numbers"),
        (edit(|t| t.positions[10] = f64::NAN), "atom 2 in frame 2"),
        (edit(|t| t.times_ps = Some(vec![0.0])), "1 times of 2 frames"),
    ] {
        for format in [Format::Xtc, Format::Dcd, Format::Pdb] {
            let error = write(&trajectory, format, None).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
    assert!(write(&edit(|t| t.positions[0] = 1e300), Format::Dcd, None).unwrap_err().to_string().contains("f32"));
    assert!(write(&edit(|t| t.positions[0] = 1e300), Format::Xtc, None).unwrap_err().to_string().contains("f32"));
    let far = Trajectory { atoms: 10, positions: vec![3e6; 30], ..good.clone() };
    assert!(write(&far, Format::Xtc, None).unwrap_err().to_string().contains("write DCD"));
    assert!(write(&good, Format::AmberNetCdf, None).unwrap_err().to_string().contains("only reads"));

    let atom = molecule(1).remove(0);
    type Change = fn(&mut Atom);
    let cases: [(&str, Change); 6] = [
        ("toolong", |a| a.name = "toolong".to_string()),
        ("residue", |a| a.residue_name = "new\nline".to_string()),
        ("residue number 10000", |a| a.residue_number = 10_000),
        ("chain", |a| a.chain = 'é'),
        ("chain", |a| a.chain = '\n'),
        ("Xyz", |a| a.element = "Xyz".to_string()),
    ];
    for (word, change) in cases {
        let mut atoms = vec![atom.clone(); 2];
        change(&mut atoms[1]);
        let error = write(&good, Format::Pdb, Some(&topology(&atoms, &[]))).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    let atoms = vec![atom; 2];
    let bonds = [(0, 2)];
    assert!(write(&good, Format::Pdb, Some(&topology(&atoms, &bonds))).is_err());
    assert!(write(&good, Format::Pdb, Some(&topology(&atoms[..1], &[]))).is_err());
    assert!(matches!(write(&good, Format::Pdb, None), Err(TrajectoryError::Unwritable { .. })));
}
