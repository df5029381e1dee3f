//! Whole flows on the CPU, tile by tile.
//!
//! A tile is [`ROWS`] rows of a batch, feature by feature, so that vectors run along the rows (`dense`). `program` carries
//! a tile through all of a flow's stages, for which it stays in the cache; `coupling` is the stage that matters, made of
//! dense layers (`dense`, `bf16`) and a transform (`affine`, `volume_preserving`, `spline`, `logistic_mixture`). `linear` has
//! maps of the coordinates by a matrix (`lu`, `householder`). `training` keeps what the way back of a gradient needs and goes it
//! (`spline_gradient`, `weight_gradient`). `packed` has the weights in the order of their use, `latents` draws what flows start
//! from. `pair_field` is the field of a continuous flow of identical particles, `pair_rates` has its velocities and their
//! divergence, and `pair_matching` the regression on it. Kernels are generic in the instruction set (`vectors`) and in the
//! conditioner's precision (`number`).
//!
//! A row's numbers do not depend on the other rows of its batch, nor on the number of threads. They do depend on whether
//! the processor fuses products with sums, as all with AVX2 or AVX-512 do.

mod affine;
mod bf16;
mod coupling;
mod dense;
mod householder;
mod latents;
mod linear;
mod logistic_mixture;
mod lu;
mod number;
mod packed;
mod pair_field;
mod pair_matching;
mod pair_rates;
mod program;
mod spline;
mod spline_gradient;
mod training;
mod vectors;
mod volume_preserving;
mod weight_gradient;

pub use coupling::{Coupling, SplineColumn, Transform};
pub use dense::{DenseLayer, Lane, ROWS};
pub use latents::LatentLanes;
pub use linear::{Linear, LinearMap};
pub use number::{Number, ln, quadrant_sin_cos};
pub use packed::PackedWeights;
pub use pair_field::{PackedPairs, PairField, TINY};
pub use pair_matching::Lines;
pub use program::{Program, Stage, TileScratch, load, store};
pub use spline::Shape;
pub use training::{Tape, TileTape};
pub use vectors::{Found, InstructionSet, Kernel, Portable, dispatch};
