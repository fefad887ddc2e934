//! What `who` says about binds, against what the kernel does: real sockets are opened, then every kind of
//! bind is really tried. In a network namespace of its own as root, so that nothing else has ports.

#[path = "../alone/mod.rs"]
mod alone;
mod attempts;
mod connections;
#[path = "../elsewhere/mod.rs"]
mod elsewhere;
mod places;
#[path = "../promises/mod.rs"]
mod promises;
mod sockets;

use alone::own_network;
use promises::{root, run};

fn main() {
    let root = root();
    if root.is_none() {
        own_network();
    }
    run(
        &[
            (
                "a_listener_stops_what_the_kernel_says_it_stops",
                None,
                sockets::listeners,
            ),
            ("an_mptcp_listener_has_a_tcp_port", None, sockets::mptcp),
            (
                "a_udp_socket_stops_what_the_kernel_says_it_stops",
                None,
                sockets::udp,
            ),
            (
                "what_is_bound_but_does_not_listen_stops_binds_too",
                None,
                sockets::bound,
            ),
            (
                "a_connection_left_by_its_listener_stops_some",
                None,
                connections::orphan,
            ),
            (
                "time_wait_stops_only_binds_without_so_reuseaddr",
                None,
                connections::time_wait,
            ),
            (
                "sockets_of_no_listener_without_so_reuseaddr_stop_all",
                None,
                connections::no_reuse,
            ),
            (
                "a_connection_of_ipv6_may_stop_the_wildcard_of_ipv4",
                None,
                connections::ipv6_connections,
            ),
            ("a_free_port_is_free", None, sockets::free),
            (
                "another_namespace_has_ports_of_its_own",
                root,
                sockets::other_namespace,
            ),
            (
                "sockets_of_other_devices_of_the_namespace_are_not_in_the_way",
                root,
                places::devices,
            ),
            (
                "multicast_and_broadcast_are_bound_as_the_kernel_has_it",
                None,
                places::multicast,
            ),
            (
                "an_address_that_is_not_here_cannot_be_bound_unless_the_namespace_allows_it",
                root,
                places::addresses,
            ),
        ],
        // A port that one has just freed must not be picked by another.
        true,
    )
}
