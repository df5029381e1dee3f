//! PDB: a line an atom, a model a frame, in Å.

use super::error::{damaged, unwritable};
use super::{Format, Trajectory, TrajectoryError};
use crate::energy::openmm::{Atom, Topology};
use std::io::Write;

/// The most atoms and models that the columns have room for.
const MAX_ATOMS: usize = 99_999;
const MAX_MODELS: usize = 9_999;
/// Coordinates in Å that eight columns hold with three decimals.
const COORDINATES: std::ops::Range<f64> = -999.999..9999.999;
/// Bonds that a CONECT record has room for.
const BONDS_A_RECORD: usize = 4;

pub(super) fn read(bytes: &[u8]) -> Result<Trajectory, TrajectoryError> {
    let mut models = Models::default();
    let mut lines = bytes.split(|b| *b == b'\n').enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        match line.get(..6).unwrap_or(line).trim_ascii_end() {
            b"MODEL" => {
                models.end()?;
                models.is_open = true;
            }
            // ENDMDL, END, and an ENDMDL that was cut.
            record if record.starts_with(b"END") => models.end()?,
            b"ATOM" | b"HETATM" => match coordinates(line) {
                Ok(position) => models.atom(position)?,
                // Only the last line has no end, and only where the file was cut.
                Err(_) if lines.peek().is_none() && models.count > 0 => models.is_open = true,
                Err(reason) => return Err(damaged(Format::Pdb, format!("in line {} {reason}", index + 1))),
            },
            _ => {}
        }
    }
    models.finish()
}

/// What was read of a file.
#[derive(Default)]
struct Models {
    /// Those that have ended.
    count: usize,
    atoms: usize,
    /// Of all models, also of the one that has not ended.
    positions: Vec<f64>,
    /// The atoms of the model that has not ended.
    atoms_since: usize,
    /// Whether something says that the end of a model is still to come.
    is_open: bool,
}

impl Models {
    fn atom(&mut self, position: [f64; 3]) -> Result<(), TrajectoryError> {
        self.positions.extend(position);
        self.atoms_since += 1;
        if self.count > 0 && self.atoms_since > self.atoms { Err(self.other_atoms()) } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), TrajectoryError> {
        self.is_open = false;
        if self.atoms_since == 0 {
            return Ok(());
        }
        if self.count == 0 {
            self.atoms = self.atoms_since;
        } else if self.atoms_since != self.atoms {
            return Err(self.other_atoms());
        }
        self.count += 1;
        self.atoms_since = 0;
        Ok(())
    }

    fn other_atoms(&self) -> TrajectoryError {
        let (frame, atoms, before) = (self.count + 1, self.atoms_since, self.atoms);
        TrajectoryError::OtherAtoms { format: Format::Pdb, frame, atoms, before }
    }

    /// The last model may lack its end, but none of its atoms.
    fn finish(mut self) -> Result<Trajectory, TrajectoryError> {
        let mut lost = None;
        if self.atoms_since > 0 || self.is_open {
            if self.count == 0 && !self.is_open || self.count > 0 && self.atoms_since == self.atoms {
                self.end()?;
            } else {
                let (model, atoms) = (self.count + 1, self.atoms_since);
                lost = Some(format!("the file ends in model {model}, of which {atoms} atoms are whole"));
                self.positions.truncate(self.count * self.atoms * 3);
            }
        }
        Ok(Trajectory { atoms: self.atoms, positions: self.positions, times_ps: None, lost })
    }
}

/// A position in nm, or why the line has none.
fn coordinates(line: &[u8]) -> Result<[f64; 3], String> {
    let mut position = [0.0; 3];
    for ((x, axis), first) in position.iter_mut().zip(["x", "y", "z"]).zip([31, 39, 47]) {
        let last = first + 7;
        // A line that ends within the number has lost digits that nothing shows the loss of.
        let columns = line.get(first - 1..last).and_then(|columns| std::str::from_utf8(columns).ok());
        match columns.and_then(|columns| columns.trim().parse::<f64>().ok()) {
            Some(angstrom) if angstrom.is_finite() => *x = 0.1 * angstrom,
            _ => return Err(format!("{axis} in columns {first} to {last} is not a finite number in Å")),
        }
    }
    Ok(position)
}

pub(super) fn write(trajectory: &Trajectory, topology: &Topology) -> Result<Vec<u8>, TrajectoryError> {
    let fault = |reason: String, remedy| Err(unwritable(Format::Pdb, reason, remedy));
    let (atoms, named, frames) = (trajectory.atoms, topology.atoms.len(), trajectory.frames());
    if named != atoms {
        return fault(format!("{named} atoms are named, and {atoms} have positions"), "pass the names of all atoms");
    }
    if atoms > MAX_ATOMS || frames > MAX_MODELS {
        let reason = format!("it has room for {MAX_ATOMS} atoms and {MAX_MODELS} models");
        return fault(reason, "write XTC or DCD, or fewer frames");
    }
    if let Some((a, b)) = topology.bonds.iter().find(|(a, b)| *a.max(b) >= atoms) {
        return fault(format!("a bond is between atoms {a} and {b} of {atoms}"), "pass indices that count from 0");
    }
    let records = topology.atoms.iter().map(Labels::new).collect::<Result<Vec<_>, _>>();
    let records = match records {
        Ok(records) => records,
        Err(reason) => return fault(reason, "give the molecule shorter names, or write XTC or DCD"),
    };

    let mut file = Vec::new();
    let write = |file: &mut Vec<u8>, text: std::fmt::Arguments<'_>| {
        // Writing to memory does not fail.
        let _ = file.write_fmt(text);
    };
    for (frame, row) in trajectory.rows().enumerate() {
        if frames > 1 {
            write(&mut file, format_args!("MODEL     {:4}\n", frame + 1));
        }
        for (index, (labels, x)) in records.iter().zip(row.as_chunks::<3>().0).enumerate() {
            let [x, y, z] = x.map(|x| 10.0 * x);
            if ![x, y, z].iter().all(|x| COORDINATES.contains(x)) {
                let reason = format!("atom {} in frame {} is too far away for its columns", index + 1, frame + 1);
                return fault(reason, "write XTC or DCD, or move the molecule to the origin");
            }
            let Labels { record, names, element } = labels;
            let serial = index + 1;
            write(&mut file, format_args!("{record}{serial:5} {names}    {x:8.3}{y:8.3}{z:8.3}"));
            write(&mut file, format_args!("  1.00  0.00          {element:>2}  \n"));
        }
        if frames > 1 {
            write(&mut file, format_args!("ENDMDL\n"));
        }
    }
    for (atom, partners) in partners(atoms, &topology.bonds).iter().enumerate() {
        for partners in partners.chunks(BONDS_A_RECORD) {
            write(&mut file, format_args!("CONECT{:5}", atom + 1));
            partners.iter().for_each(|partner| write(&mut file, format_args!("{:5}", partner + 1)));
            write(&mut file, format_args!("\n"));
        }
    }
    write(&mut file, format_args!("END\n"));
    Ok(file)
}

/// The atoms that each atom is bonded to.
fn partners(atoms: usize, bonds: &[(usize, usize)]) -> Vec<Vec<usize>> {
    let mut partners = vec![Vec::new(); atoms];
    for (a, b) in bonds {
        for (atom, partner) in [(*a, *b), (*b, *a)] {
            if let Some(partners) = partners.get_mut(atom) {
                partners.push(partner);
            }
        }
    }
    partners
}

/// The columns of an atom's line that are the same in every model.
struct Labels {
    record: &'static str,
    /// From the atom's name to the residue's number, columns 13 to 26.
    names: String,
    element: String,
}

/// Residues whose atoms have ATOM records; others are written as HETATM.
const POLYMERS: [&str; 35] = [
    "ALA", "ARG", "ASN", "ASP", "CYS", "GLN", "GLU", "GLY", "HIS", "ILE", "LEU", "LYS", "MET", "PHE", "PRO", "SER",
    "THR", "TRP", "TYR", "VAL", "A", "C", "G", "U", "I", "DA", "DC", "DG", "DT", "DI", "ASX", "GLX", "SEC", "PYL",
    "UNK",
];

impl Labels {
    fn new(atom: &Atom) -> Result<Self, String> {
        let Atom { name, element, residue_name, residue_number, chain } = atom;
        let fits =
            |text: &str, longest: usize| text.len() <= longest && text.bytes().all(|b| (b' '..=b'~').contains(&b));
        if !(fits(name, 4) && fits(element, 2) && fits(residue_name, 4) && fits(chain.encode_utf8(&mut [0; 4]), 1)) {
            return Err(format!(
                "its columns have no room for atom {name:.16?} ({element:.8?}) in residue {residue_name:.16?} \
                 of chain {chain:?}"
            ));
        }
        if !(-999..=9999).contains(residue_number) {
            return Err(format!("its columns have no room for the residue number {residue_number}"));
        }
        // The element's symbol is right-justified in columns 13 and 14, where the name leaves room for that.
        let name = if element.len() < 2 && name.len() < 4 { format!(" {name:<3}") } else { format!("{name:<4}") };
        let record = if POLYMERS.contains(&residue_name.as_str()) { "ATOM  " } else { "HETATM" };
        let residue = if residue_name.len() < 4 { format!("{residue_name:>3} ") } else { residue_name.clone() };
        Ok(Self {
            record,
            names: format!("{name} {residue}{chain}{residue_number:4}"),
            element: element.to_ascii_uppercase(),
        })
    }
}
