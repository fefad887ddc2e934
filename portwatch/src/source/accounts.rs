//! What is known to be missing of a run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Kind;

/// Accounts of a run, complete only after [`super::Source::finish`]. In JSON, as a session keeps it, the names
/// are these, kinds `[["connect",10],…]`, times nanoseconds; what is left out is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Accounts {
    /// Events of the wanted kinds that the kernel could not hand over.
    pub lost: u64,
    /// The same by kind, only those above 0.
    pub lost_by_kind: Vec<(Kind, u64)>,
    /// What only tells of others (processes, cgroups, events that were not asked for) and the kernel could not
    /// hand over.
    pub lost_process: u64,
    /// Sockets the kernel's map had no room for.
    pub untracked_sockets: u64,
    /// Calls whose return no kretprobe saw.
    pub missed_returns: u64,
    /// Events for which the kernel skipped a program, because the same one was interrupted on that
    /// CPU, and all its copies too.
    pub skipped_events: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Nothing came from the kernel: snapshots were compared, with this much between two at most.
    #[serde(with = "nanoseconds")]
    pub polled: Option<Duration>,
    /// Things that this kernel shows others, but not this process: probes that it denied.
    pub denied_probes: u64,
    /// Snapshots of which tables were missing or damaged that had been whole at the start.
    pub damaged_snapshots: u64,
}

mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub fn serialize<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        let ns = time.map(|x| u64::try_from(x.as_nanos()).unwrap_or(u64::MAX));
        ns.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_nanos))
    }
}

impl Accounts {
    /// Whether nothing is known to be missing.
    pub fn complete(&self) -> bool {
        *self == Accounts::default()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn accounts_are_the_same_after_they_were_json() {
        let accounts = Accounts {
            lost: 12,
            lost_by_kind: vec![(Kind::Connect, 10), (Kind::Close, 2)],
            undecodable: 1,
            polled: Some(Duration::from_millis(200)),
            ..Accounts::default()
        };
        let json = serde_json::to_string(&accounts).unwrap();
        expect![[r#"{"lost":12,"lost_by_kind":[["connect",10],["close",2]],"lost_process":0,"untracked_sockets":0,"missed_returns":0,"skipped_events":0,"undecodable":1,"polled":200000000,"denied_probes":0,"damaged_snapshots":0}"#]].assert_eq(&json);
        assert_eq!(serde_json::from_str::<Accounts>(&json).unwrap(), accounts);
        let nothing: Accounts = serde_json::from_str("{}").unwrap();
        assert!(nothing.complete());
    }
}
