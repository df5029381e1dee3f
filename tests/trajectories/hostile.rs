//! Files that were cut, damaged or made up: an error with a remedy, or whole frames, and never a panic.

use super::topology;
use boltzflow::energy::openmm::Atom;
use boltzflow::trajectory::{Format, Trajectory, TrajectoryError, read, write};
use std::path::Path;

const FILES: [&str; 11] = [
    "openmm.xtc",
    "openmm-5-atoms.xtc",
    "mixed.xtc",
    "wide.xtc",
    "openmm.dcd",
    "openmm-cell.dcd",
    "openmm.pdb",
    "mdanalysis.nc",
    "scipy-cdf1.nc",
    "scipy-cdf2.nc",
    "netcdf4-cdf5.nc",
];

fn data(name: &str) -> (Vec<u8>, Format) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/trajectories").join(name);
    (std::fs::read(&path).unwrap(), Format::of_path(&path).unwrap())
}

fn assert_sound(result: Result<Trajectory, TrajectoryError>, file: &[u8], case: &str) {
    match result {
        Ok(trajectory) => {
            assert!(trajectory.atoms > 0 && trajectory.frames() > 0, "{case}");
            assert_eq!(trajectory.positions.len(), trajectory.frames() * trajectory.atoms * 3, "{case}");
            assert!(trajectory.positions.iter().all(|x| x.is_finite()), "{case}");
            assert!(
                trajectory
                    .times_ps
                    .is_none_or(|times| times.len() * 3 * trajectory.atoms == trajectory.positions.len())
            );
            assert!(trajectory.positions.capacity() <= 64 + 24 * file.len(), "{case}");
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(';') && text.len() < 300, "{case}: {text}");
        }
    }
}

#[test]
fn files_that_were_cut_have_their_whole_frames() {
    for name in FILES {
        let (file, format) = data(name);
        let whole = read(&file, format).unwrap();
        assert_eq!(whole.lost, None, "{name}");
        let mut frames_seen = 0;
        for length in 0..file.len() {
            let case = format!("{name} cut to {length} bytes");
            let cut = read(&file[..length], format);
            assert_sound(cut.clone(), &file[..length], &case);
            let Ok(cut) = cut else {
                assert_eq!(frames_seen, 0, "{case}");
                continue;
            };
            assert_eq!(cut.atoms, whole.atoms, "{case}");
            assert!(whole.positions.starts_with(&cut.positions), "{case}");
            // A file without a count of its frames may be whole where it ends between two of them.
            let is_between = cut.frames() > frames_seen || format == Format::Pdb;
            assert!(cut.lost.is_some() || is_between || cut.frames() == whole.frames(), "{case}");
            frames_seen = cut.frames();
        }
        assert!(frames_seen + 1 >= whole.frames(), "{name}");
    }
}

#[test]
fn damaged_bytes_are_survived() {
    // The PDB file is long; the test below has a short one.
    for name in FILES.into_iter().filter(|name| *name != "openmm.pdb") {
        let (mut file, format) = data(name);
        let step = if file.len() > 3000 { 7 } else { 1 };
        for index in (0..file.len()).step_by(step) {
            let good = file[index];
            for bad in [0, 0xff, 0x7f, good ^ 1, good ^ 0x80, good ^ 4, b'\n', b'9'] {
                file[index] = bad;
                assert_sound(read(&file, format), &file, &format!("{name} with {bad} in byte {index}"));
            }
            file[index] = good;
        }
    }
}

/// Small files with every value of every byte.
#[test]
fn every_damaged_byte_is_survived() {
    let make = |atoms: usize| {
        let positions = (0..6 * atoms).map(|i| 0.01 * (i * i % 53) as f64).collect();
        Trajectory { atoms, positions, times_ps: Some(vec![1.0, 2.0]), lost: None }
    };
    let atom = Atom {
        name: "C".to_string(),
        element: "C".to_string(),
        residue_name: "ALA".to_string(),
        residue_number: 1,
        chain: 'A',
    };
    let atoms = vec![atom; 2];
    let named = topology(&atoms, &[(0, 1)]);
    let molecule = Some(&named);
    for (atoms, format) in [(12, Format::Xtc), (30, Format::Xtc), (2, Format::Xtc), (2, Format::Dcd), (2, Format::Pdb)]
    {
        let mut file = write(&make(atoms), format, molecule).unwrap();
        for index in 0..file.len() {
            let good = file[index];
            for bad in 0..=255 {
                file[index] = bad;
                assert_sound(read(&file, format), &file, &format!("{format} with {bad} in byte {index}"));
            }
            file[index] = good;
        }
    }
}

/// Bytes after a good beginning, so that the decoders see numbers that no writer makes.
#[test]
fn noise_is_survived() {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for name in FILES {
        let (good, format) = data(name);
        for case in 0..500 {
            let mut file = good.clone();
            for _ in 0..1 + random() % 8 {
                let index = random() % file.len().min(if case % 2 == 0 { 200 } else { usize::MAX });
                file[index] = random() as u8;
            }
            assert_sound(read(&file, format), &file, &format!("{name}, case {case}"));
        }
    }
}

fn error(file: &[u8], format: Format) -> String {
    read(file, format).unwrap_err().to_string()
}

#[test]
fn other_files_are_refused_with_a_remedy() {
    for format in [Format::Xtc, Format::Dcd, Format::Pdb, Format::AmberNetCdf] {
        assert!(error(&[], format).contains("empty"));
        assert!(error(b"once upon a time, there was a file", format).contains(&format.to_string()));
        for name in FILES {
            let (file, actual) = data(name);
            assert_eq!(read(&file, format).is_ok(), format == actual, "{name} as {format}");
        }
    }
    assert!(error(b"\x89HDF\r\n\x1a\n and more", Format::AmberNetCdf).contains("nccopy"));
    assert!(error(&[84, 0, 0, 0, 0, 0, 0, 0, b'C', b'O', b'R', b'D'], Format::Dcd).contains("64 bits"));

    let (mut dcd, _) = data("openmm.dcd");
    dcd[4..8].copy_from_slice(b"VELD");
    assert!(error(&dcd, Format::Dcd).contains("velocities"));
    dcd[4..8].copy_from_slice(b"CORD");
    dcd[40] = 3;
    assert!(error(&dcd, Format::Dcd).contains("fixed"));
}

#[test]
fn frames_that_are_not_finite_are_named() {
    let (mut xtc, _) = data("openmm-5-atoms.xtc");
    let frame = xtc.len() / 5;
    xtc[frame + 56 + 12..][..4].copy_from_slice(&f32::NAN.to_be_bytes());
    assert!(error(&xtc, Format::Xtc).contains("atom 2 in frame 2"));
    let (mut dcd, _) = data("openmm.dcd");
    let end = dcd.len();
    dcd[end - 8..end - 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    assert!(error(&dcd, Format::Dcd).contains("atom 22 in frame 5"));
}

#[test]
fn frames_of_other_molecules_are_refused() {
    let xtc = [data("openmm.xtc").0, data("openmm-5-atoms.xtc").0].concat();
    assert!(error(&xtc, Format::Xtc).contains("frame 6 of the XTC file has 5 atoms, and the frames before it have 22"));
    let line = "HETATM    1  O   HOH A   1      11.000  12.000  13.000\n";
    let model = |count: usize| format!("MODEL        1\n{}TER\nENDMDL\n", line.repeat(count));
    assert!(error((model(2) + &model(1)).as_bytes(), Format::Pdb).contains("frame 2 of the PDB file has 1 atoms"));
    assert!(error((model(2) + &model(3)).as_bytes(), Format::Pdb).contains("frame 2 of the PDB file has 3 atoms"));
}

#[test]
fn models_end_in_several_ways() {
    let line = "HETATM    1  O   HOH A   1      11.000  12.000  13.000\n";
    let frames = |text: &str| read(text.as_bytes(), Format::Pdb).map(|t| (t.frames(), t.atoms, t.lost.is_some()));
    for (text, expected) in [
        (format!("{line}{line}"), (1, 2, false)),
        (format!("{line}END\r\n{line}END\r\n"), (2, 1, false)),
        (format!("MODEL 1\n{line}MODEL 2\n{line}ENDMDL\nEND\n"), (2, 1, false)),
        (format!("{line}{line}END\n{line}"), (1, 2, true)),
        (format!("{line}{line}END\n{line}{}", &line[..40]), (1, 2, true)),
        (format!("MODEL 1\n{line}ENDMDL\nMODEL 2\n"), (1, 1, true)),
    ] {
        assert_eq!(frames(&text), Ok(expected), "{text}");
    }
    assert!(frames(&format!("MODEL 1\n{line}")).unwrap_err().to_string().contains("the file ends in model 1"));
    assert!(frames(&format!("{line}{}", &line[..40])).unwrap_err().to_string().contains("in line 2 y"));
    assert!(frames("REMARK nothing\n").unwrap_err().to_string().contains("no whole frame"));
    let bad = line.replace("12.000", "   nan");
    assert!(frames(&format!("{bad}{line}")).unwrap_err().to_string().contains("in line 1 y in columns 39 to 46"));
}
