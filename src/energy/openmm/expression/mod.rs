//! The expression language of OpenMM's custom forces: read, differentiated, simplified and run in batches.
//!
//! A text becomes nodes of a [`Graph`], in which equal expressions are one node (`scope`, `parse`, `graph`); derivatives are
//! further nodes of it (`derivative`). A [`Program`] is the straight line of instructions that computes some of them
//! (`program`), for eight sets of parameters and eight configurations at once or 64 sets and a single configuration (`run`),
//! and an [`EnergyProgram`] what a force needs of them (`energy`). `table` has the tabulated functions; `named` is for
//! expressions of a few numbers that are no force's.

mod derivative;
mod energy;
mod graph;
mod named;
mod parse;
mod program;
mod run;
mod scope;
mod table;

pub(super) use energy::{EnergyProgram, EnergyRegisters};
pub(super) use graph::{Graph, Node, TableName};
pub use named::NamedExpression;
pub(super) use parse::parse;
pub(super) use program::Program;
pub(super) use run::{PACKED, PackedRegisters, Registers, SLOTS};
pub(super) use scope::{Measure, Scope};
pub(super) use table::{Axis, Table};
