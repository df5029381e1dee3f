//! PDB files of one model or many, a model being a frame.

use super::{ANGSTROM, Trajectory, TrajectoryError};
use crate::energy::openmm::Topology;
use std::fmt::Write;

fn fault(frame: usize, reason: String) -> TrajectoryError {
    TrajectoryError::Frame { format: "PDB", frame, reason }
}

pub(super) fn read(bytes: &[u8]) -> Result<Trajectory, TrajectoryError> {
    // Names may be in any encoding; coordinates are digits.
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().count();
    let mut trajectory = Trajectory::default();
    let mut open = Vec::new();
    let (mut frames, mut in_model, mut has_models) = (0, false, false);
    let mut end = |positions: &mut Vec<f64>, trajectory: &mut Trajectory| {
        let atoms = positions.len() / 3;
        if frames == 0 {
            trajectory.atoms = atoms;
        } else if atoms != trajectory.atoms {
            let reason = format!("it has {atoms} atoms, and the first model has {}", trajectory.atoms);
            return Err(fault(frames, reason));
        }
        trajectory.positions.append(positions);
        frames += 1;
        Ok(frames)
    };
    for (number, line) in text.lines().enumerate() {
        match line.get(..6.min(line.len())).unwrap_or_default().trim_end() {
            "MODEL" => (in_model, has_models) = (true, true),
            // Atoms outside of models, in a file that has some, are of no frame.
            "ATOM" | "HETATM" if in_model || !has_models => {
                for first in [30, 38, 46] {
                    let columns = line.get(first..first + 8).unwrap_or_default();
                    let Ok(x) = columns.trim().parse::<f64>() else {
                        if !has_models || number + 1 < lines {
                            let what = format!(
                                "line {} has \"{columns}\" in columns {} to {}, which must be a number in Å",
                                number + 1,
                                first + 1,
                                first + 8
                            );
                            return Err(fault(trajectory.frames(), what));
                        }
                        open.clear();
                        break;
                    };
                    open.push(ANGSTROM * x);
                }
            }
            "ENDMDL" if in_model => {
                end(&mut open, &mut trajectory)?;
                in_model = false;
            }
            "END" if !in_model => break,
            _ => {}
        }
    }
    if !has_models && !open.is_empty() {
        end(&mut open, &mut trajectory)?;
    }
    if in_model {
        trajectory.lost = Some(format!("the file ends within model {}", trajectory.frames() + 1));
    }
    Ok(trajectory)
}

pub(super) fn write(trajectory: &Trajectory, topology: &Topology) -> Result<Vec<u8>, TrajectoryError> {
    let mut out = String::from("REMARK   1 WRITTEN BY BOLTZFLOW\n");
    for (frame, positions) in trajectory.positions.chunks_exact((3 * trajectory.atoms).max(1)).enumerate() {
        // Writing into a string cannot fail.
        let _ = writeln!(out, "MODEL     {:4}", (frame + 1) % 10_000);
        for (i, (atom, x)) in topology.atoms.iter().zip(positions.chunks_exact(3)).enumerate() {
            let [x, y, z] = [0, 1, 2].map(|axis| format!("{:8.3}", x[axis] / ANGSTROM));
            if [&x, &y, &z].iter().any(|text| text.len() != 8) {
                return Err(fault(frame, format!("atom {i} is at {x}, {y}, {z} Å, which the format cannot hold")));
            }
            // A name of up to three letters begins where the element's one letter does.
            let name = if atom.name.len() < 4 && atom.element.len() == 1 {
                format!(" {:<3}", atom.name)
            } else {
                format!("{:<4.4}", atom.name)
            };
            let _ = writeln!(
                out,
                "ATOM  {:5} {name} {:>3.3} {}{:4}    {x}{y}{z}  1.00  0.00          {:>2}",
                (i + 1) % 100_000,
                atom.residue_name,
                atom.chain,
                atom.residue_number.rem_euclid(10_000),
                atom.element,
            );
        }
        out.push_str("ENDMDL\n");
    }
    for (i, j) in &topology.bonds {
        let _ = writeln!(out, "CONECT{:5}{:5}", (i + 1) % 100_000, (j + 1) % 100_000);
    }
    out.push_str("END\n");
    Ok(out.into_bytes())
}
