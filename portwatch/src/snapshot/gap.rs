//! What a snapshot cannot tell of: a socket that is not in it may be there all the same.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Holders, proc};
use crate::event::{Family, Proto};

/// What a snapshot proves of sockets that are not in it.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Network namespaces that were looked into; `None` where they cannot be told apart.
    pub namespaces: HashSet<Option<u32>>,
    pub gaps: Vec<Gap>,
    pub holders: Arc<Holders>,
}

impl Scope {
    /// Whether such a socket may be there without being told.
    pub fn has_gap(&self, netns: Option<u32>, table: Option<(Proto, Family)>) -> bool {
        let covers =
            |gap: &Gap| table.is_some_and(|(proto, family)| gap.covers(netns, proto, family));
        self.gaps.iter().any(covers)
    }

    /// Whether a process has this socket open. One that has no port any more is in no table of the kernel's.
    pub fn holds(&self, inode: u64) -> bool {
        self.holders.of(inode).next().is_some()
    }
}

/// Sockets of which nothing, or not all, is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Inode number of their network namespace; `None` where namespaces cannot be told apart.
    pub netns: Option<u32>,
    /// The table that they are in; `None`: any of the namespace.
    pub table: Option<(Proto, Family)>,
    pub why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The kernel may do without.
    Absent,
    Unread(String),
    /// So many lines are left out.
    Lines(usize),
    /// The namespace cannot be looked into.
    Closed,
}

impl Gap {
    /// Any socket may be there.
    pub fn everything(error: &dyn std::error::Error) -> Self {
        Self {
            netns: None,
            table: None,
            why: Why::Unread(error.to_string()),
        }
    }

    /// Whether such a socket is one of them.
    pub fn covers(&self, netns: Option<u32>, proto: Proto, family: Family) -> bool {
        self.netns.is_none_or(|own| netns == Some(own))
            && self.table.is_none_or(|table| table == (proto, family))
    }

    /// For the user, who has been told of such sockets before.
    pub fn note(&self) -> String {
        let name = match (self.table, &self.why) {
            (Some((proto, family)), _) => format!("the table {}", proc::table(proto, family)),
            (None, Why::Closed) => "a network namespace".to_owned(),
            (None, _) => "the proc file system".to_owned(),
        };
        let trouble = match &self.why {
            Why::Absent => format!("{name} is not there any more"),
            Why::Unread(error) => format!("{name} cannot be read ({error})"),
            Why::Lines(_) => format!("{name} has lines that cannot be understood"),
            Why::Closed => format!("{name} cannot be looked into"),
        };
        format!("{trouble}: sockets missing there are taken to be open until that is over")
    }
}
