//! Snapshots of sockets that these tests opened, by every means: the kernel's sock_diag, the running
//! /proc, and trees that look like one, whole and damaged.

mod processes;
#[path = "../promises/mod.rs"]
mod promises;
mod sockets;
mod trees;

use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use portwatch::row::Row;
use portwatch::snapshot::{Options, Snapshot, take};
use socket2::SockRef;

use promises::{root, run};

fn main() {
    if std::env::args().nth(1).as_deref() == Some(processes::WITHOUT_FIRST_THREAD) {
        processes::without_first_thread();
    }
    let root = root();
    let mptcp = mptcp_socket().is_none().then_some("a kernel with MPTCP");
    run(
        &[
            (
                "listeners_and_connections_are_shown_as_they_are",
                None,
                sockets::as_they_are,
            ),
            (
                "a_connection_that_waits_is_in_its_listeners_queue",
                None,
                sockets::queue,
            ),
            (
                "who_closes_first_stays_in_time_wait_with_no_holder",
                None,
                sockets::time_wait,
            ),
            (
                "a_mapped_connection_is_ipv6_with_ipv4_addresses",
                None,
                sockets::mapped,
            ),
            ("mptcp_is_shown_once", mptcp, sockets::mptcp),
            (
                "listeners_of_mptcp_that_share_an_address_are_all_shown",
                mptcp,
                sockets::shared_mptcp,
            ),
            (
                "listening_leaves_out_everything_else",
                None,
                sockets::listening,
            ),
            (
                "every_process_that_has_it_open_is_a_holder",
                None,
                processes::all_holders,
            ),
            (
                "a_socket_in_the_namespace_of_a_process_is_shown",
                root,
                processes::other_namespace,
            ),
            (
                "a_socket_in_the_namespace_of_a_thread_is_shown",
                root,
                processes::namespace_of_a_thread,
            ),
            (
                "a_device_has_the_name_that_it_has_in_the_namespace_of_the_socket",
                root,
                processes::devices,
            ),
            (
                "sockets_of_a_process_whose_first_thread_has_ended_are_shown",
                root,
                processes::first_thread_ended,
            ),
            (
                "a_socket_in_a_mounted_namespace_is_shown",
                root,
                processes::mounted_namespace,
            ),
            ("a_recorded_tree_is_read", None, trees::recorded),
            (
                "a_damaged_tree_gives_the_rest_and_says_what_is_missing",
                None,
                trees::damaged,
            ),
            (
                "in_a_tree_only_regular_files_of_sensible_size_are_read",
                None,
                trees::no_regular_files,
            ),
            (
                "a_tree_without_a_file_of_a_process_tells_the_rest_of_it",
                None,
                trees::incomplete_processes,
            ),
            (
                "a_tree_with_some_tables_says_which_are_missing",
                None,
                trees::some_tables,
            ),
            (
                "a_tree_without_namespaces_is_one",
                None,
                trees::no_namespaces,
            ),
            (
                "a_directory_that_is_no_proc_is_refused",
                None,
                trees::no_proc,
            ),
        ],
        // What one test forks has the sockets of the others for a moment.
        true,
    )
}

fn mptcp_socket() -> Option<OwnedFd> {
    // SAFETY: a new descriptor, owned by nobody else.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    }
}

const ALL: Options = Options {
    proc_root: None,
    listening: false,
    holders: true,
    without_ebpf: false,
    tcp_info: true,
    in_order: true,
};

/// The same by sock_diag and by /proc.
fn by_every_means() -> [Options; 2] {
    let proc_root = Some("/proc".into());
    [ALL, Options { proc_root, ..ALL }]
}

fn snapshot(options: &Options) -> Snapshot {
    take(options).unwrap()
}

/// The only row with these ports.
#[track_caller]
fn row(snapshot: &Snapshot, lport: u16, rport: Option<u16>) -> &Row {
    let rows = rows(snapshot, lport, rport);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    rows[0]
}

fn rows(snapshot: &Snapshot, lport: u16, rport: Option<u16>) -> Vec<&Row> {
    let ports = (Some(lport), rport);
    (snapshot.rows.iter())
        .filter(|row| (row.event.lport, row.event.rport) == ports)
        .collect()
}

fn inode(socket: &impl AsRawFd) -> u64 {
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    fs::metadata(path).unwrap().ino()
}

/// The kernel's cookie, from the socket itself.
fn cookie(socket: &impl AsFd) -> u64 {
    SockRef::from(socket).cookie().unwrap()
}

fn own_netns() -> u32 {
    u32::try_from(fs::metadata("/proc/self/ns/net").unwrap().ino()).unwrap()
}
