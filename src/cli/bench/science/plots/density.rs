//! The density of one variable at all temperatures of a target, beside the exact one.

use super::super::super::super::client::CliError;
use super::super::super::super::plots::{self, Series};
use super::Shown;
use std::path::Path;

/// Points of a curve, about.
const CURVE_POINTS: usize = 400;

pub(super) fn draw(folder: &Path, shown: &Shown) -> Result<(), CliError> {
    let is_known = |density: &[(f64, f64)]| density.iter().any(|p| p.1.is_finite());
    let drawn = shown.temperatures.iter().filter(|t| is_known(&t.model.density));
    let series = drawn.map(|t| {
        let every = (t.reference.density.len() / CURVE_POINTS).max(1);
        Series {
            label: format!("T = {}", t.temperature),
            points: t.model.density.clone(),
            errors: Vec::new(),
            exact: t.reference.density.iter().copied().step_by(every).collect(),
        }
    });
    let series: Vec<Series> = series.collect();
    if series.is_empty() {
        return Ok(());
    }
    let title = format!("{}: weighted samples of seed {} (points) and exact density (lines)", shown.target, shown.seed);
    let path = folder.join(format!("{}-density.svg", shown.target));
    plots::draw(&path, &title, shown.variable, "density", &series, None)
}
