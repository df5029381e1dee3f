//! Numbers without physics: the counter-based random generator, sums of exponentials, linear equations, special functions.

pub mod linear;
pub mod logsumexp;
pub mod philox;
pub mod special;

pub use linear::solve_linear;
pub use logsumexp::{LogSumExp, log_sum_exp};
pub use philox::{Philox, Purpose, Randoms};
