//! Samples that stay on a CUDA device until they are whole: latent, flow, positions and energy.

use super::generator::Generator;
use super::importance::SampleRun;
use crate::coords::TargetBatch;
use crate::flow::{Direction, FlowDraws, FlowError, ROWS_OF_A_CALL, Tau};
use candle_core::Tensor;

impl Generator {
    /// The draws of all runs, one after another, and the target at them; nothing where flow or target are not on a CUDA
    /// device. The numbers come to the host once, at the end.
    ///
    /// The flow is always given as many rows: a product may round differently for another number, and a sample must not
    /// depend on its company.
    pub(super) fn draw_on_device(&self, runs: &[SampleRun]) -> Result<Option<(FlowDraws, TargetBatch)>, FlowError> {
        let device = self.flow.device();
        let (Some(target), Some(prior)) = (self.target.on_device(device)?, self.flow.device_prior()?) else {
            return Ok(None);
        };
        let n: usize = runs.iter().map(|run| run.count).sum();
        let (mut z, mut log_q, mut taus) = (Vec::new(), Vec::new(), Vec::new());
        let mut sample = |run: &SampleRun, first_index, count| -> candle_core::Result<()> {
            if count > 0 {
                let tau = self.latent_temperature(&run.key);
                let (latents, log_prior) = prior.sample(count, run.key.seed, run.key.purpose, first_index, tau)?;
                z.push(latents);
                taus.resize(taus.len() + count, tau);
                log_q.push(log_prior);
            }
            Ok(())
        };
        for run in runs {
            sample(run, run.first_index, run.count)?;
        }
        let Some(last) = runs.last().filter(|_| n > 0) else {
            return Ok(Some((FlowDraws::default(), TargetBatch::default())));
        };
        sample(last, 0, n.next_multiple_of(ROWS_OF_A_CALL) - n)?;
        let (z, log_q) = (Tensor::cat(&z, 0)?, Tensor::cat(&log_q, 0)?);
        let (mut y, mut log_probs) = (Vec::new(), Vec::new());
        for first in (0..n).step_by(ROWS_OF_A_CALL) {
            let tau = Tau::Each(&taus[first..first + ROWS_OF_A_CALL]);
            let (of_call, ladj) =
                self.flow.apply(&z.narrow(0, first, ROWS_OF_A_CALL)?.contiguous()?, tau, Direction::Forward)?;
            log_probs.push((log_q.narrow(0, first, ROWS_OF_A_CALL)? - ladj)?);
            y.push(of_call);
        }
        let rows = |all: &[Tensor]| Tensor::cat(all, 0)?.narrow(0, 0, n)?.contiguous();
        let (y, log_probs) = (rows(&y)?, rows(&log_probs)?);
        let batch = target.evaluate(&y)?;
        let numbers = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f64>();
        let draws = FlowDraws {
            latents: numbers(&z.narrow(0, 0, n)?.contiguous()?)?,
            coordinates: numbers(&y)?,
            log_probs: numbers(&log_probs)?,
        };
        let batch = TargetBatch {
            positions: numbers(&batch.positions)?,
            energies: numbers(&batch.energies)?,
            ladj: numbers(&batch.ladj)?,
            gradients: Vec::new(),
        };
        Ok(Some((draws, batch)))
    }
}
