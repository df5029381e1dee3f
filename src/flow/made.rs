//! The masked conditioner of autoregressive flows: MADE (Germain, Gregor, Murray and Larochelle 2015).
//!
//! A multilayer perceptron whose numbers have degrees: an input's is its place in the order, from 1 on, that of an input
//! that everything may depend on is 0. A number depends on those before it that have its degree or less; the parameters
//! of the coordinate in place c (from 0 on) have degree c.

use super::conditioner::{Conditioner, ConditionerSpec};
use super::spec::Columns;
use candle_core::Result;
use candle_nn::VarBuilder;

/// A network from all columns to `each` parameters of each coordinate of `order`: parameter p of the coordinate in place
/// c is output `p·order.len() + c`, and depends on what is before that place and on the columns that `order` leaves out.
pub(super) fn masked(
    spec: &ConditionerSpec,
    columns: Columns<'_>,
    order: &[usize],
    each: usize,
    vb: VarBuilder<'_>,
) -> Result<Conditioner> {
    let m = order.len();
    let mut places = vec![0; columns.width()];
    order.iter().enumerate().for_each(|(c, &j)| places[j] = c + 1);
    let seen: Vec<usize> = (0..columns.width()).collect();
    let features = seen.iter().flat_map(|&j| vec![places[j]; if columns.is_circular(j) { 2 } else { 1 }]);
    let mut degrees: Vec<Vec<usize>> = vec![features.collect()];
    // Numbers of degree 0 know nothing where every input has a place.
    let lowest = if places.contains(&0) { 0 } else { 1.min(m - 1) };
    for &width in &spec.hidden {
        degrees.push((0..width).map(|k| lowest + k * (m - lowest) / width).collect());
    }
    degrees.push((0..each * m).map(|output| output % m).collect());
    let masks = degrees.windows(2).map(|pair| {
        let (from, to) = (&pair[0], &pair[1]);
        to.iter().flat_map(|to| from.iter().map(move |from| to >= from)).collect()
    });
    Conditioner::new(spec, columns, &seen, each * m, Some(masks.collect()), vb)
}
