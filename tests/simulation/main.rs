//! Simulations: that their methods sample what they claim to, and of molecules.

mod distributions;
mod molecules;
mod profile;
mod walkers;
