//! `portwatch who` as a program, on sockets that these tests opened.

mod answer;
#[path = "../elsewhere/mod.rs"]
mod elsewhere;
mod hidden;
mod namespaces;
#[path = "../program/mod.rs"]
mod program;
#[path = "../promises/mod.rs"]
mod promises;
mod wait;

use std::net::TcpListener;
use std::process::Command;

use program::{outcome, portwatch};
use promises::{root, run};

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some(namespaces::BIND) => namespaces::bind(),
        Some(namespaces::V6ONLY) => namespaces::wildcards(),
        _ => {}
    }
    let root = root();
    let lacks =
        |flags: &[&str]| namespaces::unshare(flags, "true", &[]).is_none_or(|x| x.0 != Some(0));
    let user = lacks(&["-Urn"]).then_some("user namespaces and unshare");
    let range = wait::from_port(1).err().map(|_| "Linux 6.3");
    let pid = lacks(&hidden::PID).then_some("root and unshare");
    run(
        &[
            ("the_first_line_names_who_listens", None, answer::listener),
            ("json_tells_of_servers_peers_and_binds", None, answer::json),
            ("a_free_port_is_told_with_exit_code_0", None, answer::free),
            (
                "a_client_is_named_and_no_success_promised",
                None,
                answer::client,
            ),
            (
                "a_connection_of_ipv6_may_be_in_the_way_of_ipv4",
                None,
                answer::ipv6,
            ),
            ("wait_tells_who_failed_and_who_frees_it", root, wait::wait),
            (
                "another_proc_is_asked_and_watched_by_polling",
                None,
                wait::another_proc,
            ),
            (
                "wait_tells_of_connections_made_from_there",
                root.or(range),
                wait::wait_for_connections,
            ),
            (
                "a_privilege_counts_only_where_the_network_namespace_belongs",
                user,
                namespaces::privilege,
            ),
            (
                "a_setting_makes_the_wildcard_of_ipv6_one_for_ipv6_only",
                user,
                namespaces::v6only,
            ),
            (
                "processes_outside_of_the_pid_namespace_are_said_to_be_hidden",
                pid,
                hidden::pid_namespace,
            ),
            (
                "a_namespace_that_cannot_be_entered_is_said_to_be_read_from_proc",
                root,
                hidden::not_entered,
            ),
            (
                "owners_that_the_kernel_tells_are_not_said_to_be_hidden",
                root,
                hidden::told_by_the_kernel,
            ),
        ],
        // A port that one has just freed must not be picked by another.
        true,
    )
}

fn who(args: &[&str]) -> Command {
    portwatch(&[&["who"], args].concat())
}

/// What it prints, which has to go well.
fn prints(args: &[&str]) -> String {
    let (code, stdout, stderr) = outcome(who(args).output().unwrap());
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    stdout
}

fn open() -> (TcpListener, u16, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port, port.to_string())
}

fn own_comm() -> String {
    std::fs::read_to_string("/proc/self/comm")
        .unwrap()
        .trim_end()
        .to_owned()
}
