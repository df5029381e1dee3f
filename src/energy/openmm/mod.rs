//! Molecular mechanics from an OpenMM System XML, evaluated natively in f64 with gradients.
//!
//! `reader` reads the XML (through `xml`, which guards against bad input). The forces with formulas of their own are
//! `bonds`, `angles`, `torsions`, `torsion_maps`, `nonbonded` and `born` (`born_reader` and `born_forms` know it when they
//! see it). Those that are given by expressions (`expression`, `custom_reader`) are `custom_terms`, `custom_pairs`,
//! `custom_born` (`custom_born_reader`; `custom_born_packed` is for few configurations) and `collective`. `mechanics` sums
//! them over batches, several configurations side by side (`lanes`, `vector`, `measures`, `pairs`) in memory that each
//! thread keeps (`workspace`). `topology` reads the PDB file that names the atoms.

mod angles;
mod bonds;
mod born;
mod born_forms;
mod born_reader;
mod collective;
mod custom_born;
mod custom_born_packed;
mod custom_born_reader;
mod custom_pairs;
mod custom_reader;
mod custom_terms;
mod expression;
mod lanes;
mod measures;
mod mechanics;
mod nonbonded;
mod pairs;
mod reader;
mod topology;
mod torsion_maps;
mod torsions;
mod vector;
mod workspace;
mod xml;

pub use expression::NamedExpression;
pub use mechanics::MolecularMechanics;
pub use reader::{Constraint, OpenMmSystem, read_system};
pub use topology::{Atom, Topology};
pub use xml::{MAX_ALL_PAIRS_ATOMS, MAX_ATOMS, MAX_XML_BYTES};
