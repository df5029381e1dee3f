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

/// An order of placement: three atoms that make the frame, then the others.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ZMatrix {
    /// The root and two atoms bonded to it; the frame's angle is second–root–third.
    pub frame: [usize; 3],
    pub rows: Vec<ZMatrixRow>,
}

impl ZMatrix {
    /// From a connected bond graph over at least three atoms.
    pub fn new(molecule: &Molecule) -> Result<Self, CoordinatesError> {
        let fail = |reason: String| Err(CoordinatesError::Unsuitable(reason));
        let Molecule { bonds, heavy, .. } = molecule;
        let atoms = heavy.len();
        if atoms < 3 {
            return fail(format!("internal coordinates need at least three atoms; the system has {atoms}"));
        }
        let mut neighbours = vec![Vec::new(); atoms];
        for &(i, j) in *bonds {
            if i >= atoms || j >= atoms || i == j {
                return fail(format!("the bond {i}–{j} does not fit a molecule of {atoms} atoms"));
            }
            if !neighbours[i].contains(&j) {
                neighbours[i].push(j);
                neighbours[j].push(i);
            }
        }
        let root = Self::root(&neighbours, heavy)?;
        let branch = branch_sizes(root, &neighbours);
        // The longest branch of heavy atoms first: so the torsions of a chain are those of its backbone.
        for list in &mut neighbours {
            list.sort_by_key(|&j| (!heavy[j], std::cmp::Reverse(branch[j]), j));
        }
        Self::grow(root, &neighbours, molecule)
    }

    /// The centre of the molecule: the heavy atom with two neighbours or more that is nearest to both ends of the longest
    /// path. (Two searches find that path where there are no rings, and one nearly as long where there are.)
    fn root(neighbours: &[Vec<usize>], heavy: &[bool]) -> Result<usize, CoordinatesError> {
        let farthest =
            |depths: &[usize]| depths.iter().enumerate().max_by_key(|(_, d)| **d).map_or(0, |(atom, _)| atom);
        let from_any = depths(0, neighbours);
        if let Some(lost) = from_any.iter().position(|&d| d == usize::MAX) {
            return Err(CoordinatesError::Unsuitable(format!(
                "the bond graph is not connected: atom {lost} cannot be reached from atom 0. Internal coordinates are \
                 for one molecule; add the missing bonds or leave the other molecules out"
            )));
        }
        let from_one_end = depths(farthest(&from_any), neighbours);
        let from_other_end = depths(farthest(&from_one_end), neighbours);
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

    fn grow(root: usize, neighbours: &[Vec<usize>], molecule: &Molecule) -> Result<Self, CoordinatesError> {
        let constrained: BTreeSet<(usize, usize)> = molecule.constraints.iter().copied().collect();
        let are_constrained = |i: usize, j: usize| constrained.contains(&(i.min(j), i.max(j)));
        let (second, third) = (neighbours[root][0], neighbours[root][1]);
        let mut parent = vec![usize::MAX; neighbours.len()];
        let mut placed = vec![false; neighbours.len()];
        for atom in [root, second, third] {
            placed[atom] = true;
        }
        parent[second] = root;
        parent[third] = root;
        // The root's children are measured from its bond to the second atom.
        parent[root] = second;
        let mut rows = Vec::with_capacity(neighbours.len() - 3);
        let mut queue = VecDeque::from([root, second, third]);
        while let Some(centre) = queue.pop_front() {
            let axis = parent[centre];
            let mut siblings = if centre == root { vec![third] } else { Vec::new() };
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
        Ok(Self { frame: [root, second, third], rows })
    }

    /// The number of atoms.
    pub fn atoms(&self) -> usize {
        self.rows.len() + 3
    }

    /// That every atom is placed once, from atoms placed before it.
    pub(super) fn check(&self) -> Result<(), CoordinatesError> {
        let fail = || Err(CoordinatesError::Stored("the Z-matrix does not place every atom once, in order".into()));
        let n = self.atoms();
        let mut placed = vec![false; n];
        for &atom in &self.frame {
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

/// The number of bonds from one atom to each other; `usize::MAX` for atoms out of reach.
fn depths(from: usize, neighbours: &[Vec<usize>]) -> Vec<usize> {
    let mut depth = vec![usize::MAX; neighbours.len()];
    depth[from] = 0;
    let mut queue = VecDeque::from([from]);
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
