//! The `boltzflow` binary.

use std::process::ExitCode;

/// Training allocates and frees large buffers in every step, which glibc's allocator gives back to the system each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    boltzflow::cli::main()
}
