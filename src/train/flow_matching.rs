//! Flow matching: regress the velocity of a continuous flow on that of straight lines from latents to samples (Lipman et al.
//! 2023; Liu et al. 2023; Albergo and Vanden-Eijnden 2023):
//!
//!   L = ⟨|v(x_t, t) − (x₁ − z)|²⟩/d,  x_t = (1 − t)·z + t·x₁,
//!
//! with z from the prior, x₁ from the data and t uniform. Its minimum carries the prior into the distribution of x₁. No
//! equation of motion is solved, and no divergence is taken.
//!
//! Of identical particles x₁ is turned and relabelled to be near z, so that lines are short and hardly cross (equivariant flow
//! matching, Klein, Krämer and Noé 2023): the distribution that is learned is that of x₁ in all orientations and orders.

use super::trainer::TrainError;
use crate::coords::{CoordinateTransform, CoordinatesError, FreeParticles, MeanFreeCoordinates};
use crate::flow::{Flow, FlowError, LatentAddress, Tau};
use crate::math::{Purpose, Randoms, assign, superposition};
use candle_core::Tensor;
use rayon::prelude::*;
use std::f64::consts::PI;

/// Relabellings and rotations in turns, each the best for the other.
const TURNS: usize = 3;

/// What latents are paired with in a step: each has latents of its own.
#[derive(Clone, Copy)]
pub(super) enum Pairing {
    Data,
    OwnSamples,
}

/// The loss (a scalar, differentiable) of samples in flow coordinates y (n, d), each row at its own temperature.
pub(super) fn loss(
    flow: &Flow,
    y: &Tensor,
    tau: Tau<'_>,
    particles: Option<FreeParticles>,
    seed: u64,
    step: u64,
    pairing: Pairing,
) -> Result<Tensor, TrainError> {
    let Some(field) = flow.as_continuous() else {
        return Err(FlowError::Spec("flow matching is for a flow of one continuous layer".into()).into());
    };
    let (n, d) = y.dims2()?;
    let stream = 2 * step + u64::from(matches!(pairing, Pairing::OwnSamples));
    let address = |row: usize| LatentAddress {
        seed,
        purpose: Purpose::MatchingLatent,
        index: stream * (1 << 16) + row as u64,
        tau: tau.of(row),
    };
    let z = flow.prior().sample(&(0..n).map(address).collect::<Vec<_>>());
    let mut x: Vec<f64> = y.flatten_all()?.to_vec1()?;
    if let Some(FreeParticles { particles, space }) = particles {
        let coordinates = MeanFreeCoordinates::new(particles, space, 1.0)?;
        x.par_chunks_mut(d).zip(z.par_chunks(d)).try_for_each(|(x, z)| bring_near(&coordinates, space, x, z))?;
    }
    let kinds = &flow.spec().coordinates;
    let mut random = Randoms::new(seed, Purpose::MatchingTime, stream);
    // One time in each of n equal parts, in an order of their own: own samples come in the order of their weights.
    let parts = random.permutation(n);
    let times: Vec<f64> = parts.into_iter().map(|part| (part as f64 + random.uniform()) / n as f64).collect();
    let (mut on_line, mut velocity) = (Vec::with_capacity(n * d), Vec::with_capacity(n * d));
    for (i, (x, z)) in x.iter().zip(&z).enumerate() {
        let mut way = x - z;
        if kinds[i % d] == crate::flow::CoordinateKind::Circular {
            way -= 2.0 * PI * (way / (2.0 * PI)).round();
        }
        on_line.push(z + times[i / d] * way);
        velocity.push(way);
    }
    let device = y.device();
    let on_line = flow.widened(&Tensor::from_vec(on_line, (n, d), device)?, tau)?;
    let velocity = Tensor::from_vec(velocity, (n, d), device)?;
    let times = Tensor::from_vec(times, (n, 1), device)?;
    Ok(field.mismatch(&on_line, &times, &velocity)?)
}

/// Turns and relabels particles x to lie near z, both in coordinates about their mean.
fn bring_near(
    coordinates: &MeanFreeCoordinates,
    space: usize,
    x: &mut [f64],
    z: &[f64],
) -> Result<(), CoordinatesError> {
    let at = |y: &[f64]| {
        let mut flat = vec![0.0; coordinates.position_dimension()];
        coordinates.to_positions(y, &mut flat);
        // In a plane a turn about an axis within it is a reflection.
        let points: Vec<[f64; 3]> =
            flat.chunks_exact(space).map(|r| std::array::from_fn(|axis| r.get(axis).copied().unwrap_or(0.0))).collect();
        points
    };
    let (mut points, places) = (at(x), at(z));
    let n = points.len();
    for _ in 0..TURNS {
        let squared = |a: &[f64; 3], b: &[f64; 3]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum() };
        let costs: Vec<f64> = points.iter().flat_map(|a| places.iter().map(move |b| squared(a, b))).collect();
        let mut ordered = points.clone();
        for (particle, place) in assign(&costs, n).into_iter().enumerate() {
            ordered[place] = points[particle];
        }
        let rotation = superposition(ordered.as_flattened(), places.as_flattened());
        for (point, from) in points.iter_mut().zip(&ordered) {
            let turned = rotation * nalgebra::Vector3::from(*from);
            *point = [turned.x, turned.y, turned.z];
        }
    }
    let flat: Vec<f64> = points.iter().flat_map(|p| p[..space].iter().copied()).collect();
    coordinates.to_coordinates(&flat, x);
    Ok(())
}
