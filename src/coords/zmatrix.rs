//! The Z-matrix of a molecule, built from its bond graph.
//!
//! The first of several atoms around a rotatable bond carries the bond's torsion; its siblings are placed by their
//! torsion relative to it (an improper torsion), which is stiff. So each rotatable bond is one coordinate. Where a
//! constraint holds the distance of two siblings, the later one is placed by its angle to the earlier, so that the
//! constraint is a coordinate too.

use super::geometry::{cross, norm, sub};
use super::transform::CoordinatesError;
use std::collections::{BTreeSet, VecDeque};

/// Where an atom is placed: bonded to `bond`, at an angle to `angle`, at a torsion to `torsion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ZMatrixRow {
    pub atom: usize,
    pub bond: usize,
    pub angle: usize,
    pub torsion: usize,
    /// Whether the torsion is relative to a sibling (both bonded to `bond`), and so stiff.
    pub improper: bool,
}

/// What a Z-matrix is built from.
pub struct Molecule<'a> {
    /// Pairs of bonded atoms, the smaller index first.
    pub bonds: &'a [(usize, usize)],
    /// Pairs of atoms at a fixed distance, the smaller index first.
    pub constraints: &'a [(usize, usize)],
    /// Which atoms are not hydrogens.
    pub heavy: &'a [bool],
    /// A structure, in which no torsion is to be measured from atoms on a line; where there is none, any may be.
    pub structure: Option<&'a [f64]>,
}

/// The least sine of the angle between three atoms that a torsion is measured from, where there are others.
const BENT: f64 = 0.17;

/// The atoms that a Z-matrix starts from.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// The root and two atoms bonded to it; the frame's angle is second–root–third.
    Frame([usize; 3]),
    /// Atoms that something else places.
    Core(Vec<usize>),
}

impl Base {
    pub fn atoms(&self) -> &[usize] {
        match self {
            Self::Frame(atoms) => atoms,
            Self::Core(atoms) => atoms,
        }
    }

    /// The number of internal coordinates of the base: three of a frame, none of a core.
    pub fn internal_coordinates(&self) -> usize {
        match self {
            Self::Frame(_) => 3,
            Self::Core(_) => 0,
        }
    }
}

/// An order of placement: the atoms of the base, then the others.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ZMatrix {
    pub base: Base,
    pub rows: Vec<ZMatrixRow>,
}

impl ZMatrix {
    /// From a connected bond graph over at least three atoms.
    pub fn new(molecule: &Molecule) -> Result<Self, CoordinatesError> {
        let Molecule { bonds, heavy, .. } = molecule;
        if heavy.len() < 3 {
            return Err(CoordinatesError::Unsuitable(format!(
                "internal coordinates need at least three atoms; the system has {}",
                heavy.len()
            )));
        }
        let mut neighbours = neighbours(bonds, heavy.len())?;
        let root = Self::root(&neighbours, heavy)?;
        let branch = branch_sizes(root, &neighbours);
        // The longest branch of heavy atoms first: so the torsions of a chain are those of its backbone.
        for list in &mut neighbours {
            list.sort_by_key(|&j| (!heavy[j], std::cmp::Reverse(branch[j]), j));
        }
        let (second, third) = (neighbours[root][0], neighbours[root][1]);
        Self::grow(Base::Frame([root, second, third]), &neighbours, molecule)
    }

    /// From a core of at least three atoms, which every other atom is connected to.
    pub fn around(core: Vec<usize>, molecule: &Molecule) -> Result<Self, CoordinatesError> {
        let Molecule { bonds, heavy, .. } = molecule;
        let mut neighbours = neighbours(bonds, heavy.len())?;
        for list in &mut neighbours {
            list.sort_by_key(|&j| (!core.contains(&j), !heavy[j], j));
        }
        if let Some(lost) = depths(&core, &neighbours).iter().position(|&d| d == usize::MAX) {
            return Err(CoordinatesError::Unsuitable(format!(
                "atom {lost} has no path of bonds to the core; name an atom of its molecule in core_atoms"
            )));
        }
        Self::grow(Base::Core(core), &neighbours, molecule)
    }

    /// The centre of the molecule: the heavy atom with two neighbours or more that is nearest to both ends of the longest
    /// path. (Two searches find that path where there are no rings, and one nearly as long where there are.)
    fn root(neighbours: &[Vec<usize>], heavy: &[bool]) -> Result<usize, CoordinatesError> {
        let farthest =
            |depths: &[usize]| depths.iter().enumerate().max_by_key(|(_, d)| **d).map_or(0, |(atom, _)| atom);
        let from_any = depths(&[0], neighbours);
        if let Some(lost) = from_any.iter().position(|&d| d == usize::MAX) {
            return Err(CoordinatesError::Unsuitable(format!(
                "the bond graph is not connected: atom {lost} cannot be reached from atom 0. Internal coordinates are \
                 for one molecule; add the missing bonds, leave the other molecules out, or ask for mixed coordinates, whose \
                 core can have atoms of several"
            )));
        }
        let from_one_end = depths(&[farthest(&from_any)], neighbours);
        let from_other_end = depths(&[farthest(&from_one_end)], neighbours);
        let mut best: Option<((usize, bool, usize), usize)> = None;
        for (atom, list) in neighbours.iter().enumerate().filter(|(_, list)| list.len() >= 2) {
            let reach = from_one_end[atom].max(from_other_end[atom]);
            let key = (reach, !heavy[atom], usize::MAX - list.len());
            if best.is_none_or(|(k, _)| key < k) {
                best = Some((key, atom));
            }
        }
        match best {
            Some((_, atom)) => Ok(atom),
            None => {
                Err(CoordinatesError::Unsuitable("no atom has two bonds: the bond graph is not a molecule's".into()))
            }
        }
    }

    fn grow(base: Base, neighbours: &[Vec<usize>], molecule: &Molecule) -> Result<Self, CoordinatesError> {
        let constrained: BTreeSet<(usize, usize)> = molecule.constraints.iter().copied().collect();
        let are_constrained = |i: usize, j: usize| constrained.contains(&(i.min(j), i.max(j)));
        let mut parent = vec![usize::MAX; neighbours.len()];
        let mut placed = vec![false; neighbours.len()];
        base.atoms().iter().for_each(|&atom| placed[atom] = true);
        // What is bonded to an atom of the base is measured from a bond within the base; from another of its atoms if there
        // is none.
        for &atom in base.atoms() {
            let other = || base.atoms().iter().copied().find(|&other| other != atom);
            parent[atom] = neighbours[atom].iter().copied().find(|&j| placed[j]).or_else(other).unwrap_or(atom);
        }
        let of_base = placed.clone();
        let mut rows = Vec::with_capacity(neighbours.len() - base.atoms().len());
        let mut queue: VecDeque<usize> = base.atoms().iter().copied().collect();
        while let Some(centre) = queue.pop_front() {
            let axis = parent[centre];
            let is_bent = |j: usize| molecule.structure.is_none_or(|x| sine(x, axis, centre, j) > BENT);
            let is_sibling = |&&j: &&usize| of_base[centre] && of_base[j] && j != axis && is_bent(j);
            let mut siblings: Vec<usize> = neighbours[centre].iter().filter(is_sibling).copied().collect();
            for &atom in &neighbours[centre] {
                if placed[atom] {
                    continue;
                }
                let mut held = siblings.iter().copied().filter(|&sibling| are_constrained(atom, sibling));
                let (angle, torsion) = match (held.next(), siblings.first()) {
                    // With its distance to the axis held too, the first sibling fixes the torsion.
                    (Some(sibling), _) if are_constrained(atom, axis) => (axis, sibling),
                    (Some(sibling), _) => (sibling, held.next().unwrap_or(axis)),
                    (None, Some(&sibling)) => (axis, sibling),
                    (None, None) => (axis, across(centre, axis, neighbours, &placed, molecule.structure)?),
                };
                let improper = !siblings.is_empty();
                rows.push(ZMatrixRow { atom, bond: centre, angle, torsion, improper });
                siblings.push(atom);
                placed[atom] = true;
                parent[atom] = centre;
                queue.push_back(atom);
            }
        }
        Ok(Self { base, rows })
    }

    /// Which atoms others are measured from.
    pub(super) fn references(&self) -> Vec<bool> {
        let mut all = vec![false; self.atoms()];
        self.rows.iter().flat_map(|row| [row.bond, row.angle, row.torsion]).for_each(|atom| all[atom] = true);
        all
    }

    /// The number of atoms.
    pub fn atoms(&self) -> usize {
        self.rows.len() + self.base.atoms().len()
    }

    /// That every atom is placed once, from atoms placed before it.
    pub(super) fn check(&self) -> Result<(), CoordinatesError> {
        let fail = || Err(CoordinatesError::Stored("the Z-matrix does not place every atom once, in order".into()));
        let n = self.atoms();
        let mut placed = vec![false; n];
        for &atom in self.base.atoms() {
            if atom >= n || std::mem::replace(&mut placed[atom], true) {
                return fail();
            }
        }
        for row in &self.rows {
            let references = [row.bond, row.angle, row.torsion];
            let known = references.iter().all(|&r| r < n && placed[r]);
            let distinct = row.bond != row.angle && row.angle != row.torsion && row.bond != row.torsion;
            if row.atom >= n || placed[row.atom] || !known || !distinct {
                return fail();
            }
            placed[row.atom] = true;
        }
        Ok(())
    }
}

/// The atoms that each atom is bonded to.
pub(super) fn neighbours(bonds: &[(usize, usize)], atoms: usize) -> Result<Vec<Vec<usize>>, CoordinatesError> {
    let mut neighbours = vec![Vec::new(); atoms];
    for &(i, j) in bonds {
        if i >= atoms || j >= atoms || i == j {
            return Err(CoordinatesError::Unsuitable(format!(
                "the bond {i}–{j} does not fit a molecule of {atoms} atoms"
            )));
        }
        if !neighbours[i].contains(&j) {
            neighbours[i].push(j);
            neighbours[j].push(i);
        }
    }
    Ok(neighbours)
}

/// A placed atom beyond `axis`, from which the torsion about centre–axis is measured: the nearest that is not on a line
/// with them.
fn across(
    centre: usize,
    axis: usize,
    neighbours: &[Vec<usize>],
    placed: &[bool],
    structure: Option<&[f64]>,
) -> Result<usize, CoordinatesError> {
    let mut seen = BTreeSet::from([centre, axis]);
    let mut queue = VecDeque::from([axis]);
    let mut straight = None;
    while let Some(atom) = queue.pop_front() {
        for &next in neighbours[atom].iter().filter(|&&next| placed[next]) {
            if seen.insert(next) {
                if structure.is_none_or(|x| sine(x, centre, axis, next) > BENT) {
                    return Ok(next);
                }
                straight.get_or_insert(next);
                queue.push_back(next);
            }
        }
    }
    // Where the base is not connected, any atom.
    let rest = (0..placed.len()).filter(|&atom| placed[atom] && !seen.contains(&atom));
    for atom in rest {
        if structure.is_none_or(|x| sine(x, centre, axis, atom) > BENT) {
            return Ok(atom);
        }
        straight.get_or_insert(atom);
    }
    straight.ok_or_else(|| {
        CoordinatesError::Unsuitable(format!("no atom beyond {axis} is placed to measure a torsion at {centre} from"))
    })
}

/// The sine of the angle at the second of three atoms.
fn sine(x: &[f64], a: usize, b: usize, c: usize) -> f64 {
    let at = |atom: usize| [x[3 * atom], x[3 * atom + 1], x[3 * atom + 2]];
    let (u, v) = (sub(at(a), at(b)), sub(at(c), at(b)));
    norm(cross(u, v)) / (norm(u) * norm(v))
}

/// The number of atoms on the far side of each atom, as seen from the root along shortest paths.
fn branch_sizes(root: usize, neighbours: &[Vec<usize>]) -> Vec<usize> {
    let mut order = vec![root];
    let mut parent = vec![usize::MAX; neighbours.len()];
    parent[root] = root;
    let mut next = 0;
    while next < order.len() {
        let atom = order[next];
        next += 1;
        for &j in &neighbours[atom] {
            if parent[j] == usize::MAX {
                parent[j] = atom;
                order.push(j);
            }
        }
    }
    let mut sizes = vec![1; neighbours.len()];
    for &atom in order.iter().skip(1).rev() {
        sizes[parent[atom]] += sizes[atom];
    }
    sizes
}

/// The number of bonds from the nearest of some atoms to each other; `usize::MAX` for atoms out of reach.
fn depths(from: &[usize], neighbours: &[Vec<usize>]) -> Vec<usize> {
    let mut depth = vec![usize::MAX; neighbours.len()];
    from.iter().for_each(|&atom| depth[atom] = 0);
    let mut queue: VecDeque<usize> = from.iter().copied().collect();
    while let Some(atom) = queue.pop_front() {
        for &next in &neighbours[atom] {
            if depth[next] == usize::MAX {
                depth[next] = depth[atom] + 1;
                queue.push_back(next);
            }
        }
    }
    depth
}
