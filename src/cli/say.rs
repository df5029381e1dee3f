//! Lines on standard output and standard error, whose readers may have had enough of them.

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

/// `remark!` that does not panic where nobody reads: what a command is about goes on without its remarks.
macro_rules! remark {
    ($($text:tt)*) => {
        $crate::cli::say::beside(format_args!($($text)*))
    };
}

pub(super) fn line(text: Arguments<'_>) {
    let written = writeln!(std::io::stdout().lock(), "{text}");
    match written {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(READER_LEFT),
        Err(e) => {
            // They may be one and the same.
            beside(format_args!("error: standard output: {e}"));
            std::process::exit(1);
        }
    }
}

pub(super) fn beside(text: Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
