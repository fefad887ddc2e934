//! Chores of the project: `cargo xtask bpf`, and the tests and measurements that need more than `cargo test`.

mod bench;
mod bpf;
mod image;
mod kernels;
mod paths;
mod scenarios;
mod setup;
mod shell;
mod tally;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::paths::Paths;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Chores of portwatch",
    bin_name = "cargo xtask"
)]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Rebuild the committed eBPF object from its source
    Bpf(bpf::Args),
    /// Run all tests, here and on other kernels
    Test(test::Args),
    /// Measure what portwatch costs, beside other tracers
    Bench(bench::Args),
    /// Run commands on other kernels, in virtual machines
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let task = Args::parse().task;
    let done = Paths::find().and_then(|paths| match task {
        Task::Bpf(args) => bpf::task(&paths, &args).map(|()| true),
        Task::Test(args) => test::task(&paths, &args),
        Task::Bench(args) => bench::task(&paths, &args).map(|()| true),
        Task::Vm(args) => vm::task(&paths, &args),
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
