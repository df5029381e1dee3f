//! The course of a run: what was measured on the way, kept with the model.

use super::run::Progress;
use super::trainer::Trainer;
use crate::sample::{CoursePoint, MOST_POINTS};

/// Points that are kept, besides the last. With more, every other is left out, and only every other that comes is added.
const MOST: usize = MOST_POINTS - 1;

/// What was measured on the way, thinned to a bounded number of points in equal strides.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Course {
    pub points: Vec<CoursePoint>,
    /// Measurements for each point, as a power of two.
    halvings: u32,
    /// Measurements so far.
    seen: u64,
}

impl Course {
    /// Adds a point; of the last step it stands in for what was measured there before, and is kept in any case.
    fn add(&mut self, point: CoursePoint, is_last: bool) {
        if is_last {
            self.points.pop_if(|before| before.step == point.step);
            self.points.push(point);
            return;
        }
        let stride = 1u64.checked_shl(self.halvings).unwrap_or(u64::MAX);
        let is_kept = self.seen.is_multiple_of(stride);
        self.seen += 1;
        if !is_kept {
            return;
        }
        if self.points.len() == MOST {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.halvings += 1;
        }
        self.points.push(point);
    }
}

impl Trainer {
    /// Keeps a measurement for the model's card.
    pub(super) fn note_course(&mut self, report: &Progress, is_last: bool) {
        let finite = |x: f64| x.is_finite().then_some(x);
        let point = CoursePoint {
            step: report.step,
            samples: report.samples,
            energy_evaluations: report.energy_evaluations,
            seconds: report.seconds,
            effective_sample_fraction: report.weights.effective_fraction(),
            log_z: finite(report.weights.log_z),
            free_energy_bound: finite(report.weights.free_energy_bound),
            data_log_prob: report.held_out_log_prob.and_then(finite),
            data_effective_fraction: report.held_out_effective_fraction,
        };
        self.course.add(point, is_last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However long a run, points are few, in equal strides, and begin with the first.
    #[test]
    fn a_course_is_thinned_evenly() {
        let mut course = Course::default();
        for step in 0..5000 {
            let point = CoursePoint { step, ..CoursePoint::default() };
            course.add(point, false);
            let steps: Vec<u64> = course.points.iter().map(|p| p.step).collect();
            let stride = 1 << course.halvings;
            assert!(steps.len() <= MOST && steps.iter().enumerate().all(|(i, s)| *s == i as u64 * stride), "{steps:?}");
            assert!(steps.len() as u64 > step / stride, "{step}: {steps:?}");
        }
        for seconds in [1.0, 2.0] {
            let before = course.points.len();
            course.add(CoursePoint { step: 5001, seconds, ..CoursePoint::default() }, true);
            assert_eq!(
                (course.points.len(), course.points.last().map(|p| p.seconds)),
                (before + usize::from(seconds < 2.0), Some(seconds))
            );
        }
    }
}
