//! Why a trajectory could not be read or written.

use super::Format;
use std::fmt::Display;

/// Frames and atoms are counted from 1.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TrajectoryError {
    #[error("the file is empty; copy it again, or run the simulation again that should have written it")]
    Empty,
    #[error("this is no {format} file: {reason}; give the file the ending of the format that it has")]
    OtherFormat { format: Format, reason: String },
    #[error("the {format} file is damaged: {reason}; copy it again, or write it anew from where it came from")]
    Damaged { format: Format, reason: String },
    #[error("the {format} file cannot be used: {reason}; {remedy}")]
    Unsupported { format: Format, reason: String, remedy: &'static str },
    #[error(
        "the {format} file holds no whole frame{}; copy it again, or let the simulation run for longer",
        because(lost)
    )]
    NoFrame { format: Format, lost: String },
    #[error(
        "frame {frame} of the {format} file has {atoms} atoms, and the frames before it have {before}; \
         pass a file of one molecule"
    )]
    OtherAtoms { format: Format, frame: usize, atoms: usize, before: usize },
    #[error(
        "atom {atom} in frame {frame} is at a position that is not a finite number; \
         the simulation has diverged there: leave out that frame and those after it"
    )]
    NotFinite { format: Format, frame: usize, atom: usize },
    #[error(
        "{numbers} numbers are no positions of {atoms} atoms; \
         pass at least one frame, each of three numbers an atom"
    )]
    Shape { atoms: usize, numbers: usize },
    #[error("there are {times} times of {frames} frames; pass one a frame, or none")]
    Times { frames: usize, times: usize },
    #[error("{format} cannot hold this: {reason}; {remedy}")]
    Unwritable { format: Format, reason: String, remedy: &'static str },
}

fn because(lost: &str) -> String {
    if lost.is_empty() { String::new() } else { format!(" ({lost})") }
}

pub(super) fn damaged(format: Format, reason: impl Display) -> TrajectoryError {
    TrajectoryError::Damaged { format, reason: reason.to_string() }
}

pub(super) fn unsupported(format: Format, reason: impl Display, remedy: &'static str) -> TrajectoryError {
    TrajectoryError::Unsupported { format, reason: reason.to_string(), remedy }
}

pub(super) fn unwritable(format: Format, reason: impl Display, remedy: &'static str) -> TrajectoryError {
    TrajectoryError::Unwritable { format, reason: reason.to_string(), remedy }
}

/// The sentence for a frame that the file's end cuts off.
pub(super) fn cut_off(bytes: usize, frame: usize) -> String {
    format!("the last {bytes} bytes are only the beginning of frame {frame}")
}
