//! Molecular mechanics from an OpenMM System XML, evaluated natively in f64 with gradients.
//!
//! `reader` reads the XML (through `xml`, which guards against bad input), `born_reader` and `expression` the generalized
//! Born models in it. `bonds`, `angles`, `torsions`, `nonbonded` and `born` are the forces; `mechanics` sums them over
//! batches, several configurations side by side (`lanes`, `vector`) in memory that each thread keeps (`workspace`).
//! `topology` reads the PDB file that names the atoms.

mod angles;
mod bonds;
mod born;
mod born_reader;
mod expression;
mod lanes;
mod mechanics;
mod nonbonded;
mod reader;
mod topology;
mod torsions;
mod vector;
mod workspace;
mod xml;

pub use mechanics::MolecularMechanics;
pub use reader::{Constraint, OpenMmSystem, read_system};
pub use topology::{Atom, Topology};
pub use xml::{MAX_ALL_PAIRS_ATOMS, MAX_ATOMS, MAX_XML_BYTES};
