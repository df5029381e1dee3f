//! Modes that a flow does not make, looked for by data that it was not trained on: its own weights cannot show them.

use super::run::{Observer, Progress};
use super::trainer::Trainer;
use crate::sample::covers;

/// A flow with a smaller effective fraction of its own samples is not yet one whose modes could be counted.
const TRAINED: f64 = 0.1;

/// Held-out frames that are asked, at least. The mean weight of fewer is often that of one frame in a tail of the flow; and a
/// mode with a tenth of the frames is not among fewer with a probability of an eighth.
pub(super) const FEWEST_FRAMES: usize = 20;

impl Trainer {
    /// Says, once in a run, that the flow makes good samples of only a part of what the data hold: the weights of its own look
    /// good, and those of held-out data do not.
    pub(super) fn look_for_lost_modes(&mut self, report: &Progress, observer: &mut dyn Observer) {
        let own = report.weights.effective_fraction();
        let Some(of_data) = report.held_out_effective_fraction else { return };
        let frames = self.held_out_frames();
        if self.counters.said_incomplete || own < TRAINED || frames < FEWEST_FRAMES || covers(own, of_data) {
            return;
        }
        self.counters.said_incomplete = true;
        let remedy = "train on the data too (maximum_likelihood), start hotter (temperature_factor), or keep the states of a \
                      variable apart (coordinate_entropy)";
        observer.note(format!(
            "after step {} the flow misses a part of the data: {:.1} % of its own samples are effective, and {:.2e} % as \
             {frames} held-out frames see it; {remedy}",
            report.step,
            100.0 * own,
            100.0 * of_data
        ));
    }
}
