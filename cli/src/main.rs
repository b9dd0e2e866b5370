//! The `daymark` executable. Everything is in the library beside it, so that the benches can run it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    daymark_cli::main()
}
