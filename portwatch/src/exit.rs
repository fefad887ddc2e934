//! How the program ends: the exit codes that scripts may rely on.

use std::process::ExitCode;

/// What an exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Fine,
    Failed,
    WrongUsage,
    /// Something is missing, and `--require-complete` was given.
    Incomplete,
    /// The command that was traced ended with this code, or by a signal (128 + its number).
    Command(u8),
}

impl Exit {
    pub const fn code(self) -> u8 {
        match self {
            Exit::Fine => 0,
            Exit::Failed => 1,
            Exit::WrongUsage => 2,
            Exit::Incomplete => 4,
            Exit::Command(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
