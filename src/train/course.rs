//! The course of a run: what was measured on the way, kept with the model.

use super::run::Progress;
use super::trainer::Trainer;
use crate::sample::CoursePoint;

/// Points that are kept. With more, every other is left out, and only every other that comes is added.
const MOST: usize = 256;

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
    fn add(&mut self, point: CoursePoint) {
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
    pub(super) fn note_course(&mut self, report: &Progress) {
        let finite = |x: f64| x.is_finite().then_some(x);
        self.course.add(CoursePoint {
            step: report.step,
            samples: report.samples,
            energy_evaluations: report.energy_evaluations,
            seconds: report.seconds,
            effective_sample_fraction: report.weights.effective_fraction(),
            log_z: finite(report.weights.log_z),
            free_energy_bound: finite(report.weights.free_energy_bound),
            data_log_prob: report.held_out_log_prob.and_then(finite),
            data_effective_fraction: report.held_out_effective_fraction,
        });
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
            course.add(point);
            let steps: Vec<u64> = course.points.iter().map(|p| p.step).collect();
            let stride = 1 << course.halvings;
            assert!(steps.len() <= MOST && steps.iter().enumerate().all(|(i, s)| *s == i as u64 * stride), "{steps:?}");
            assert!(steps.len() as u64 > step / stride, "{step}: {steps:?}");
        }
    }
}
