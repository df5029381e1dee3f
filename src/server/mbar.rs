//! MBAR on reduced energies that a client sends.

use super::app::App;
use super::errors::ApiError;
use crate::contract::v1;
use crate::contract::{FieldError, array, check_encoding, numbers};
use crate::engine::Priority;
use crate::thermo::{MbarAverage, MbarBootstrap, MbarError, MbarSettings, MbarSolution, solve_mbar_with};
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

const MAX_STATES: usize = 512;
const MAX_OBSERVABLES: usize = 64;
const MAX_NAME: usize = 63;
const REPLICATES: RangeInclusive<i32> = 2..=1000;
const TOLERANCES: RangeInclusive<f64> = 1e-13..=1e-3;
/// Products of two weights, summed once for the solution, each replicate and, fourfold, each observable: some twenty minutes of one
/// core.
const MOST_PRODUCTS: f64 = 5e12;
/// Whose log densities fit into an answer.
const MAX_ANSWERED_SAMPLES: usize = 1 << 21;

/// A whole request.
#[derive(Debug)]
struct Problem {
    n_k: Vec<u64>,
    samples: usize,
    /// (K, N).
    u_kn: Vec<f64>,
    names: Vec<String>,
    /// (observables, N).
    observables: Vec<f64>,
    bootstrap: Option<MbarBootstrap>,
    tolerance: f64,
    log_densities: bool,
    encoding: v1::ArrayEncoding,
    /// Samples that have come.
    taken: usize,
}

struct Solved {
    solution: MbarSolution,
    bootstrap: Option<Vec<f64>>,
    averages: Vec<Vec<MbarAverage>>,
}

/// Takes a request in, and answers it.
pub(super) async fn solve(
    app: &App,
    mut stream: Streaming<v1::SolveMbarRequest>,
) -> Result<v1::SolveMbarResponse, ApiError> {
    use v1::solve_mbar_request::Part;
    app.check_open()?;
    let permit = app.transfer().await?;
    let first = app.next_message(&mut stream).await?;
    let Some(Part::Header(header)) = first.and_then(|m| m.part) else {
        return Err(FieldError::invalid("header", "the first message must have it").into());
    };
    let mut problem = Problem::begin(header, app.limits.dataset_bytes)?;
    while let Some(message) = app.next_message(&mut stream).await? {
        match message.part {
            Some(Part::Samples(samples)) => problem.take(&samples)?,
            Some(Part::Header(_)) => return Err(FieldError::invalid("header", "it comes once").into()),
            None => return Err(FieldError::invalid("samples", "a message has neither header nor samples").into()),
        }
    }
    problem.check_whole()?;
    // Dropped with this call: the computation of a client that has gone away ends at its next pass.
    let cancelled = CancellationToken::new();
    let _guard = cancelled.clone().drop_guard();
    let slot = Arc::clone(&app.engine.slot);
    let draining = app.draining.clone();
    let solved = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let turn = Mutex::new(None);
        let proceed = || {
            let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            turn.take();
            if cancelled.is_cancelled() || draining.is_cancelled() {
                return false;
            }
            *turn = Some(slot.acquire(Priority::Interactive));
            true
        };
        let settings = MbarSettings { tolerance: problem.tolerance, proceed: &proceed };
        problem.solve(&settings).map(|solved| problem.answer(solved)).map_err(|error| match error {
            MbarError::Stopped if draining.is_cancelled() => ApiError::Draining,
            error => refusal(error),
        })
    });
    solved.await.map_err(|_| ApiError::Internal("solving MBAR panicked".into()))?
}

fn refusal(error: MbarError) -> ApiError {
    let field = match error {
        MbarError::Stopped => return ApiError::Transport(Status::cancelled("the client has gone away")),
        MbarError::Shape { .. } | MbarError::Counts { .. } => "header.samples_per_state",
        MbarError::Observable { .. } | MbarError::Value { .. } => "samples.observables",
        _ => "samples.reduced_energies",
    };
    FieldError::invalid(field, error.to_string()).into()
}

impl Problem {
    fn begin(header: v1::solve_mbar_request::MbarHeader, most_bytes: u64) -> Result<Self, ApiError> {
        let invalid = |field: &str, reason: String| FieldError::invalid(format!("header.{field}"), reason);
        let states = header.samples_per_state.len();
        if !(1..=MAX_STATES).contains(&states) {
            let reason = format!("there are {states} states; there must be from 1 to {MAX_STATES}");
            return Err(invalid("samples_per_state", reason).into());
        }
        let mut n_k = Vec::with_capacity(states);
        for (k, &n) in header.samples_per_state.iter().enumerate() {
            let n = u64::try_from(n);
            n_k.push(n.map_err(|_| invalid("samples_per_state", format!("that of state {k} is negative")))?);
        }
        let names = header.observables;
        if names.len() > MAX_OBSERVABLES {
            let reason = format!("there are {}; at most {MAX_OBSERVABLES} are allowed", names.len());
            return Err(invalid("observables", reason).into());
        }
        let mut known = HashSet::new();
        if let Some(name) = names.iter().find(|n| !(1..=MAX_NAME).contains(&n.len()) || !known.insert(n.as_str())) {
            let reason = format!("'{name}' is there twice, or has not from 1 to {MAX_NAME} bytes");
            return Err(invalid("observables", reason).into());
        }
        let bootstrap = match header.bootstrap_replicates {
            0 => None,
            n if REPLICATES.contains(&n) => {
                Some(MbarBootstrap { replicates: n.unsigned_abs() as usize, seed: header.seed })
            }
            n => {
                let (least, most) = (REPLICATES.start(), REPLICATES.end());
                return Err(
                    invalid("bootstrap_replicates", format!("it is {n}; it must be from {least} to {most}")).into()
                );
            }
        };
        let tolerance = match header.tolerance {
            0.0 => MbarSettings::default().tolerance,
            t if TOLERANCES.contains(&t) => t,
            t => {
                let (least, most) = (TOLERANCES.start(), TOLERANCES.end());
                return Err(invalid("tolerance", format!("it is {t}; it must be from {least:e} to {most}")).into());
            }
        };
        let all = n_k.iter().try_fold(0u64, |sum, n| sum.checked_add(*n));
        let bytes = all.and_then(|n| n.checked_mul(8 * (states + names.len()) as u64));
        let (Some(samples), true) = (all, bytes.is_some_and(|b| b <= most_bytes)) else {
            let reason = format!("energies and observables have at most {most_bytes} bytes in all; send fewer samples");
            return Err(ApiError::TooLarge(reason));
        };
        let rounds = 1 + bootstrap.map_or(0, |b| b.replicates) + 4 * names.len();
        let products = (states * states) as f64 * samples as f64 * rounds as f64;
        if products > MOST_PRODUCTS {
            let reason = format!(
                "K² × samples × (1 + replicates + 4 × observables) is {products:.1e}; at most {MOST_PRODUCTS:e} are computed"
            );
            return Err(invalid("samples_per_state", reason).into());
        }
        let samples = samples as usize;
        if header.include_log_densities && samples > MAX_ANSWERED_SAMPLES {
            let reason = format!("there are {samples} samples; log densities are answered of {MAX_ANSWERED_SAMPLES}");
            return Err(invalid("include_log_densities", reason).into());
        }
        Ok(Self {
            u_kn: vec![0.0; states * samples],
            observables: vec![0.0; names.len() * samples],
            n_k,
            samples,
            names,
            bootstrap,
            tolerance,
            log_densities: header.include_log_densities,
            encoding: check_encoding(header.encoding).map_err(|e| e.within("header"))?,
            taken: 0,
        })
    }

    /// Puts the next samples in their places.
    fn take(&mut self, message: &v1::solve_mbar_request::MbarSamples) -> Result<(), ApiError> {
        let field = "samples.reduced_energies";
        let Some(energies) = &message.reduced_energies else {
            return Err(FieldError::invalid(field, "they are missing").into());
        };
        let rows = self.columns(field, energies, self.n_k.len())?;
        let n = rows.len() / self.n_k.len();
        if n > self.samples - self.taken {
            let reason = format!("there are more than the {} samples of samples_per_state", self.samples);
            return Err(FieldError::invalid(field, reason).into());
        }
        let (first, samples) = (self.taken, self.samples);
        scatter(&rows, &mut self.u_kn, first, samples);
        let field = "samples.observables";
        match &message.observables {
            None if self.names.is_empty() => {}
            None => return Err(FieldError::invalid(field, "they are missing; the header names some").into()),
            Some(_) if self.names.is_empty() => {
                return Err(FieldError::invalid(field, "the header names none").into());
            }
            Some(values) => {
                let rows = self.columns(field, values, self.names.len())?;
                if rows.len() != n * self.names.len() {
                    let reason = format!("there are {} for {n} samples", rows.len() / self.names.len());
                    return Err(FieldError::invalid(field, reason).into());
                }
                scatter(&rows, &mut self.observables, first, samples);
            }
        }
        self.taken += n;
        Ok(())
    }

    /// The numbers of an array of so many columns.
    fn columns(&self, field: &str, array: &v1::Array, columns: usize) -> Result<Vec<f64>, FieldError> {
        let (numbers, shape) = numbers(field, array)?;
        match shape[..] {
            [_, width] if width == columns => Ok(numbers),
            _ => Err(FieldError::invalid(field, format!("its shape is {shape:?}; it must be (n, {columns})"))),
        }
    }

    fn check_whole(&self) -> Result<(), FieldError> {
        if self.taken == self.samples && self.samples > 0 {
            return Ok(());
        }
        let reason = format!("they add up to {} samples, and {} were sent", self.samples, self.taken);
        Err(FieldError::invalid("header.samples_per_state", reason))
    }

    fn solve(&self, settings: &MbarSettings<'_>) -> Result<Solved, MbarError> {
        let solution = solve_mbar_with(&self.u_kn, &self.n_k, settings)?;
        let of = |observable: &[f64]| solution.averages(&self.u_kn, &self.n_k, observable, settings);
        let averages = self.observables.chunks_exact(self.samples).map(of).collect::<Result<_, _>>()?;
        let errors = |b: &MbarBootstrap| b.standard_errors(&solution, &self.u_kn, &self.n_k, settings);
        let bootstrap = self.bootstrap.as_ref().map(errors).transpose()?;
        Ok(Solved { bootstrap, averages, solution })
    }

    fn answer(&self, solved: Solved) -> v1::SolveMbarResponse {
        let Solved { solution, bootstrap, averages } = solved;
        let k = self.n_k.len();
        let matrix = |numbers: Vec<f64>| array(numbers, &[k, k], v1::DataType::Float64, self.encoding);
        v1::SolveMbarResponse {
            standard_errors: Some(matrix(solution.standard_errors())),
            f: solution.f_k,
            overlap: Some(matrix(solution.overlap)),
            iterations: i32::try_from(solution.iterations).unwrap_or(i32::MAX),
            bootstrap_standard_errors: bootstrap.map(matrix),
            averages: self
                .names
                .iter()
                .zip(averages)
                .map(|(name, states)| v1::MbarAverages {
                    observable: name.clone(),
                    values: states.iter().map(|a| a.value).collect(),
                    standard_errors: states.iter().map(|a| a.standard_error).collect(),
                })
                .collect(),
            log_densities: self
                .log_densities
                .then(|| array(solution.log_densities, &[self.samples], v1::DataType::Float64, self.encoding)),
        }
    }
}

/// Rows (n, columns) as the columns (columns, N) from a sample on.
fn scatter(rows: &[f64], columns: &mut [f64], first: usize, samples: usize) {
    let width = columns.len() / samples.max(1);
    for (n, row) in rows.chunks_exact(width.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(k, value)| columns[k * samples + first + n] = *value);
    }
}
