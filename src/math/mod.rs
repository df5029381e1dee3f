//! Numbers without physics: the counter-based random generator, sums of exponentials, linear equations, assignments,
//! superpositions and principal axes, special functions.

mod assignment;
pub mod linear;
pub mod logsumexp;
pub mod philox;
pub mod special;
mod superposition;

pub use assignment::{assign, is_own_best};
pub use linear::solve_linear;
pub use logsumexp::{LogSumExp, log_sum_exp};
pub use philox::{Philox, Purpose, Randoms, open_uniform};
pub use superposition::{principal_axes, superposition};
