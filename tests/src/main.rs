//! `scenarios`: makes traffic whose truth it knows, and checks that portwatch tells exactly that.
//! Needs no other program, so that it also runs in a virtual machine with nothing else in it.

mod churn;
mod harness;
mod listeners;
mod runner;
mod scenarios;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Result, bail};
use clap::Parser;

use harness::stage::{Options, Scale};
use runner::{Runner, Scenario};

#[derive(Parser)]
#[command(about = "Checks that portwatch tells exactly what happened")]
struct Cli {
    /// The program under test
    #[arg(long, default_value = "portwatch")]
    portwatch: PathBuf,
    /// Tier of probes to force
    #[arg(long, default_value = "auto")]
    probes: String,
    /// How much traffic to make
    #[arg(long, value_enum, default_value = "full")]
    scale: Scale,
    /// Print the names of all scenarios
    #[arg(long)]
    list: bool,
    /// Instead of testing: this many connections over loopback at full speed
    #[arg(long, value_name = "N")]
    churn: Option<u64>,
    /// Instead of testing: open this many listeners, and keep them until stdin ends
    #[arg(long, value_name = "N")]
    listeners: Option<usize>,
    /// Threads of --churn
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Result of --churn in JSON
    #[arg(long)]
    json: bool,
    /// Scenarios to run, or parts of their names; all by default
    names: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(done) = scenarios::programs::run(&args) {
        return done;
    }
    let cli = Cli::parse();
    if let Some(connections) = cli.churn {
        let done = churn::churn(connections, cli.threads)?;
        if cli.json {
            println!("{}", serde_json::to_string(&done)?);
        } else {
            let rate = done.connections as f64 / done.seconds;
            println!(
                "{} connections in {:.3} s, {rate:.0} a second",
                done.connections, done.seconds
            );
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(count) = cli.listeners {
        listeners::listeners(count)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (together, alone) = (scenarios::together(), scenarios::alone(cli.scale));
    if cli.list {
        for scenario in together.iter().chain(&alone) {
            println!("{}", scenario.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = |all: Vec<Scenario>| -> Vec<Scenario> {
        let is = |scenario: &Scenario| cli.names.iter().any(|name| scenario.name.contains(&**name));
        let chosen = |scenario: &Scenario| cli.names.is_empty() || is(scenario);
        all.into_iter().filter(chosen).collect()
    };
    let (together, alone) = (chosen(together), chosen(alone));
    if together.is_empty() && alone.is_empty() {
        bail!("no scenario of that name; --list shows them");
    }
    let options = Options {
        portwatch: cli.portwatch,
        probes: cli.probes,
        scale: cli.scale,
        doctor: Rc::default(),
    };
    let mut runner = Runner::default();
    runner.together(&together, &options)?;
    runner.alone(&alone, &options)?;
    Ok(if runner.totals()? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
