//! The row: one socket as it is at a moment, in the words of the schema.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::device::Device;
use crate::event::{Event, Field, Peer, Value, spelled};
use crate::group;
use crate::usual;

spelled! {
    /// State of a socket, spelled as the kernel and `ss` do.
    State {
        Listen = "LISTEN",
        SynSent = "SYN-SENT",
        SynRecv = "SYN-RECV",
        Estab = "ESTAB",
        FinWait1 = "FIN-WAIT-1",
        FinWait2 = "FIN-WAIT-2",
        CloseWait = "CLOSE-WAIT",
        LastAck = "LAST-ACK",
        Closing = "CLOSING",
        TimeWait = "TIME-WAIT",
        /// Bound but neither connected nor listening; the usual state of a udp socket.
        Unconn = "UNCONN",
    }
}

impl State {
    /// From the kernel's number (`TCP_ESTABLISHED` = 1 …); `None` for one it does not have.
    pub fn from_kernel(number: u8) -> Option<Self> {
        use State::*;
        // 12 is TCP_NEW_SYN_RECV: a request, which no process has seen yet.
        [
            Estab, SynSent, SynRecv, FinWait1, FinWait2, TimeWait, Unconn, CloseWait, LastAck,
            Listen, Closing, SynRecv,
        ]
        .get(usize::from(number).checked_sub(1)?)
        .copied()
    }
}

/// One socket as it is at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is and whose, as the event that would have brought it here: `listen` for a listener,
    /// `connect` or `accept` for a connection (`connect` where nobody knows), `bind` for the rest.
    /// `holders` are all processes that have it open now; the owner (`pid` …) is the one that opened,
    /// connected or accepted it, in a snapshot the holder with the lowest pid.
    pub event: Event,
    pub state: State,
    /// The network device that it is bound to; `None` also where only events, a session or /proc tell
    /// of it.
    pub device: Option<Device>,
    /// Bound, listening or established since: nanoseconds since the Unix epoch.
    pub since: Option<u64>,
    /// `ss`'s Recv-Q: bytes not read yet; of a listener the connections that wait to be accepted.
    pub recv_queue: Option<u32>,
    /// `ss`'s Send-Q: bytes not acknowledged yet; of a listener its backlog.
    pub send_queue: Option<u32>,
    /// Of an IPv6 socket: not for IPv4 as well (IPV6_V6ONLY); `None` where nobody told.
    pub v6only: Option<bool>,
}

/// A name of a row: JSON key, `--fields` name, filter variable. Most are the event's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Event(Field),
    State,
    Device,
    Since,
    RecvQueue,
    SendQueue,
    Inode,
    /// What is unusual about the pair of program and port.
    Note,
}

impl Column {
    /// In the order of output.
    pub const ALL: &'static [Column] = &[
        Column::Event(Field::Proto),
        Column::State,
        Column::Event(Field::Family),
        Column::Event(Field::Laddr),
        Column::Event(Field::Lport),
        Column::Event(Field::Raddr),
        Column::Event(Field::Rport),
        Column::Device,
        Column::Event(Field::Sock),
        Column::Event(Field::Netns),
        Column::Event(Field::Pid),
        Column::Event(Field::Ppid),
        Column::Event(Field::Uid),
        Column::Event(Field::Comm),
        Column::Event(Field::Exe),
        Column::Event(Field::Args),
        Column::Event(Field::User),
        Column::Event(Field::Parents),
        Column::Event(Field::Cgroup),
        Column::Event(Field::Container),
        Column::Event(Field::Unit),
        Column::Event(Field::Holders),
        Column::Since,
        Column::Event(Field::Backlog),
        Column::RecvQueue,
        Column::SendQueue,
        Column::Event(Field::RttUs),
        Column::Event(Field::Retrans),
        Column::Event(Field::RxBytes),
        Column::Event(Field::TxBytes),
        Column::Event(Field::Accepted),
        Column::Inode,
        Column::Event(Field::Service),
        Column::Note,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Column::Event(field) => field.as_str(),
            Column::State => "state",
            Column::Device => "device",
            Column::Since => "since",
            Column::RecvQueue => "recv_queue",
            Column::SendQueue => "send_queue",
            Column::Inode => "inode",
            Column::Note => "note",
        }
    }
}

impl Column {
    /// The one spelled so, `None` when there is none.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|x| x.as_str() == text)
    }
}

impl Row {
    /// What may be left of a connection that closed.
    pub fn time_wait(close: Event) -> Self {
        Self {
            event: close,
            state: State::TimeWait,
            device: None,
            since: None,
            recv_queue: None,
            send_queue: None,
            v6only: None,
        }
    }

    /// Where it comes in the usual order: by port, protocol and address. Servers at one address are
    /// next to each other.
    pub fn place(&self) -> impl Ord + use<> {
        let event = &self.event;
        let local = (
            event.lport,
            event.proto,
            event.laddr,
            event.netns,
            self.device,
        );
        let only_bound = !group::serves(self);
        (local, event.family, event.raddr, event.rport, only_bound)
    }

    /// Value of one column; `None` when absent.
    pub fn value(&self, column: Column) -> Option<Value<'_>> {
        let int = |x: Option<u32>| x.map(|x| Value::Int(x.into()));
        match column {
            Column::Event(field) => self.event.value(field),
            Column::State => Some(Value::Text(Cow::Borrowed(self.state.as_str()))),
            Column::Device => self.device.as_ref().map(|x| Value::Text(x.text())),
            Column::Since => self.since.map(Value::Time),
            Column::RecvQueue => int(self.recv_queue),
            Column::SendQueue => int(self.send_queue),
            Column::Inode => self.event.inode.map(Value::Int),
            Column::Note => usual::note(self).map(|note| Value::Text(note.into())),
        }
    }
}

/// Sorts by a column; what lacks it comes last, what is equal by port, protocol and address.
pub fn sort(rows: &mut [Row], by: Column, descending: bool) {
    // Rows are large: keys are sorted, and each row is then moved once.
    let mut keys: Vec<_> = (rows.iter().enumerate())
        .map(|(at, row)| (row.value(by), row.place(), at))
        .collect();
    keys.sort_unstable_by(|(a, place_a, at_a), (b, place_b, at_b)| {
        let order = match (a, b) {
            (Some(a), Some(b)) if descending => compare(b, a),
            (Some(a), Some(b)) => compare(a, b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        };
        order.then_with(|| (place_a, at_a).cmp(&(place_b, at_b)))
    });
    let mut sources: Vec<usize> = keys.into_iter().map(|(_, _, at)| at).collect();
    for to in 0..rows.len() {
        // What was there first may have been swapped away, and then has to be looked for.
        let mut from = sources[to];
        while from < to {
            from = sources[from];
        }
        sources[to] = from;
        rows.swap(to, from);
    }
}

/// Values of one column: numbers and addresses by their order, text by its letters.
fn compare(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    match (a, b) {
        (Value::Time(a), Value::Time(b)) | (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Addr(a), Value::Addr(b)) => a.cmp(b),
        (Value::List(a), Value::List(b)) => a.cmp(b),
        (Value::Peers(a), Value::Peers(b)) => {
            let pids = |peers: &[Peer]| peers.iter().map(|x| x.pid).collect::<Vec<_>>();
            pids(a).cmp(&pids(b))
        }
        // a column has one kind of value
        _ => Ordering::Equal,
    }
}

#[cfg(test)]
impl Row {
    /// A listener, or a bound udp socket, of root's process.
    pub fn server(proto: crate::event::Proto, local: &str, pid: u32, comm: &str) -> Self {
        use crate::event::{Comm, Context, Family, Kind, Origin, Peer, Proto};
        let local: std::net::SocketAddr = local.parse().unwrap();
        let listener = proto != Proto::Udp;
        let kind = if listener { Kind::Listen } else { Kind::Bind };
        let mut name = [0; 16];
        name[..comm.len()].copy_from_slice(comm.as_bytes());
        let mut event = Event::new(kind, Origin::Seed, 0);
        event.proto = Some(proto);
        event.family = Some(if local.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        });
        event.laddr = Some(local.ip());
        event.lport = Some(local.port());
        event.netns = Some(1);
        event.sock = Some(u64::from(pid) * 10);
        event.inode = Some(u64::from(pid) * 100);
        event.pid = Some(pid);
        event.uid = Some(0);
        event.comm = Some(Comm(name));
        event.context = Some(std::sync::Arc::new(Context {
            user: Some("root".into()),
            ..Context::default()
        }));
        event.holders = Some(vec![Peer {
            pid,
            comm: comm.into(),
            sock: event.sock,
        }]);
        event.backlog = listener.then_some(128);
        Self {
            event,
            state: if listener {
                State::Listen
            } else {
                State::Unconn
            },
            device: None,
            since: None,
            recv_queue: Some(0),
            send_queue: listener.then_some(128),
            v6only: None,
        }
    }

    /// A tcp connection.
    pub fn connection(state: State, local: &str, remote: &str, pid: u32, comm: &str) -> Self {
        let remote: std::net::SocketAddr = remote.parse().unwrap();
        let mut row = Self::server(crate::event::Proto::Tcp, local, pid, comm);
        row.event.kind = crate::event::Kind::Accept;
        row.event.raddr = Some(remote.ip());
        row.event.rport = Some(remote.port());
        row.event.backlog = None;
        row.send_queue = Some(0);
        row.state = state;
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Proto;

    #[test]
    fn names_of_columns_are_read_back() {
        for &column in Column::ALL {
            assert_eq!(Column::parse(column.as_str()), Some(column));
        }
        assert_eq!(Column::parse("ts"), None);
    }

    #[test]
    fn what_lacks_the_column_comes_last_in_either_order() {
        let mut rows: Vec<Row> = [(3, Some(5)), (1, None), (2, Some(7)), (4, Some(5))]
            .map(|(pid, queue)| Row {
                recv_queue: queue,
                ..Row::server(Proto::Tcp, &format!("0.0.0.0:{}", 90 - pid), pid, "x")
            })
            .into();
        let mut pids = |by: &str, descending| {
            sort(&mut rows, Column::parse(by).unwrap(), descending);
            let pids = rows.iter().map(|row| row.event.pid.unwrap());
            pids.collect::<Vec<u32>>()
        };
        assert_eq!(pids("recv_queue", false), [4, 3, 2, 1]);
        assert_eq!(pids("recv_queue", true), [2, 4, 3, 1]);
        assert_eq!(pids("lport", false), [4, 3, 2, 1]);
        assert_eq!(pids("pid", true), [4, 3, 2, 1]);
        // all the same: by port
        assert_eq!(pids("state", true), [4, 3, 2, 1]);
    }
}
