//! Sockets that serve one address together (SO_REUSEPORT, udp with SO_REUSEADDR) as one row.

use crate::event::{Event, Peer, Proto};
use crate::row::{Row, State};

/// Joins servers with the same namespace, protocol, family, address, device and port, of rows in the order
/// of [`Row::place`]. A joined row is that of the process with the lowest pid. It has all holders by their
/// pid, the sums of what waits, may wait and was accepted, and no `sock` and `inode`, as its holders have
/// different ones.
pub fn servers<I: IntoIterator<Item = Row>>(rows: I) -> Servers<I::IntoIter> {
    Servers {
        rows: rows.into_iter(),
        next: None,
    }
}

/// See [`servers`].
pub struct Servers<I> {
    rows: I,
    /// Begins the next group.
    next: Option<Row>,
}

impl<I: Iterator<Item = Row>> Iterator for Servers<I> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let mut row = self.next.take().or_else(|| self.rows.next())?;
        while serves(&row) {
            match self.rows.next() {
                Some(other) if serves(&other) && is_beside(&row, &other) => join(&mut row, other),
                other => {
                    self.next = other;
                    break;
                }
            }
        }
        if is_group(&row) {
            let holders = row.event.holders.iter_mut();
            holders.for_each(|x| x.sort_unstable_by_key(|peer| (peer.pid, peer.sock)));
        }
        Some(row)
    }
}

/// Whether both are at one address.
fn is_beside(row: &Row, other: &Row) -> bool {
    fn place(row: &Row) -> impl PartialEq {
        let event = &row.event;
        let local = (event.lport, event.laddr, row.device);
        (local, event.netns, event.proto, event.family)
    }
    place(row) == place(other)
}

/// Whether it waits for others to come: a tcp listener, or a udp socket without a peer.
pub fn serves(row: &Row) -> bool {
    is_server(row.state, row.event.proto)
}

/// The same of a socket in this state.
pub fn is_server(state: State, proto: Option<Proto>) -> bool {
    match state {
        State::Listen => true,
        State::Unconn => proto == Some(Proto::Udp),
        _ => false,
    }
}

/// Whether a server is several sockets.
pub fn is_group(row: &Row) -> bool {
    // Only joining takes away both from a socket that somebody can have.
    serves(row) && row.event.inode.is_none() && row.event.sock.is_none()
}

/// Processes that hold a socket, or one of a group, each once, by their pid.
pub fn processes(event: &Event) -> Vec<&Peer> {
    let mut peers: Vec<&Peer> = event.holders.iter().flatten().collect();
    peers.sort_by_key(|x| x.pid);
    peers.dedup_by_key(|x| x.pid);
    peers
}

fn join(first: &mut Row, mut other: Row) {
    fn sum(a: Option<u32>, b: Option<u32>) -> Option<u32> {
        Some(a?.saturating_add(b?))
    }
    // Any pid comes before none.
    let pid = |row: &Row| row.event.pid.unwrap_or(u32::MAX);
    if pid(&other) < pid(first) {
        std::mem::swap(first, &mut other);
    }
    first.event.sock = None;
    first.event.inode = None;
    first.recv_queue = sum(first.recv_queue, other.recv_queue);
    first.send_queue = sum(first.send_queue, other.send_queue);
    first.event.backlog = sum(first.event.backlog, other.event.backlog);
    first.event.accepted = sum(first.event.accepted, other.event.accepted);
    first.since = first.since.into_iter().chain(other.since).min();
    let holders = other.event.holders.unwrap_or_default();
    if !holders.is_empty() {
        first.event.holders.get_or_insert_default().extend(holders);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    fn server(local: &str, pid: u32) -> Row {
        Row::server(Proto::Tcp, local, pid, "worker")
    }

    #[test]
    fn a_group_is_one_row_with_all_holders() {
        let mut elsewhere = server("0.0.0.0:80", 4);
        elsewhere.event.netns = Some(2);
        let mut on_device = server("0.0.0.0:80", 7);
        on_device.device = Device::new(b"eth0");
        let mut rows = vec![
            on_device.clone(),
            server("0.0.0.0:80", 1),
            server("0.0.0.0:81", 2),
            Row {
                recv_queue: Some(3),
                ..server("0.0.0.0:80", 3)
            },
            elsewhere,
            server("127.0.0.1:80", 5),
            Row::connection(State::Estab, "0.0.0.0:80", "10.0.0.1:5", 1, "worker"),
            Row::server(Proto::Udp, "0.0.0.0:80", 6, "worker"),
        ];
        on_device.device = Device::new(b"eth1");
        rows.push(on_device);
        rows.sort_by_key(Row::place);
        let rows: Vec<Row> = servers(rows).collect();
        let pids: Vec<Vec<u32>> = (rows.iter())
            .map(|row| {
                let holders = row.event.holders.iter().flatten();
                holders.map(|x| x.pid).collect()
            })
            .collect();
        let expected: &[&[u32]] = &[&[1, 3], &[1], &[7], &[7], &[4], &[5], &[6], &[2]];
        assert_eq!(pids, expected);
        assert_eq!(rows[0].recv_queue, Some(3));
        let room = (rows[0].event.backlog, rows[0].send_queue);
        assert_eq!(room, (Some(256), Some(256)));
        assert_eq!((rows[0].event.sock, rows[0].event.inode), (None, None));
        assert!(is_group(&rows[0]) && !is_group(&rows[1]) && !is_group(&rows[4]));
        assert_eq!(rows[7].event.sock, Some(20));
    }

    #[test]
    fn the_process_with_the_lowest_pid_owns_a_group() {
        let mut hidden = server("0.0.0.0:80", 0);
        (hidden.event.pid, hidden.event.comm, hidden.event.holders) = (None, None, None);
        let mut first = server("0.0.0.0:80", 2);
        first.event.comm = Some("first".into());
        let others = [3, 9].map(|pid| server("0.0.0.0:80", pid));
        let rows = [hidden].into_iter().chain(others).chain([first]);
        let [group] = &servers(rows).collect::<Vec<Row>>()[..] else {
            panic!("not one group")
        };
        let holders = group.event.holders.iter().flatten();
        let holders: Vec<u32> = holders.map(|x| x.pid).collect();
        assert_eq!(
            (group.event.pid, group.event.comm),
            (Some(2), Some("first".into()))
        );
        assert_eq!(holders, [2, 3, 9]);
    }
}
