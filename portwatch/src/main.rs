//! The program `portwatch`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    portwatch::command::main()
}
