//! The binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let environment = std::env::vars_os();
    let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
    cello_relay::cli::main(std::env::args_os(), environment.map(|(name, value)| (text(name), text(value))).collect())
}
