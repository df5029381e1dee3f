//! Ways of making samples, as the command line names them.

use super::client::CliError;
use crate::contract::v1::{self, SamplingMethod as Method};

const NAMES: [(&str, Method); 9] = [
    ("auto", Method::Auto),
    ("reweighting", Method::Reweighting),
    ("latent-scaling", Method::LatentScaling),
    ("conditioned", Method::Conditioned),
    ("resampled", Method::Resampled),
    ("annealed", Method::Annealed),
    ("smc", Method::SequentialMonteCarlo),
    ("chain", Method::Chain),
    ("replica-exchange", Method::ReplicaExchange),
];

/// How samples are made.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Method")]
pub(super) struct MethodArgs {
    /// auto: importance sampling, by the best of the next three, as long as its weights are good, else smc, else replica-exchange;
    /// reweighting, latent-scaling, conditioned: by how the flow reaches the temperature; resampled: equal weights; annealed: each sample
    /// carried from the flow to the target, with the exact weight of its path; smc: populations of them, resampled on
    /// the way; chain, replica-exchange: Markov chains into which the flow's samples come
    #[arg(long, default_value = "auto", value_name = "METHOD")]
    method: String,
    /// resampled: samples of a window [default: 4096]
    #[arg(long, value_name = "W")]
    window: Option<i64>,
    /// smc: samples of a population [default: 512]
    #[arg(long, value_name = "M")]
    population: Option<i64>,
    /// smc: effective fraction of the weights of each step, by which exponents are placed [default: 0.7]
    #[arg(long, value_name = "F")]
    conditional_fraction: Option<f64>,
    /// annealed: distributions between flow and target [default: 8]
    #[arg(long, value_name = "K")]
    distributions: Option<i64>,
    /// smc, replica-exchange: exponents of the distributions between flow and target [default: placed by a pilot]
    #[arg(long, value_name = "B,…", value_delimiter = ',')]
    exponents: Vec<f64>,
    /// chain, replica-exchange: chains side by side [default: 64]
    #[arg(long, value_name = "W")]
    chains: Option<i64>,
    /// chain, replica-exchange: samples of each chain [default: 256]
    #[arg(long, value_name = "L")]
    length: Option<i64>,
    /// chain, replica-exchange: steps before these [default: 64]
    #[arg(long, value_name = "B")]
    burn_in: Option<i64>,
    /// chain, replica-exchange: jumps and exchanges only
    #[arg(long)]
    without_moves: bool,
    /// smc, chain, replica-exchange: moves at each distribution or step that draw a share of the latents anew [default: 16 for
    /// smc and 2 for the others, or none with --moves; 4 for these of a continuous flow]
    #[arg(long, value_name = "N")]
    latent_moves: Option<i64>,
    /// annealed, smc, chain, replica-exchange: moves of Hamiltonian Monte Carlo at each distribution or step [default: none for smc,
    /// 1 for the others, or none with --latent-moves]
    #[arg(long, value_name = "N")]
    moves: Option<i64>,
    /// The same: leapfrog steps of such a move [default: 5]
    #[arg(long, value_name = "L")]
    leapfrog_steps: Option<i64>,
    /// The same: step sizes in flow coordinates, one or one for each distribution [default: tuned by a pilot]
    #[arg(long, value_name = "S,…", value_delimiter = ',')]
    step_sizes: Vec<f64>,
}

/// A method by its name on the command line.
pub(super) fn method(name: &str) -> Result<Method, CliError> {
    if let Some((_, method)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*method);
    }
    let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
    Err(CliError::failed(format!("'{name}' is not a method; use one of {}", known.join(", "))))
}

/// A method as answers name it.
pub(super) fn method_name(method: Method) -> String {
    method.as_str_name().trim_start_matches("SAMPLING_METHOD_").to_lowercase()
}

/// A method as it is asked for.
fn flag(method: Method) -> &'static str {
    NAMES.iter().find(|(_, known)| *known == method).map_or("", |(name, _)| name)
}

impl MethodArgs {
    /// Puts all that is said into a request.
    pub fn put(&self, request: &mut v1::StreamSamplesRequest) -> Result<(), CliError> {
        let method = method(&self.method)?;
        request.method = method.into();
        self.check(method)?;
        let (moves, leapfrog_steps) = (self.moves.unwrap_or(0), self.leapfrog_steps.unwrap_or(0));
        let latent_moves = self.latent_moves.unwrap_or(0);
        let step_sizes = self.step_sizes.clone();
        match method {
            Method::Resampled => request.resampling = Some(v1::Resampling { window: self.window.unwrap_or(0) }),
            Method::Annealed => {
                let distributions = self.distributions.unwrap_or(0);
                request.annealed = Some(v1::AnnealedPaths { distributions, moves, leapfrog_steps, step_sizes });
            }
            Method::SequentialMonteCarlo => {
                request.sequential_monte_carlo = Some(v1::SequentialMonteCarlo {
                    population: self.population.unwrap_or(0),
                    latent_moves,
                    moves,
                    leapfrog_steps,
                    conditional_fraction: self.conditional_fraction.unwrap_or(0.0),
                    exponents: self.exponents.clone(),
                    step_sizes,
                });
            }
            Method::Chain | Method::ReplicaExchange => {
                request.chains = Some(v1::MarkovChains {
                    chains: self.chains.unwrap_or(0),
                    length: self.length.unwrap_or(0),
                    burn_in: self.burn_in.unwrap_or(0),
                    without_moves: self.without_moves,
                    latent_moves,
                    moves,
                    leapfrog_steps,
                    exponents: self.exponents.clone(),
                    step_sizes,
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// The method of samples that the server keeps, which are of importance sampling.
    pub fn of_stored(&self) -> Result<Method, CliError> {
        let method = method(&self.method)?;
        self.check(method)?;
        Ok(method)
    }

    /// That nothing is said that the method does not know.
    fn check(&self, method: Method) -> Result<(), CliError> {
        use Method::{Annealed, Chain, ReplicaExchange, Resampled, SequentialMonteCarlo};
        let of_moves: &[Method] = &[Annealed, SequentialMonteCarlo, Chain, ReplicaExchange];
        let of_chains: &[Method] = &[Chain, ReplicaExchange];
        let said = [
            ("window", self.window.is_some(), &[Resampled] as &[Method]),
            ("population", self.population.is_some(), &[SequentialMonteCarlo]),
            ("conditional-fraction", self.conditional_fraction.is_some(), &[SequentialMonteCarlo]),
            ("distributions", self.distributions.is_some(), &[Annealed]),
            ("exponents", !self.exponents.is_empty(), &[SequentialMonteCarlo, ReplicaExchange]),
            ("chains", self.chains.is_some(), of_chains),
            ("length", self.length.is_some(), of_chains),
            ("burn-in", self.burn_in.is_some(), of_chains),
            ("without-moves", self.without_moves, of_chains),
            ("latent-moves", self.latent_moves.is_some(), &[SequentialMonteCarlo, Chain, ReplicaExchange]),
            ("moves", self.moves.is_some(), of_moves),
            ("leapfrog-steps", self.leapfrog_steps.is_some(), of_moves),
            ("step-sizes", !self.step_sizes.is_empty(), of_moves),
        ];
        match said.iter().find(|(_, is_said, of)| *is_said && !of.contains(&method)) {
            None => Ok(()),
            Some((option, _, of)) => {
                let of: Vec<&str> = of.iter().map(|m| flag(*m)).collect();
                Err(CliError::failed(format!("--{option} is of --method {}", of.join(" or "))))
            }
        }
    }
}
