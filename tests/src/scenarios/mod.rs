//! One file per concern; each function is a promise.

mod binding;
mod closing;
mod commands;
mod connecting;
mod ending;
mod families;
mod filters;
mod listeners;
mod listing;
mod loss;
mod namespaces;
mod owners;
pub mod programs;
mod recording;
mod rings;
mod sharing;
mod udp;
mod usage;
mod variants;

use crate::harness::stage::Scale;
use crate::runner::Scenario;

/// Those that can share a trace, since they ask for no more than one of everything, in the order in
/// which they are run.
pub fn together() -> Vec<Scenario> {
    let all = [
        listeners::ALL,
        connecting::ALL,
        binding::ALL,
        closing::ALL,
        sharing::ALL,
        families::ALL,
        udp::ALL,
        namespaces::ALL,
        variants::ALL,
        rings::ALL,
    ];
    all.concat()
}

/// Those that have to be alone. On an emulated machine without those that say nothing of its
/// kernel: what happens after an event was read is the same on every kernel.
pub fn alone(scale: Scale) -> Vec<Scenario> {
    let of_the_kernel = [
        listing::ALL,
        loss::ALL,
        ending::ATTACHED,
        recording::REPLAYED,
    ];
    let of_the_program = [
        owners::ALL,
        filters::ALL,
        commands::ALL,
        ending::ALL,
        recording::ALL,
        usage::ALL,
    ];
    match scale {
        Scale::Full => [of_the_kernel.concat(), of_the_program.concat()].concat(),
        Scale::Vm => of_the_kernel.concat(),
    }
}
