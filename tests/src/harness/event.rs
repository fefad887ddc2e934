//! What portwatch said: one line of its JSON output, read strictly, so that a key or a value
//! outside the schema fails the test that sees it.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer, Serialize};

/// Declares an enum that is spelled in JSON as its variants are in lower case.
macro_rules! words {
    ($name:ident { $($variant:ident),* $(,)? }) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($variant),* }
    };
}

words!(Kind {
    Bind,
    Listen,
    Connect,
    Accept,
    Close,
    Reset,
    Lost,
});
words!(Origin { Live, Seed, Poll });
words!(Proto {
    Tcp,
    Udp,
    Mptcp,
    Sctp,
    Raw,
});
words!(Family { Ipv4, Ipv6 });
words!(Cause {
    Local,
    Remote,
    Reset,
    Timeout,
    Error,
    Sent,
    Received,
});

/// A process named in another's event.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    pub pid: u32,
    pub comm: String,
    #[serde(rename = "sock")]
    pub _sock: Option<u64>,
}

/// One event, as printed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Nanoseconds since the Unix epoch.
    #[serde(deserialize_with = "nanoseconds")]
    pub ts: u64,
    pub seq: u64,
    pub event: Kind,
    pub origin: Origin,
    pub proto: Option<Proto>,
    pub family: Option<Family>,
    pub laddr: Option<IpAddr>,
    pub lport: Option<u16>,
    pub raddr: Option<IpAddr>,
    pub rport: Option<u16>,
    pub sock: Option<u64>,
    pub netns: Option<u64>,
    pub pid: Option<u32>,
    pub tid: Option<u32>,
    pub ppid: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub comm: Option<String>,
    pub exe: Option<String>,
    pub args: Option<Vec<String>>,
    pub user: Option<String>,
    pub parents: Option<Vec<Peer>>,
    pub cgroup: Option<String>,
    pub container: Option<String>,
    pub unit: Option<String>,
    pub error: Option<String>,
    pub backlog: Option<u32>,
    pub latency_us: Option<u64>,
    pub duration_us: Option<u64>,
    pub rx_bytes: Option<u64>,
    pub tx_bytes: Option<u64>,
    pub rtt_us: Option<u64>,
    pub retrans: Option<u64>,
    pub accepted: Option<u64>,
    pub cause: Option<Cause>,
    #[serde(rename = "reason")]
    pub _reason: Option<String>,
    pub holders: Option<Vec<Peer>>,
    pub count: Option<u64>,
    #[serde(rename = "service")]
    pub _service: Option<String>,
}

fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    use serde::de::Error;
    let text = String::deserialize(deserializer)?;
    if text.len() != "2026-01-01T00:00:00.000000000Z".len() {
        return Err(Error::custom(format!("not nanoseconds in UTC: {text}")));
    }
    let time = humantime::parse_rfc3339(&text).map_err(Error::custom)?;
    let since = time.duration_since(UNIX_EPOCH).map_err(Error::custom)?;
    u64::try_from(since.as_nanos()).map_err(Error::custom)
}

/// How far an event's time may lie before its predecessor's: events of different CPUs take their
/// time and their place in the ring buffer in two steps, and an emulated one may stand still between.
const DISORDER_NS: u64 = 2_000_000_000;

/// Reads a part of a run's output, and checks what holds for every run: each line is an event of the
/// schema, `seq` counts on without gaps, here from `first`, `ts` is in order.
///
/// # Errors
/// Names the first line that breaks this.
pub fn parse(output: &[u8], first: u64) -> Result<Vec<Event>> {
    let mut events: Vec<Event> = Vec::new();
    ensure!(
        output.is_empty() || output.ends_with(b"\n"),
        "the last line of output is cut off"
    );
    for line in output
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let event: Event = serde_json::from_slice(line)
            .with_context(|| format!("output line {}", String::from_utf8_lossy(line)))?;
        let expected = first + events.len() as u64;
        ensure!(
            event.seq == expected,
            "seq {} where {expected} was due",
            event.seq
        );
        if let Some(last) = events.last() {
            ensure!(
                event.ts + DISORDER_NS >= last.ts,
                "ts goes back by {} ns at seq {expected}",
                last.ts - event.ts
            );
        }
        events.push(event);
    }
    Ok(events)
}
