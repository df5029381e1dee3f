//! Lines on standard output, whose reader may have had enough of them.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// What a shell shows of a program that SIGPIPE has ended.
const READER_LEFT: i32 = 141;

/// `println!` that neither panics nor goes on where nobody reads any more, as in `boltzflow jobs list | head -3`.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::cli::say::line(format_args!($($text)*))
    };
}

pub(super) fn line(text: Arguments<'_>) {
    let written = writeln!(std::io::stdout().lock(), "{text}");
    match written {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(READER_LEFT),
        Err(e) => {
            // They may be one and the same.
            let _ = writeln!(std::io::stderr(), "error: standard output: {e}");
            std::process::exit(1);
        }
    }
}
