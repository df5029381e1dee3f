//! The Z-matrix of a molecule, built from its bond graph.
//!
//! The first of several atoms around a rotatable bond carries the bond's torsion; its siblings are placed by their
//! torsion relative to it (an improper torsion), which is stiff. So each rotatable bond is one coordinate.

use super::transform::CoordinatesError;

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

/// An order of placement: three atoms that make the frame, then the others.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ZMatrix {
    /// The root and two atoms bonded to it; the frame's angle is second–root–third.
    pub frame: [usize; 3],
    pub rows: Vec<ZMatrixRow>,
}

impl ZMatrix {
    /// From a connected bond graph over at least three atoms. `heavy` says which atoms are not hydrogens.
    pub fn from_bonds(atoms: usize, bonds: &[(usize, usize)], heavy: &[bool]) -> Result<Self, CoordinatesError> {
        let fail = |reason: String| Err(CoordinatesError::Unsuitable(reason));
        if atoms < 3 {
            return fail(format!("internal coordinates need at least three atoms; the system has {atoms}"));
        }
        let mut neighbours = vec![Vec::new(); atoms];
        for &(i, j) in bonds {
            if i >= atoms || j >= atoms || i == j || heavy.len() != atoms {
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
        Self::grow(root, &neighbours)
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

    fn grow(root: usize, neighbours: &[Vec<usize>]) -> Result<Self, CoordinatesError> {
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
        let mut queue = std::collections::VecDeque::from([root, second, third]);
        while let Some(centre) = queue.pop_front() {
            let axis = parent[centre];
            let mut sibling = if centre == root { Some(third) } else { None };
            for &atom in &neighbours[centre] {
                if placed[atom] {
                    continue;
                }
                let (torsion, improper) = match sibling {
                    Some(sibling) => (sibling, true),
                    None => (Self::across(centre, axis, neighbours, &placed)?, false),
                };
                rows.push(ZMatrixRow { atom, bond: centre, angle: axis, torsion, improper });
                sibling.get_or_insert(atom);
                placed[atom] = true;
                parent[atom] = centre;
                queue.push_back(atom);
            }
        }
        Ok(Self { frame: [root, second, third], rows })
    }

    /// A placed atom beyond `axis`, from which the torsion about centre–axis is measured.
    fn across(
        centre: usize,
        axis: usize,
        neighbours: &[Vec<usize>],
        placed: &[bool],
    ) -> Result<usize, CoordinatesError> {
        neighbours[axis].iter().copied().find(|&j| j != centre && placed[j]).ok_or_else(|| {
            CoordinatesError::Unsuitable(format!(
                "no atom beyond {axis} is placed to measure a torsion at {centre} from"
            ))
        })
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
    let mut queue = std::collections::VecDeque::from([from]);
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
