//! Ramachandran maps: the weighted samples of a run beside the reference simulation.

use super::super::super::super::client::CliError;
use super::super::super::super::plots::Drawn;
use super::{Shown, ShownTemperature};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (1020, 520);
const MAP_WIDTH: u32 = 460;
const X_LABELS: u32 = 42;
const Y_LABELS: u32 = 58;
const CAPTION: (&str, u32) = ("sans-serif", 16);

/// The last colour is of so many kT, and of what is above.
const TOP: f64 = 8.0;
/// From the least free energy to the top, at equal distances: those of viridis, which differ in grey as well.
const COLOURS: [[u8; 3]; 5] = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
/// Steps of the colour scale.
const SHADES: i32 = 64;

/// Places on the axes are in thousandths of a degree: only axes of whole numbers can be given their marks.
const DEGREE: i32 = 1000;
const HALF_TURN: i32 = 180 * DEGREE;
const MARKS: [i32; 5] = [-HALF_TURN, -HALF_TURN / 2, 0, HALF_TURN / 2, HALF_TURN];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

pub(super) fn draw(folder: &Path, shown: &Shown) -> Result<(), CliError> {
    for at in &shown.temperatures {
        let model = surface(&at.model.ramachandran);
        if model.is_empty() {
            continue;
        }
        let path = folder.join(format!("{}-{}-ramachandran.svg", shown.target, at.temperature));
        paint(&path, shown, at, &model).map_err(|e| CliError::file(&path, e))?;
    }
    Ok(())
}

/// A bin of a map: from and to (φ, ψ), and −log of its weight in kT.
struct Bin {
    corners: [(i32, i32); 2],
    free_energy: f64,
}

/// The bins that have a weight, the least free energy among them being zero.
fn surface(weights: &[f64]) -> Vec<Bin> {
    let bins = weights.len().isqrt().max(1);
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let edge = |k: usize| (2.0 * f64::from(HALF_TURN) * k as f64 / bins as f64) as i32 - HALF_TURN;
    let weighted = weights.iter().enumerate().filter(|(_, w)| **w > 0.0);
    let bin = |(k, w): (usize, &f64)| {
        let (phi, psi) = (k / bins, k % bins);
        Bin { corners: [(edge(phi), edge(psi)), (edge(phi + 1), edge(psi + 1))], free_energy: (largest / w).ln() }
    };
    weighted.map(bin).filter(|bin| bin.free_energy.is_finite()).collect()
}

fn colour(free_energy: f64) -> ShapeStyle {
    let place = (free_energy / TOP).clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
    let k = (place as usize).min(COLOURS.len() - 2);
    let between = |from: u8, to: u8| (f64::from(from) + (place - k as f64) * (f64::from(to) - f64::from(from))) as u8;
    let ([r, g, b], to) = (COLOURS[k], COLOURS[k + 1]);
    RGBColor(between(r, to[0]), between(g, to[1]), between(b, to[2])).filled()
}

fn paint(path: &Path, shown: &Shown, at: &ShownTemperature, model: &[Bin]) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("{} at {}: −log(weight) above its least", shown.target, at.temperature);
    let body = root.titled(&title, ("sans-serif", 20))?;
    let (left, rest) = body.split_horizontally(MAP_WIDTH);
    let (middle, right) = rest.split_horizontally(MAP_WIDTH);
    map(&left, &format!("weighted samples, seed {}", shown.seed), model)?;
    map(&middle, "replica exchange", &surface(&at.reference.ramachandran))?;
    scale(&right)?;
    root.present()
}

fn map(area: &Area, caption: &str, bins: &[Bin]) -> Drawn {
    let axis = || (-HALF_TURN..HALF_TURN).with_key_points(MARKS.to_vec());
    let mut chart = ChartBuilder::on(area)
        .caption(caption, CAPTION)
        .margin(8)
        .x_label_area_size(X_LABELS)
        .y_label_area_size(Y_LABELS)
        .build_cartesian_2d(axis(), axis())?;
    let degrees = |x: &i32| format!("{}", x / DEGREE);
    chart
        .configure_mesh()
        .disable_mesh()
        .x_desc("φ (degrees)")
        .y_desc("ψ (degrees)")
        .x_label_formatter(&degrees)
        .y_label_formatter(&degrees)
        .draw()?;
    chart.draw_series(bins.iter().map(|bin| Rectangle::new(bin.corners, colour(bin.free_energy))))?;
    Ok(())
}

/// Which colour is how many kT.
fn scale(area: &Area) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .caption("kT", CAPTION)
        .margin(8)
        .x_label_area_size(X_LABELS)
        .y_label_area_size(Y_LABELS - 16)
        .build_cartesian_2d(0.0..1.0, 0.0..TOP)?;
    let label = |y: &f64| if *y < TOP { format!("{y}") } else { format!("≥ {y}") };
    chart.configure_mesh().disable_mesh().disable_x_axis().x_labels(0).y_label_formatter(&label).draw()?;
    let step = TOP / f64::from(SHADES);
    let shades = (0..SHADES).map(|k| f64::from(k) * step);
    chart.draw_series(shades.map(|low| Rectangle::new([(0.0, low), (1.0, low + step)], colour(low + 0.5 * step))))?;
    Ok(())
}
