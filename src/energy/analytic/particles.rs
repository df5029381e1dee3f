//! Sums over pairs of particles, whose coordinates follow one another: what the clusters and the dimer have in common.

use crate::compute::fused::{Lane, ROWS};
use crate::energy::potential::EnergyError;
use std::ops::Range;

/// What can be done to particles without a change of U.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParticleSymmetry {
    /// All can be moved together in a space of so many dimensions. (They can be turned and exchanged as well.)
    Translation { space: usize },
    /// Something holds them in a space of so many dimensions; those of each range can be exchanged with one another.
    Exchange { space: usize, identical: Vec<Range<usize>> },
}

/// The dimension of `particles` in `space`, if both are such that there can be a cluster.
pub(super) fn check_cluster(particles: usize, space: usize) -> Result<(), EnergyError> {
    if !(2..=3).contains(&space) {
        return Err(EnergyError::Definition(format!("space is {space}; it must be 2 or 3")));
    }
    let most = super::MAX_DIMENSION / space;
    if !(2..=most).contains(&particles) {
        return Err(EnergyError::Definition(format!("particles is {particles}; it must be from 2 to {most}")));
    }
    Ok(())
}

/// Adds a pair's energies, and its gradients if there is a place for them. `of` is, of the squared distance r²,
/// (u, u′/r).
#[inline(always)]
pub(super) fn add_pair(
    x: &[Lane<f64>],
    (i, j): (usize, usize),
    space: usize,
    energy: &mut Lane<f64>,
    gradient: Option<&mut [Lane<f64>]>,
    of: impl Fn(f64) -> (f64, f64),
) {
    let (a, b) = (&x[i * space..(i + 1) * space], &x[j * space..(j + 1) * space]);
    let mut squared = [0.0; ROWS];
    for (a, b) in a.iter().zip(b) {
        for r in 0..ROWS {
            squared[r] += (a[r] - b[r]) * (a[r] - b[r]);
        }
    }
    let mut slope = [0.0; ROWS];
    for r in 0..ROWS {
        let (u, s) = of(squared[r]);
        energy[r] += u;
        slope[r] = s;
    }
    if let Some(gradient) = gradient {
        for axis in 0..space {
            for r in 0..ROWS {
                let pull = slope[r] * (a[axis][r] - b[axis][r]);
                gradient[i * space + axis][r] += pull;
                gradient[j * space + axis][r] -= pull;
            }
        }
    }
}

/// All pairs of a range of particles.
#[inline(always)]
pub(super) fn pairs(of: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let end = of.end;
    of.flat_map(move |i| (i + 1..end).map(move |j| (i, j)))
}

/// Places on a cubic (or square) lattice, those nearest to its centre first, about the origin.
pub(super) fn lattice(particles: usize, space: usize, spacing: f64) -> Vec<f64> {
    let mut side = 1usize;
    while side.pow(space as u32) < particles {
        side += 1;
    }
    let middle = (side as f64 - 1.0) / 2.0;
    let place = |index: usize| -> Vec<f64> {
        (0..space).map(|axis| ((index / side.pow(axis as u32) % side) as f64 - middle) * spacing).collect()
    };
    let mut places: Vec<Vec<f64>> = (0..side.pow(space as u32)).map(place).collect();
    let squared = |p: &[f64]| p.iter().map(|x| x * x).sum::<f64>();
    places.sort_by(|a, b| squared(a).total_cmp(&squared(b)));
    places.truncate(particles);
    places.concat()
}
