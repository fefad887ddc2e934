//! `portwatch list` as a program, on sockets that these tests opened.

#[path = "../elsewhere/mod.rs"]
mod elsewhere;
mod ends;
mod groups;
mod limits;
#[path = "../program/mod.rs"]
mod program;
#[path = "../promises/mod.rs"]
mod promises;
mod shown;

use std::net::TcpListener;

use serde_json::Value;

use program::{outcome, portwatch};
use promises::{root, run};

fn main() {
    let root = root();
    run(
        &[
            ("without_a_command_servers_are_listed", None, shown::servers),
            ("all_shows_every_state", None, shown::every_state),
            ("filters_and_states_select", None, shown::filters),
            ("rows_are_in_the_order_asked_for", None, shown::order),
            ("csv_has_a_row_for_each", None, shown::csv),
            ("a_group_is_one_row", None, groups::group),
            ("a_name_that_is_no_text_is_shown_whole", None, shown::name),
            (
                "a_group_is_that_of_the_lowest_pid_with_the_queues_of_all",
                None,
                groups::workers,
            ),
            (
                "a_group_of_mptcp_is_that_of_the_lowest_pid_with_the_queues_of_all",
                None,
                groups::mptcp_workers,
            ),
            (
                "nothing_found_is_a_header_and_no_error",
                None,
                shown::nothing,
            ),
            ("wrong_usage_is_exit_code_2", None, ends::wrong_usage),
            (
                "a_filter_that_fails_on_a_row_is_a_failure",
                None,
                ends::failing_filter,
            ),
            ("a_closed_pipe_is_a_normal_end", None, ends::closed_pipe),
            (
                "help_that_cannot_be_written_is_a_failure",
                None,
                ends::full_disk,
            ),
            (
                "other_namespaces_are_listed_as_such",
                root,
                limits::namespaces,
            ),
            (
                "names_of_namespaces_here_are_not_for_another_proc",
                root,
                limits::named_namespace,
            ),
            (
                "an_ordinary_user_gets_one_hint_and_no_error",
                root,
                limits::ordinary_user,
            ),
            (
                "a_proc_that_hides_processes_is_in_the_hint",
                root,
                limits::hidden_processes,
            ),
        ],
        // What one test forks has the sockets of the others for a moment.
        true,
    )
}

/// What it prints, which has to go well.
fn prints(args: &[&str]) -> String {
    let (code, stdout, stderr) = outcome(portwatch(args).output().unwrap());
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    stdout
}

fn rows(args: &[&str]) -> Vec<Value> {
    let stdout = prints(args);
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

fn own_pid() -> String {
    std::process::id().to_string()
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}
