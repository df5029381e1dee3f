//! The log density of rows and its gradient, the score: what moves under the flow's own density need.

use super::error::FlowError;
use super::fused::{PackedFor, WithWeights};
use super::normalizing_flow::{Flow, ROWS_OF_A_PART};
use super::prior::Prior;
use super::temperature::{Tau, TemperatureRange};
use super::{Direction, ROWS_OF_A_CALL};
use crate::compute::fused::{
    InstructionSet, Kernel, Number, PackedWeights, Program, ROWS, TileScratch, TileTape, dispatch, load, store,
};
use candle_core::{Tensor, Var};
use rayon::prelude::*;

/// Densities of n rows and their gradients.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowScores {
    /// log q_τ(y) (n); −∞ outside of the support of the prior.
    pub log_probs: Vec<f64>,
    /// ∂ log q_τ(y)/∂y (n, d).
    pub gradients: Vec<f64>,
}

impl Flow {
    /// log q_τ(y) = log q_τ(z) + ladj(y → z) of flow coordinates y (n, d), and its gradient with respect to y. The bits of a
    /// row depend on its numbers and its τ alone. Where the flow is rounded (`with_precision`) the density is that of the
    /// rounded flow, and the gradient that of the flow as it is.
    pub fn score(&self, y: &[f64], tau: Tau<'_>) -> Result<FlowScores, FlowError> {
        let Some(fused) = self.fused() else { return self.score_in_parts(y, tau) };
        let scores = ScoreRows { prior: self.prior(), temperatures: self.temperatures(), rows: y, tau };
        fused.with_weights_for(PackedFor::Gradients, scores)
    }

    /// [`Flow::score`] by candle's graph, on parts of as many rows each, so that a row does not depend on its company.
    fn score_in_parts(&self, y: &[f64], tau: Tau<'_>) -> Result<FlowScores, FlowError> {
        let d = self.spec().dimension();
        let most = if self.device().is_cpu() { ROWS_OF_A_PART } else { ROWS_OF_A_CALL };
        let part = |(i, rows): (usize, &[f64])| {
            let n = rows.len() / d;
            // What a part lacks are repetitions of its last row.
            let row = |r: usize| r.min(n - 1);
            let padded: Vec<f64> = (0..most).flat_map(|r| &rows[row(r) * d..][..d]).copied().collect();
            let taus: Vec<f64> = (0..most).map(|r| tau.of(i * most + row(r))).collect();
            self.score_part(padded, &taus).map(|mut scores| {
                scores.log_probs.truncate(n);
                scores.gradients.truncate(n * d);
                scores
            })
        };
        let parts: Vec<FlowScores> = if self.device().is_cpu() {
            y.par_chunks(most * d).enumerate().map(part).collect::<Result<_, _>>()?
        } else {
            y.chunks(most * d).enumerate().map(part).collect::<Result<_, _>>()?
        };
        let mut all = FlowScores::default();
        for part in parts {
            all.log_probs.extend(part.log_probs);
            all.gradients.extend(part.gradients);
        }
        Ok(all)
    }

    fn score_part(&self, rows: Vec<f64>, taus: &[f64]) -> Result<FlowScores, FlowError> {
        let d = self.spec().dimension();
        let input = Var::from_tensor(&Tensor::from_vec(rows, (taus.len(), d), self.device())?)?;
        let (z, ladj) = self.apply_one_by_one(input.as_tensor(), Tau::Each(taus), Direction::Inverse)?;
        let log_prob = (self.prior().training_log_prob(&z, Tau::Each(taus))? + &ladj)?;
        let gradient = log_prob.sum_all()?.backward()?.remove(&input);
        let (z, ladj) = (z.flatten_all()?.to_vec1::<f64>()?, ladj.to_vec1::<f64>()?);
        let log_probs = z.chunks_exact(d).zip(taus).zip(ladj).map(|((z, &tau), l)| self.prior().log_prob(z, tau) + l);
        Ok(FlowScores {
            log_probs: log_probs.collect(),
            gradients: match gradient {
                Some(gradient) => gradient.flatten_all()?.to_vec1()?,
                // A flow that maps nothing, of uniform latents.
                None => vec![0.0; taus.len() * d],
            },
        })
    }
}

struct ScoreRows<'a> {
    prior: &'a Prior,
    temperatures: Option<&'a TemperatureRange>,
    rows: &'a [f64],
    tau: Tau<'a>,
}

impl WithWeights for ScoreRows<'_> {
    type Output = FlowScores;

    fn run<T: Number>(self, program: &Program, weights: &PackedWeights<T>) -> FlowScores {
        let Self { prior, temperatures, rows, tau } = self;
        let d = prior.components().len();
        let n = rows.len() / d;
        let mut scores = FlowScores { log_probs: vec![0.0; n], gradients: vec![0.0; n * d] };
        rows.par_chunks(ROWS * d)
            .zip(scores.gradients.par_chunks_mut(ROWS * d))
            .zip(scores.log_probs.par_chunks_mut(ROWS))
            .enumerate()
            .for_each_init(
                || TileTape::new(program),
                |tape, (tile, ((rows, gradients), log_probs))| {
                    let last = log_probs.len() - 1;
                    let taus = std::array::from_fn(|r| tau.of(tile * ROWS + r.min(last)));
                    weights.with_scratch(program, |scratch| {
                        let tile = ScoreTile {
                            prior,
                            temperatures,
                            program,
                            weights,
                            rows,
                            taus,
                            gradients,
                            log_probs,
                            tape,
                            scratch,
                        };
                        dispatch(tile);
                    });
                },
            );
        scores
    }
}

struct ScoreTile<'a, T> {
    prior: &'a Prior,
    temperatures: Option<&'a TemperatureRange>,
    program: &'a Program,
    weights: &'a PackedWeights<T>,
    rows: &'a [f64],
    taus: [f64; ROWS],
    gradients: &'a mut [f64],
    log_probs: &'a mut [f64],
    tape: &'a mut TileTape<T>,
    scratch: &'a mut TileScratch<T>,
}

impl<T: Number> Kernel for ScoreTile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let Self { program, weights, tape, scratch, .. } = self;
        let d = self.prior.components().len();
        let (coordinates, told) = scratch.x.split_at_mut(d);
        load(self.rows, coordinates);
        if let (Some(range), [told]) = (self.temperatures, told) {
            *told = self.taus.map(|tau| range.feature(tau));
        }
        tape.forward::<I>(program, weights, Direction::Inverse, scratch);
        let mut log_prior = [0.0; ROWS];
        let (latents, told) = scratch.x.split_at_mut(d);
        self.prior.score_tile(latents, &self.taus, &mut log_prior);
        told.fill([0.0; ROWS]);
        for (r, log_prob) in self.log_probs.iter_mut().enumerate() {
            *log_prob = log_prior[r] + scratch.ladj[r];
        }
        scratch.ladj = [1.0; ROWS];
        tape.backward::<I>(program, weights, Direction::Inverse, scratch);
        store(&scratch.x, self.gradients, d);
    }
}
