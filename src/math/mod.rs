//! Numbers without physics: the counter-based random generator, sums of exponentials, special functions.

pub mod logsumexp;
pub mod philox;
pub mod special;

pub use logsumexp::{LogSumExp, log_sum_exp};
pub use philox::{Philox, Purpose, Randoms};
