//! `portwatch trace` as a program: its exit codes, its streams, its ends. Traces the running
//! kernel, so without root these are listed as ignored. What is traced truly is tested by the
//! scenarios in `tests`.

mod command;
mod ends;
mod events;
#[path = "../program/mod.rs"]
mod program;
#[path = "../promises/mod.rs"]
mod promises;
#[path = "../traffic/mod.rs"]
mod traffic;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use program::portwatch;
use promises::root;
use traffic::NETWORK;

fn main() {
    let root = root();
    promises::run(
        &[
            (
                "stdout_holds_only_events_when_it_is_a_pipe",
                root,
                events::stdout_holds_only_events,
            ),
            (
                "write_leaves_stdout_to_the_command",
                root,
                command::write_leaves_stdout_to_the_command,
            ),
            (
                "only_the_command_and_its_descendants_are_shown",
                root,
                command::only_descendants,
            ),
            (
                "a_command_in_a_pid_namespace_is_followed_by_polling",
                root,
                command::in_pid_namespace,
            ),
            (
                "a_command_that_cannot_start_is_told_as_the_shell_does",
                root,
                command::command_cannot_start,
            ),
            (
                "the_end_of_a_command_is_known_where_ends_of_children_are_ignored",
                root,
                command::children_ignored,
            ),
            (
                "a_command_ignores_the_signals_that_portwatch_was_started_to_ignore",
                root,
                command::ignored_signals_are_inherited,
            ),
            (
                "a_close_that_takes_longer_than_the_command_is_told",
                root,
                command::late_close,
            ),
            (
                "what_a_command_leaves_open_is_waited_for_and_told",
                root,
                command::never_closed,
            ),
            (
                "the_command_runs_as_the_user_who_called_sudo",
                root,
                command::command_runs_as_caller,
            ),
            (
                "more_sockets_are_followed_than_there_is_room_for_at_first",
                root,
                events::crowd,
            ),
            (
                "holders_are_told_whatever_kinds_are_asked_for",
                root,
                events::holders_of_binds_only,
            ),
            (
                "closes_are_told_alike_whatever_kinds_are_asked_for",
                root,
                events::closes_only,
            ),
            (
                "a_program_in_no_directory_has_a_name",
                root,
                events::in_memory,
            ),
            (
                "a_trace_that_was_denied_probes_is_not_complete",
                root,
                events::denied_probes,
            ),
            ("csv_and_text_begin_with_names", root, events::header_first),
            (
                "it_traces_where_cgroups_are_mounted_for_its_parent_only",
                root,
                events::without_cgroups,
            ),
            (
                "count_and_duration_end_a_trace",
                root,
                ends::count_and_duration,
            ),
            (
                "a_filter_that_fails_on_an_event_is_a_failure",
                root,
                ends::failing_filter,
            ),
            (
                "an_interval_that_is_not_used_is_told",
                root,
                ends::unused_interval,
            ),
            (
                "an_interrupt_ends_a_trace_with_a_summary",
                root,
                ends::interrupt,
            ),
            (
                "two_interrupts_at_once_are_one",
                root,
                ends::two_interrupts_at_once,
            ),
            (
                "a_second_interrupt_ends_it_though_nobody_reads",
                root,
                ends::second_interrupt,
            ),
            (
                "signals_reach_the_command_and_the_second_ends_it_though_nobody_reads",
                root,
                command::signals_though_nobody_reads,
            ),
            (
                "a_command_may_get_many_signals",
                root,
                command::many_signals,
            ),
            (
                "capabilities_are_given_up_once_the_probes_are_attached",
                root,
                ends::capabilities,
            ),
            ("a_closed_pipe_is_a_normal_end", root, ends::closed_pipe),
            ("a_full_disk_is_told", root, ends::full_disk),
            (
                "a_full_disk_does_not_end_the_command",
                root,
                command::full_disk_with_command,
            ),
        ],
        false,
    )
}

fn run(args: &[&str]) -> Output {
    portwatch(args).output().unwrap()
}

/// Starts a trace and waits until it says that it traces.
fn start(command: &mut Command) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = command.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("portwatch: tracing with "), "{line}");
    (child, stderr)
}

fn interrupt_it(child: &Child) {
    send(child, libc::SIGINT);
}

fn send(child: &Child, signal: i32) {
    // SAFETY: no memory involved; the child is not waited for yet.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
