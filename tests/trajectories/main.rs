//! Files of trajectories: those of other programs, our own, and those that somebody cut or damaged.

mod formats;
mod hostile;

use boltzflow::energy::openmm::{Atom, Topology};

fn topology(atoms: &[Atom], bonds: &[(usize, usize)]) -> Topology {
    Topology { atoms: atoms.to_vec(), positions: Vec::new(), bonds: bonds.to_vec() }
}
