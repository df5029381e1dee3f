//! Files of trajectories: those of other programs, our own, and those that somebody cut or damaged.

use boltzflow::energy::openmm::Topology;
use boltzflow::trajectory::{Format, Trajectory, TrajectoryError, read, write};
use std::path::Path;

fn data(file: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/trajectories/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn format(file: &str) -> Format {
    Format::of_path(Path::new(file)).unwrap()
}

fn expected() -> Vec<f64> {
    let bytes = data("expected.npy");
    npyz::NpyFile::new(&bytes[..]).unwrap().into_vec().unwrap()
}

fn topology() -> Topology {
    let path = format!("{}/tests/data/openmm/alanine-dipeptide-obc1/topology.pdb", env!("CARGO_MANIFEST_DIR"));
    Topology::from_pdb(&std::fs::read_to_string(path).unwrap()).unwrap()
}

const FILES: [(&str, usize, f64); 8] = [
    ("whole.xtc", 22, 5.1e-4),
    ("few.xtc", 5, 1e-6),
    ("whole.dcd", 22, 1e-6),
    ("few.dcd", 5, 1e-6),
    ("whole.pdb", 22, 5.1e-5),
    ("whole.ncdf", 22, 1e-6),
    ("netcdf3_64bit_offset.nc", 22, 1e-6),
    ("netcdf3_64bit_data.nc", 22, 1e-6),
];

#[test]
fn files_of_other_programs_have_their_positions_in_nm() {
    let expected = expected();
    for (file, atoms, tolerance) in FILES {
        let trajectory = read(&data(file), format(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!((trajectory.atoms, trajectory.frames()), (atoms, 5), "{file}");
        assert_eq!(trajectory.lost, None, "{file}");
        for (frame, x) in trajectory.positions.chunks(3 * atoms).enumerate() {
            let reference = &expected[66 * frame..66 * frame + 3 * atoms];
            let gap = x.iter().zip(reference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(gap <= tolerance, "{file}, frame {frame}: {gap}");
        }
        // MDAnalysis writes no times into these.
        if file.ends_with("xtc") {
            continue;
        }
        if let Some(times) = trajectory.times {
            let steps: Vec<f64> = times.windows(2).map(|t| t[1] - t[0]).collect();
            assert!(steps.iter().all(|step| (step - 2.0).abs() < 1e-3), "{file}: {times:?}");
        } else {
            assert!(file.ends_with("pdb"), "{file}");
        }
    }
}

#[test]
fn what_is_written_is_read() {
    let topology = topology();
    for atoms in [3, 22] {
        let positions: Vec<f64> = expected().chunks(66).flat_map(|row| row[..3 * atoms].to_vec()).collect();
        let times = Some((0..5).map(|k| 0.5 * f64::from(k)).collect());
        let trajectory = Trajectory { atoms, positions, times, lost: None };
        for (format, tolerance) in [(Format::Xtc, 5.1e-4), (Format::Dcd, 1e-6), (Format::Pdb, 5.1e-5)] {
            if format == Format::Pdb && atoms != 22 {
                assert!(matches!(write(&trajectory, format, Some(&topology)), Err(TrajectoryError::Topology(_))));
                continue;
            }
            let bytes = write(&trajectory, format, Some(&topology)).unwrap();
            let back = read(&bytes, format).unwrap();
            assert_eq!((back.atoms, back.frames(), back.lost), (atoms, 5, None));
            let gap = back.positions.iter().zip(&trajectory.positions).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(gap <= tolerance, "{format:?}: {gap}");
            if let Some(times) = back.times {
                assert!(times.windows(2).all(|t| (t[1] - t[0] - 0.5).abs() < 1e-4), "{format:?}: {times:?}");
            }
        }
        assert!(matches!(write(&trajectory, Format::NetCdf, None), Err(TrajectoryError::Unsupported { .. })));
    }
    // Wider than three numbers of 24 bits, and negative.
    let far = Trajectory {
        atoms: 11,
        positions: (0..33).map(|k| 3e4 * f64::from(k) - 4e5).collect(),
        ..Trajectory::default()
    };
    let back = read(&write(&far, Format::Xtc, None).unwrap(), Format::Xtc).unwrap();
    assert!(back.positions.iter().zip(&far.positions).all(|(a, b)| (a - b).abs() < 1e-3));
    let endless = Trajectory { positions: vec![1e12; 33], ..far };
    assert!(matches!(write(&endless, Format::Xtc, None), Err(TrajectoryError::Frame { frame: 0, .. })));
}

/// Whole frames of a file that was cut are there, and what is lost is said.
#[test]
fn files_cut_in_mid_frame_keep_their_whole_frames() {
    for (file, _, _) in FILES {
        let (bytes, whole) = (data(file), read(&data(file), format(file)).unwrap());
        let mut most = 0;
        for cut in 0..bytes.len() {
            match read(&bytes[..cut], format(file)) {
                Ok(part) => {
                    assert!(part.frames() < 5 || file.ends_with("pdb"), "{file} cut at {cut}");
                    assert_eq!(part.positions, whole.positions[..part.positions.len()], "{file} cut at {cut}");
                    most = most.max(part.frames());
                    if let Some(lost) = part.lost {
                        assert!(lost.contains("ends within"), "{lost}");
                    }
                }
                Err(error) => assert!(error.to_string().len() < 300, "{file}: {error}"),
            }
        }
        assert!(most >= 4, "{file}: {most}");
    }
}

#[test]
fn damaged_files_are_refused_or_read_but_never_more() {
    for (file, _, _) in FILES {
        let bytes = data(file);
        for at in 0..bytes.len() {
            for value in [0x00, 0xff, bytes[at] ^ 0x10] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                // A number that is not there takes no memory: the positions are no more than the bytes could hold.
                if let Ok(trajectory) = read(&damaged, format(file)) {
                    assert!(trajectory.positions.len() <= 24 * bytes.len(), "{file}, byte {at}");
                    assert!(trajectory.positions.iter().all(|x| x.is_finite()));
                }
            }
        }
    }
    for format in [Format::Xtc, Format::Dcd, Format::Pdb, Format::NetCdf] {
        assert_eq!(read(&[], format), Err(TrajectoryError::Empty));
        let error = read(b"something else altogether", format).unwrap_err();
        assert!(matches!(error, TrajectoryError::Foreign { .. }), "{error}");
    }
    let text = String::from_utf8(data("whole.pdb")).unwrap().replacen("ENDMDL", "ATOM  ENDMDL", 1);
    assert!(read(text.as_bytes(), Format::Pdb).is_err());
    let nan = String::from_utf8(data("whole.pdb")).unwrap();
    let atom = nan.find("ATOM").or(nan.find("HETATM")).unwrap();
    let nan = format!("{}     nan{}", &nan[..atom + 30], &nan[atom + 38..]);
    assert!(read(nan.as_bytes(), Format::Pdb).unwrap_err().to_string().contains("finite"));
}
