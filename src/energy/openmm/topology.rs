//! Atoms, residues and bonds from a PDB file.

use super::xml::quoted;
use crate::energy::potential::EnergyError;
use std::collections::HashMap;

/// The most atoms that are read from a PDB file.
const MAX_ATOMS: usize = 1_000_000;

/// What a PDB file says of a system: its atoms, the bonds of its CONECT records, and one structure.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// In the order of the file, that of the first model where it has several.
    pub atoms: Vec<Atom>,
    /// A row of 3N coordinates in nm (the file has them in Å).
    pub positions: Vec<f64>,
    /// Pairs of indices into `atoms`: the smaller one first, sorted, each once.
    pub bonds: Vec<(usize, usize)>,
}

/// An atom as a PDB file names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Atom {
    pub name: String,
    /// The element's symbol, such as `C` or `Cl`; from the atom's name where the file has no column for it.
    pub element: String,
    pub residue_name: String,
    pub residue_number: i32,
    /// The chain's letter; a blank where the file has none.
    pub chain: char,
}

/// Elements of two letters that the names of atoms begin with.
const HALOGENS: [&str; 2] = ["CL", "BR"];
/// Elements of two letters that make an ion, and with it a residue, of their own.
const IONS: [&str; 12] = ["LI", "NA", "MG", "CA", "MN", "FE", "CO", "NI", "CU", "ZN", "RB", "CS"];

impl Topology {
    /// Reads ATOM, HETATM and CONECT records, up to the end of the first model.
    ///
    /// # Errors
    /// [`EnergyError::Definition`] names the line and what is wrong with it: coordinates or a residue number that are
    /// not numbers, an atom without an element, bonds to atoms that the file does not have; no atoms, or too many.
    pub fn from_pdb(text: &str) -> Result<Self, EnergyError> {
        let (mut atoms, mut positions, mut connections) = (Vec::new(), Vec::new(), Vec::new());
        let mut serials: HashMap<&str, Option<usize>> = HashMap::new();
        let mut in_first_model = true;
        for (number, line) in text.lines().enumerate() {
            let line = Line { number: number + 1, text: line };
            match line.columns(1, 6).trim_end() {
                "ATOM" | "HETATM" if in_first_model => {
                    if atoms.len() == MAX_ATOMS {
                        return Err(line.fault(format!("more than {MAX_ATOMS} atoms; larger files are not read")));
                    }
                    serials.entry(line.columns(7, 11).trim()).and_modify(|i| *i = None).or_insert(Some(atoms.len()));
                    atoms.push(line.atom()?);
                    for (axis, first) in [("x", 31), ("y", 39), ("z", 47)] {
                        positions.push(line.coordinate(axis, first)?);
                    }
                }
                "ENDMDL" => in_first_model = false,
                "CONECT" => connections.push(line),
                "END" => break,
                _ => {}
            }
        }
        if atoms.is_empty() {
            return Err(EnergyError::Definition(
                "the PDB file has no atoms; pass one with ATOM or HETATM records".to_string(),
            ));
        }
        let mut bonds = Vec::new();
        for line in connections {
            let i = line.connected(7, &serials)?;
            for first in [12, 17, 22, 27] {
                if !line.columns(first, first + 4).trim().is_empty() {
                    let j = line.connected(first, &serials)?;
                    if i != j {
                        bonds.push((i.min(j), i.max(j)));
                    }
                }
            }
        }
        bonds.sort_unstable();
        bonds.dedup();
        Ok(Self { atoms, positions, bonds })
    }
}

/// A line of the file, counted from 1.
struct Line<'a> {
    number: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn fault(&self, what: impl std::fmt::Display) -> EnergyError {
        EnergyError::Definition(format!("line {} of the PDB file: {what}", self.number))
    }

    /// The columns from `first` to `last`, counted from 1 as the format's description does; what is there of them.
    fn columns(&self, first: usize, last: usize) -> &'a str {
        self.text.get(first - 1..last.min(self.text.len())).unwrap_or_default()
    }

    fn coordinate(&self, axis: &str, first: usize) -> Result<f64, EnergyError> {
        let text = self.columns(first, first + 7);
        match text.trim().parse::<f64>() {
            // A line that ends within the number has lost digits that nothing shows the loss of.
            Ok(x) if x.is_finite() && text.len() == 8 => Ok(0.1 * x),
            _ => Err(self.fault(format!(
                "{axis} in columns {first} to {} is \"{}\"; it must be a finite number in Å",
                first + 7,
                quoted(text)
            ))),
        }
    }

    fn atom(&self) -> Result<Atom, EnergyError> {
        let number = self.columns(23, 26).trim();
        let residue_number = number.parse().map_err(|_| {
            self.fault(format!(
                "the residue number in columns 23 to 26 is \"{}\"; it must be an integer",
                quoted(number)
            ))
        })?;
        let element = self.element().ok_or_else(|| {
            self.fault("the atom has no element; write its symbol into columns 77 and 78, or name the atom after it")
        })?;
        Ok(Atom {
            name: self.columns(13, 16).trim().to_string(),
            element,
            residue_name: self.columns(18, 21).trim().to_string(),
            residue_number,
            chain: self.columns(22, 22).chars().next().unwrap_or(' '),
        })
    }

    /// The element of columns 77 and 78, or else that of the name: right-justified in columns 13 and 14, unless all four
    /// are needed for the name of a hydrogen.
    fn element(&self) -> Option<String> {
        let given = self.columns(77, 78).trim();
        if !given.is_empty() && given.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Some(symbol(given));
        }
        let name = self.columns(13, 16).trim().trim_start_matches(|c: char| c.is_ascii_digit());
        if let Some(two) = name.get(..2).map(str::to_ascii_uppercase)
            && !self.columns(13, 13).trim().is_empty()
        {
            let residue = self.columns(18, 21).trim().to_ascii_uppercase();
            let is_ion = IONS.contains(&two.as_str()) && residue.starts_with(&two);
            if is_ion || HALOGENS.contains(&two.as_str()) {
                return Some(symbol(&two));
            }
        }
        name.get(..1).filter(|first| first.bytes().all(|b| b.is_ascii_alphabetic())).map(symbol)
    }

    /// The index of the atom whose serial number is in the five columns from `first`.
    fn connected(&self, first: usize, serials: &HashMap<&str, Option<usize>>) -> Result<usize, EnergyError> {
        let serial = self.columns(first, first + 4).trim();
        match serials.get(serial) {
            Some(Some(index)) => Ok(*index),
            Some(None) => Err(self.fault(format!("several atoms have the serial number {}", quoted(serial)))),
            None => Err(self.fault(format!("no atom has the serial number \"{}\"", quoted(serial)))),
        }
    }
}

/// A symbol with the letters' cases as usual: `CL` is `Cl`.
fn symbol(letters: &str) -> String {
    let mut symbol = letters.to_ascii_lowercase();
    if let Some(first) = symbol.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    symbol
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIPEPTIDE: &str = include_str!("../../../tests/data/openmm/alanine-dipeptide-obc1/topology.pdb");

    #[test]
    fn a_file_of_openmm_is_read_whole() {
        let topology = Topology::from_pdb(DIPEPTIDE).unwrap();
        let names: Vec<_> = topology.atoms.iter().map(|a| format!("{}{}", a.residue_name, a.name)).collect();
        assert_eq!((names[0].as_str(), names[8].as_str(), names[21].as_str()), ("ACEH1", "ALACA", "NMEH3"));
        let alpha = &topology.atoms[8];
        assert_eq!((alpha.element.as_str(), alpha.residue_number, alpha.chain), ("C", 2, '1'));
        assert!((topology.positions[3 * 8] - 0.4911).abs() < 1e-12);
        // OpenMM writes CONECT only for bonds that the residues' names do not imply.
        assert_eq!(
            topology.bonds,
            [(0, 1), (1, 2), (1, 3), (1, 4), (4, 5), (4, 6), (14, 16), (16, 17), (16, 18)]
                .into_iter()
                .chain([(18, 19), (18, 20), (18, 21)])
                .collect::<Vec<_>>()
        );
    }

    /// Programs before version 3 of the format write no element, and place the name so that it shows.
    #[test]
    fn elements_follow_from_names() {
        let without = DIPEPTIDE.lines().map(|l| format!("{}\n", l.get(..66).unwrap_or(l))).collect::<String>();
        assert_eq!(Topology::from_pdb(&without), Topology::from_pdb(DIPEPTIDE));
        let cases = [
            (" CA  ALA", "C"),
            ("CA    CA", "Ca"),
            ("CL1  LIG", "Cl"),
            ("HG11 VAL", "H"),
            ("1HB  ALA", "H"),
            (" NA  HEM", "N"),
            ("NA    NA", "Na"),
            ("CA   ALA", "C"),
            (" OXT ALA", "O"),
        ];
        for (name, element) in cases {
            let line = format!("ATOM      1 {name} A   1      11.000  12.000  13.000");
            assert_eq!(Topology::from_pdb(&line).unwrap().atoms[0].element, element, "{name}");
        }
    }

    #[test]
    fn only_the_first_model_is_read() {
        let atom = "HETATM    1  O   HOH A   1      11.000  12.000  13.000";
        let text = format!("MODEL        1\n{atom}\nTER\nENDMDL\nMODEL        2\n{atom}\nENDMDL\nEND\n");
        assert_eq!(Topology::from_pdb(&text).unwrap().positions, [11.0, 12.0, 13.0].map(|x| 0.1 * x));
    }

    #[test]
    fn bad_files_are_refused_with_the_line() {
        let good = "ATOM      1  N   ALA A   1      11.000  12.000  13.000  1.00  0.00           N";
        let edits = [
            (String::new(), "no atoms"),
            ("END\n".to_string() + good, "no atoms"),
            (good[..50].to_string(), "line 1"),
            (good[..20].to_string(), "residue number"),
            (format!("REMARK\n{}", good.replace("12.000", "   nan")), "line 2"),
            (good.replace("12.000", "1e9999"), "finite"),
            (good.replace("12.000", "12.0x0"), "columns 39 to 46"),
            (good.replace("A   1", "A   x"), "columns 23 to 26"),
            (good.replace("N   ALA", "é   ALA").replace("           N", ""), "line 1"),
            (good.replace("  N   ALA", "  123 ALA").replace("           N", ""), "element"),
            (format!("{good}\nCONECT    1    7"), "line 2"),
            (format!("{good}\nCONECT"), "line 2"),
            (format!("{good}\n{good}\nCONECT    1    1"), "several atoms"),
            (format!("{good}\n").repeat(MAX_ATOMS + 1), "more than 1000000 atoms"),
        ];
        for (text, word) in edits {
            let error = Topology::from_pdb(&text).expect_err(word).to_string();
            assert!(error.contains(word) && error.len() < 300, "{word}: {error}");
        }
    }
}
