//! Which pairs of atoms a force acts between.

use super::expression::SLOTS;
use std::collections::BTreeSet;
use std::ops::Range;

/// Pairs of atoms, row by row: an atom and the runs of consecutive atoms that it is paired with.
#[derive(Debug)]
pub(super) struct Pairs {
    rows: Vec<(usize, Vec<Range<usize>>)>,
}

impl Pairs {
    /// All pairs of different atoms once, but for the excluded ones: of each atom the later atoms that it has no part with.
    pub fn all_but(excluded: &[BTreeSet<usize>]) -> Self {
        let atoms = excluded.len();
        let row = |(i, excluded)| (i, runs(i + 1..atoms, excluded));
        Self { rows: excluded.iter().enumerate().map(row).collect() }
    }

    /// Pairs of an atom of the first set with one of the second, each once, but for the excluded ones.
    pub fn between(first: &BTreeSet<usize>, second: &BTreeSet<usize>, excluded: &[BTreeSet<usize>]) -> Self {
        let is_excluded = |i: usize, j: usize| excluded.get(i.min(j)).is_some_and(|later| later.contains(&i.max(j)));
        let rows = first.iter().map(|&i| {
            // Where both atoms are in both sets, the pair would be there twice.
            let twice = |j: usize| j < i && first.contains(&j) && second.contains(&i);
            let partners = second.iter().copied().filter(|&j| j != i && !twice(j) && !is_excluded(i, j));
            let mut runs: Vec<Range<usize>> = Vec::new();
            for j in partners {
                match runs.last_mut() {
                    Some(run) if run.end == j => run.end += 1,
                    _ => runs.push(j..j + 1),
                }
            }
            (i, runs)
        });
        Self { rows: rows.collect() }
    }

    /// Adds the pairs of another list; those that are in both are there twice.
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }

    pub fn rows(&self) -> impl Iterator<Item = (usize, &[Range<usize>])> {
        self.rows.iter().map(|(i, runs)| (*i, runs.as_slice()))
    }

    /// The pairs in their order, to be taken some at a time.
    pub fn stretches(&self) -> Stretches<'_> {
        Stretches { rows: self.rows.iter(), first: 0, runs: [].iter(), run: 0..0 }
    }

    /// Calls `f` with up to [`SLOTS`] pairs at a time.
    #[inline(always)]
    pub fn for_each_block(&self, mut f: impl FnMut(&[(usize, usize)])) {
        let mut stretches = self.stretches();
        let mut block = [(0, 0); SLOTS];
        loop {
            let mut filled = 0;
            while let Some((i, others)) = stretches.next(SLOTS - filled) {
                for j in others {
                    block[filled] = (i, j);
                    filled += 1;
                }
            }
            if filled == 0 {
                return;
            }
            f(&block[..filled]);
        }
    }
}

/// The place in a list of pairs that one has come to.
#[derive(Debug)]
pub(super) struct Stretches<'a> {
    rows: std::slice::Iter<'a, (usize, Vec<Range<usize>>)>,
    first: usize,
    runs: std::slice::Iter<'a, Range<usize>>,
    run: Range<usize>,
}

impl Stretches<'_> {
    /// An atom and the consecutive others of its next pairs: as many as there are in a row, but not more than `most`.
    /// None if that is zero, or at the end.
    #[inline(always)]
    pub fn next(&mut self, most: usize) -> Option<(usize, Range<usize>)> {
        while self.run.is_empty() {
            match self.runs.next() {
                Some(run) => self.run = run.clone(),
                None => {
                    let (first, runs) = self.rows.next()?;
                    (self.first, self.runs) = (*first, runs.iter());
                }
            }
        }
        let start = self.run.start;
        let end = self.run.end.min(start + most);
        self.run.start = end;
        (start < end).then_some((self.first, start..end))
    }
}

/// The runs of consecutive numbers in `range` that are not in `excluded`.
fn runs(range: Range<usize>, excluded: &BTreeSet<usize>) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = range.start;
    for &gap in excluded {
        if start < gap {
            runs.push(start..gap);
        }
        start = gap + 1;
    }
    if start < range.end {
        runs.push(start..range.end);
    }
    runs
}
