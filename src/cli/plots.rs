//! Plots as SVG files.

use super::client::CliError;
use crate::contract::v1;
use crate::math::log_sum_exp;
use plotters::prelude::*;
use std::path::Path;

/// What comes of drawing: nothing, or why it failed.
pub(super) type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

const SIZE: (u32, u32) = (900, 560);
/// Of series, one after the other.
pub(super) const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 90, 181),
    RGBColor(220, 90, 20),
    RGBColor(20, 130, 60),
    RGBColor(130, 40, 140),
    RGBColor(190, 150, 0),
    RGBColor(90, 90, 90),
];

/// Points with error bands, and the curve that they should follow.
pub(super) struct Series {
    pub label: String,
    pub points: Vec<(f64, f64)>,
    /// Standard errors of the points; empty for none.
    pub errors: Vec<f64>,
    pub exact: Vec<(f64, f64)>,
}

/// A function at 400 places.
pub(super) fn curve(low: f64, high: f64, f: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    (0..400).map(|i| low + (high - low) * f64::from(i) / 399.0).map(|x| (x, f(x))).collect()
}

/// The density of weighted samples, by bin.
pub(super) fn weighted_histogram(x: &[f64], log_weights: &[f64], low: f64, high: f64, bins: usize) -> Vec<(f64, f64)> {
    let total = log_sum_exp(log_weights);
    let width = (high - low) / bins as f64;
    let mut sums = vec![0.0; bins];
    for (x, w) in x.iter().zip(log_weights) {
        let bin = (x - low) / width;
        if (0.0..bins as f64).contains(&bin) {
            sums[bin as usize] += (w - total).exp() / width;
        }
    }
    sums.into_iter().enumerate().map(|(i, s)| (low + (i as f64 + 0.5) * width, s)).collect()
}

/// Bin centres with free energies, and their standard errors, of bins that samples fell into.
pub(super) fn profile_points(profile: &v1::ProfileEstimate) -> (Vec<(f64, f64)>, Vec<f64>) {
    profile
        .edges
        .windows(2)
        .zip(&profile.free_energy)
        .filter(|(_, f)| f.value.is_finite())
        .map(|(edge, f)| (((edge[0] + edge[1]) / 2.0, f.value), f.standard_error))
        .unzip()
}

/// Draws all series, of which one has a point or a curve at least; `top` limits the vertical axis.
pub(super) fn draw(
    path: &Path,
    title: &str,
    x_label: &str,
    y_label: &str,
    series: &[Series],
    top: Option<f64>,
) -> Result<(), CliError> {
    paint(path, title, x_label, y_label, series, top).map_err(|e| CliError::file(path, e))
}

fn paint(path: &Path, title: &str, x_label: &str, y_label: &str, series: &[Series], top: Option<f64>) -> Drawn {
    let all = || series.iter().flat_map(|s| s.points.iter().chain(&s.exact));
    let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(p.0), h.max(p.0)));
    let highest = all().map(|p| p.1).filter(|y| y.is_finite()).fold(0.0, f64::max) * 1.05;
    let top = top.map_or(highest, |t| t.min(highest)).max(1e-9);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(58)
        .build_cartesian_2d(low..high, 0.0..top)?;
    chart.configure_mesh().x_desc(x_label).y_desc(y_label).light_line_style(WHITE).draw()?;
    for (s, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let visible = |p: &(f64, f64)| p.1.is_finite() && p.1 <= top;
        // Curves and bands leave the picture and come back: each stretch inside is drawn on its own.
        let banded: Vec<_> = s.points.iter().zip(&s.errors).collect();
        for stretch in banded.chunk_by(|a, b| (visible(a.0) && a.1.is_finite()) == (visible(b.0) && b.1.is_finite())) {
            if visible(stretch[0].0) && stretch[0].1.is_finite() {
                let edge = |sign: f64| stretch.iter().map(move |(p, e)| (p.0, (p.1 + sign * 2.0 * *e).clamp(0.0, top)));
                let outline: Vec<_> = edge(1.0).chain(edge(-1.0).rev()).collect();
                chart.draw_series([Polygon::new(outline, colour.mix(0.25))])?;
            }
        }
        for stretch in s.exact.chunk_by(|a, b| visible(a) == visible(b)).filter(|stretch| visible(&stretch[0])) {
            let line = LineSeries::new(stretch.iter().copied(), colour.stroke_width(2));
            chart.draw_series(line)?;
        }
        let dots = s.points.iter().filter(|p| visible(p)).map(|p| Circle::new(*p, 3, colour.filled()));
        let legend = *colour;
        chart.draw_series(dots)?.label(&s.label).legend(move |(x, y)| Circle::new((x + 10, y), 4, legend.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperMiddle)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()
}
