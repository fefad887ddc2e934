//! The event: one thing that happened, in the schema that every view, filter and session shares.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// Declares an enum whose variants have one fixed spelling each.
macro_rules! spelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$note:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$note])* $variant,)* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The one spelled so, `None` when there is none.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|x| x.as_str() == text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                let none = || serde::de::Error::custom(format!("no {} '{text}'", stringify!($name)));
                Self::parse(&text).ok_or_else(none)
            }
        }
    };
}
pub(crate) use spelled;

spelled! {
    /// What happened.
    Kind {
        Bind = "bind",
        Listen = "listen",
        Connect = "connect",
        Accept = "accept",
        Close = "close",
        Reset = "reset",
        Lost = "lost",
    }
}

spelled! {
    /// How portwatch learned of it.
    Origin {
        Live = "live",
        Seed = "seed",
        Poll = "poll",
    }
}

spelled! {
    Proto {
        Tcp = "tcp",
        Udp = "udp",
        Mptcp = "mptcp",
        Sctp = "sctp",
        Raw = "raw",
    }
}

spelled! {
    /// Address family of the socket (not of a v4-mapped peer).
    Family {
        Ipv4 = "ipv4",
        Ipv6 = "ipv6",
    }
}

spelled! {
    /// Of a close: who or what ended it. Of a reset: which way it went.
    Cause {
        Local = "local",
        Remote = "remote",
        Reset = "reset",
        Timeout = "timeout",
        Error = "error",
        Sent = "sent",
        Received = "received",
    }
}

spelled! {
    /// A name of the schema: JSON key, `--fields` name, filter variable, in the order of output.
    Field {
        Ts = "ts",
        Seq = "seq",
        Event = "event",
        Origin = "origin",
        Proto = "proto",
        Family = "family",
        Laddr = "laddr",
        Lport = "lport",
        Raddr = "raddr",
        Rport = "rport",
        Sock = "sock",
        Netns = "netns",
        Pid = "pid",
        Tid = "tid",
        Ppid = "ppid",
        Uid = "uid",
        Gid = "gid",
        Comm = "comm",
        Exe = "exe",
        Args = "args",
        User = "user",
        Parents = "parents",
        Cgroup = "cgroup",
        Container = "container",
        Unit = "unit",
        Error = "error",
        Backlog = "backlog",
        LatencyUs = "latency_us",
        DurationUs = "duration_us",
        RxBytes = "rx_bytes",
        TxBytes = "tx_bytes",
        RttUs = "rtt_us",
        Retrans = "retrans",
        Accepted = "accepted",
        Cause = "cause",
        Reason = "reason",
        Holders = "holders",
        Count = "count",
        Service = "service",
    }
}

/// A process named by another's event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    pub pid: u32,
    pub comm: String,
    /// Cookie of the socket it holds; only in `holders`.
    pub sock: Option<u64>,
}

/// What is known of the owner beyond what the kernel puts in each event. Shared by all events of
/// one process for as long as nothing in it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    pub exe: Option<String>,
    /// Shared by all who run with the same: they may be long.
    pub args: Option<Arc<[String]>>,
    pub user: Option<String>,
    /// Nearest first.
    pub parents: Option<Vec<Peer>>,
    pub cgroup: Option<String>,
    /// First 12 hexadecimal digits of the container's id.
    pub container: Option<String>,
    pub unit: Option<String>,
}

/// One thing that happened. Absent values are `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Nanoseconds since the Unix epoch.
    pub ts: u64,
    /// Number of the event in this run, from 1. Given when the event is put out; 0 before.
    pub seq: u64,
    pub kind: Kind,
    pub origin: Origin,
    pub proto: Option<Proto>,
    pub family: Option<Family>,
    pub laddr: Option<IpAddr>,
    pub lport: Option<u16>,
    pub raddr: Option<IpAddr>,
    pub rport: Option<u16>,
    pub sock: Option<u64>,
    /// Number of the socket's inode, as in `socket:[…]`: from snapshots, of what a process holds. Rows have
    /// it as a column, events as no field.
    pub inode: Option<u64>,
    pub netns: Option<u32>,
    pub pid: Option<u32>,
    pub tid: Option<u32>,
    pub ppid: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub comm: Option<Comm>,
    pub context: Option<Arc<Context>>,
    /// errno, positive.
    pub error: Option<u16>,
    pub backlog: Option<u32>,
    pub latency_us: Option<u64>,
    pub duration_us: Option<u64>,
    pub rx_bytes: Option<u64>,
    pub tx_bytes: Option<u64>,
    pub rtt_us: Option<u32>,
    pub retrans: Option<u32>,
    pub accepted: Option<u32>,
    pub cause: Option<Cause>,
    pub reason: Option<&'static str>,
    pub holders: Option<Vec<Peer>>,
    pub count: Option<u64>,
    pub service: Option<&'static str>,
}

impl Event {
    /// Whether it has this errno.
    pub fn has_error(&self, errno: i32) -> bool {
        self.error.map(i32::from) == Some(errno)
    }

    /// When its `latency_us` began: a connect with its SYN, an accept with the connection that it found
    /// established.
    pub fn began(&self) -> u64 {
        let latency = self.latency_us.unwrap_or_default();
        self.ts.saturating_sub(latency.saturating_mul(1000))
    }

    /// An event of which nothing but these three is known.
    pub fn new(kind: Kind, origin: Origin, ts: u64) -> Self {
        Self {
            ts,
            seq: 0,
            kind,
            origin,
            proto: None,
            family: None,
            laddr: None,
            lport: None,
            raddr: None,
            rport: None,
            sock: None,
            inode: None,
            netns: None,
            pid: None,
            tid: None,
            ppid: None,
            uid: None,
            gid: None,
            comm: None,
            context: None,
            error: None,
            backlog: None,
            latency_us: None,
            duration_us: None,
            rx_bytes: None,
            tx_bytes: None,
            rtt_us: None,
            retrans: None,
            accepted: None,
            cause: None,
            reason: None,
            holders: None,
            count: None,
            service: None,
        }
    }

    /// Value of one field of the schema; `None` when absent.
    pub fn value(&self, field: Field) -> Option<Value<'_>> {
        let context = self.context.as_deref();
        let text = |x: &'static str| Value::Text(Cow::Borrowed(x));
        fn int<T: Into<u64>>(x: Option<T>) -> Option<Value<'static>> {
            x.map(|x| Value::Int(x.into()))
        }
        fn string(x: Option<&String>) -> Option<Value<'_>> {
            x.map(|x| Value::Text(Cow::Borrowed(x)))
        }
        match field {
            Field::Ts => Some(Value::Time(self.ts)),
            Field::Seq => Some(Value::Int(self.seq)),
            Field::Event => Some(text(self.kind.as_str())),
            Field::Origin => Some(text(self.origin.as_str())),
            Field::Proto => self.proto.map(|x| text(x.as_str())),
            Field::Family => self.family.map(|x| text(x.as_str())),
            Field::Laddr => self.laddr.map(Value::Addr),
            Field::Lport => int(self.lport),
            Field::Raddr => self.raddr.map(Value::Addr),
            Field::Rport => int(self.rport),
            Field::Sock => int(self.sock),
            Field::Netns => int(self.netns),
            Field::Pid => int(self.pid),
            Field::Tid => int(self.tid),
            Field::Ppid => int(self.ppid),
            Field::Uid => int(self.uid),
            Field::Gid => int(self.gid),
            Field::Comm => self.comm.as_ref().map(|x| Value::Text(x.text())),
            Field::Exe => string(context?.exe.as_ref()),
            Field::Args => context?.args.as_deref().map(Value::List),
            Field::User => string(context?.user.as_ref()),
            Field::Parents => context?.parents.as_deref().map(Value::Peers),
            Field::Cgroup => string(context?.cgroup.as_ref()),
            Field::Container => string(context?.container.as_ref()),
            Field::Unit => string(context?.unit.as_ref()),
            Field::Error => self.error.map(|x| Value::Text(crate::errno::name(x))),
            Field::Backlog => int(self.backlog),
            Field::LatencyUs => int(self.latency_us),
            Field::DurationUs => int(self.duration_us),
            Field::RxBytes => int(self.rx_bytes),
            Field::TxBytes => int(self.tx_bytes),
            Field::RttUs => int(self.rtt_us),
            Field::Retrans => int(self.retrans),
            Field::Accepted => int(self.accepted),
            Field::Cause => self.cause.map(|x| text(x.as_str())),
            Field::Reason => self.reason.map(text),
            Field::Holders => self.holders.as_deref().map(Value::Peers),
            Field::Count => int(self.count),
            Field::Service => self.service.map(text),
        }
    }
}

/// Value of a field, in the shape it has in JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Nanoseconds since the Unix epoch; RFC 3339 in JSON.
    Time(u64),
    Int(u64),
    Text(Cow<'a, str>),
    Addr(IpAddr),
    List(&'a [String]),
    Peers(&'a [Peer]),
}

/// Name of a task as the kernel keeps it: up to 15 bytes, not necessarily UTF-8.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Comm(pub [u8; 16]);

impl Comm {
    /// Its bytes up to the NUL.
    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        &self.0[..end]
    }

    /// As text, with `\xff` for bytes that are not UTF-8.
    pub fn text(&self) -> Cow<'_, str> {
        crate::sanitize::utf8(self.bytes())
    }
}

impl From<&[u8]> for Comm {
    /// As much of it as the kernel would keep.
    fn from(name: &[u8]) -> Self {
        let mut bytes = [0; 16];
        let length = name.len().min(15);
        bytes[..length].copy_from_slice(&name[..length]);
        Self(bytes)
    }
}

impl From<&str> for Comm {
    fn from(name: &str) -> Self {
        name.as_bytes().into()
    }
}

impl std::fmt::Debug for Comm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.text())
    }
}
