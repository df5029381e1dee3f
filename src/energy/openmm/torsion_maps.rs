//! Energies of two dihedrals by a map: OpenMM's CMAPTorsionForce (MacKerell, Feig and Brooks, J. Comput. Chem. 25, 1400
//! (2004)), a periodic bicubic surface through the values of a square grid.

use super::expression::{Axis, Table};
use super::lanes::{Lanes, Vector, WIDTH};
use super::measures::{Dihedral, signed_angle};
use super::xml::Element;
use crate::energy::potential::EnergyError;
use std::f64::consts::PI;

/// OpenMM's CMAPTorsionForce.
#[derive(Debug)]
pub(super) struct TorsionMaps {
    maps: Vec<Table>,
    torsions: Vec<MappedTorsions>,
}

#[derive(Debug)]
struct MappedTorsions {
    map: usize,
    first: [u32; 4],
    second: [u32; 4],
}

impl TorsionMaps {
    pub fn read(force: &Element, atoms: usize) -> Result<Self, EnergyError> {
        let maps = force.child("Maps")?.children("Map").map(|map| read_map(&map?)).collect::<Result<Vec<_>, _>>()?;
        let mut torsions = Vec::new();
        for torsion in force.child("Torsions")?.children("Torsion") {
            let torsion = torsion?;
            let index = torsion.integer("map")?;
            let map = usize::try_from(index).ok().filter(|&map| map < maps.len()).ok_or_else(|| {
                torsion.fault(format!("attribute map is {index}; it must be the index of one of {} maps", maps.len()))
            })?;
            torsions.push(MappedTorsions {
                map,
                first: torsion.particles(["a1", "a2", "a3", "a4"], atoms)?,
                second: torsion.particles(["b1", "b2", "b3", "b4"], atoms)?,
            });
        }
        Ok(Self { maps, torsions })
    }

    #[inline(always)]
    pub fn evaluate<const GRADIENT: bool>(&self, at: &[Vector], gradient: &mut [Vector]) -> Lanes {
        let mut energy = Lanes::ZERO;
        for torsion in &self.torsions {
            let map = &self.maps[torsion.map];
            let atoms = [torsion.first, torsion.second].map(|atoms| atoms.map(|a| a as usize));
            let dihedrals = atoms.map(|atoms| Dihedral::new(at, atoms));
            let [phi, psi] = [&dihedrals[0], &dihedrals[1]].map(|dihedral| {
                let [sine, cosine] = dihedral.sine_and_cosine();
                signed_angle(sine, cosine)
            });
            let value = |derivative: Option<u8>| {
                let mut out = Lanes::ZERO;
                for lane in 0..WIDTH {
                    out.0[lane] = map.evaluate([phi.0[lane], psi.0[lane], 0.0], derivative);
                }
                out
            };
            energy += value(None);
            if GRADIENT {
                for (k, (dihedral, atoms)) in dihedrals.iter().zip(atoms).enumerate() {
                    dihedral.pull(gradient, atoms, value(Some(k as u8)));
                }
            }
        }
        energy
    }
}

/// A map of n × n energies at multiples of 2π/n from 0 on, the first dihedral running fastest.
fn read_map(map: &Element) -> Result<Table, EnergyError> {
    let size = map.integer("size")?;
    let energies = map.children("Energy").map(|energy| energy?.number("e")).collect::<Result<Vec<_>, _>>()?;
    let n = usize::try_from(size).ok().filter(|n| *n > 0 && n.checked_mul(*n) == Some(energies.len())).ok_or_else(
        || {
            map.fault(format!(
                "attribute size is {size}, and it has {} energies; it must have size² of them",
                energies.len()
            ))
        },
    )?;
    // A periodic table has its first point again at the end.
    let values: Vec<f64> =
        (0..=n).flat_map(|j| (0..=n).map(move |i| (i % n, j % n))).map(|(i, j)| energies[i + n * j]).collect();
    let axis = Axis { minimum: 0.0, maximum: 2.0 * PI, points: n + 1, periodic: true };
    Table::smooth(vec![axis, axis], &values).map_err(|what| map.fault(what))
}
