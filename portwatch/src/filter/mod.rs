//! Which events are shown: all the filter flags as one predicate.

mod check;
mod expr;
mod names;
mod parse;
mod parts;
mod span;
mod subject;
mod types;

use std::net::IpAddr;

use ipnet::IpNet;
use wildmatch::WildMatch;

use crate::event::{Event, Family, Kind, Proto};
use crate::row::Row;

pub use expr::Expr;
pub use span::{Span, Spans};
pub use subject::Subject;

/// What an event has to be; an empty list asks for nothing.
#[derive(Debug, Default)]
pub struct Filter {
    pub kinds: Vec<Kind>,
    pub pids: Spans<u32>,
    /// Of either end.
    pub ports: Spans<u16>,
    pub uids: Spans<u32>,
    pub protos: Vec<Proto>,
    pub families: Vec<Family>,
    pub comms: Vec<WildMatch>,
    pub netns: Vec<u32>,
    /// Container ids or their beginnings, or names where the engine has no ids.
    pub containers: Vec<String>,
    /// Of either end.
    pub nets: Vec<IpNet>,
    /// Only what failed.
    pub failed: bool,
    pub expr: Option<Expr>,
}

impl Filter {
    /// Whether to show this event. A loss always is: it may hide what was asked for.
    pub fn matches(&self, event: &Event) -> bool {
        if event.kind == Kind::Lost {
            return true;
        }
        self.allows(event.kind)
            && (!self.failed || failed(event))
            && self.pids.allow([event.pid])
            && (self.comms.is_empty() || event.comm.is_some_and(|x| self.comm_matches(&x.text())))
            && self.place_matches(event)
            // last, as it costs the most
            && self.expr.as_ref().is_none_or(|expr| expr.matches(event))
    }

    /// Whether events of this kind may be shown.
    pub fn allows(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    /// Whether to show this row: by its owner or any other process that has it open.
    pub fn matches_row(&self, row: &Row) -> bool {
        let holders = row.event.holders.as_deref().unwrap_or_default();
        (self.pids.allow([row.event.pid]) || holders.iter().any(|x| self.pids.allow([Some(x.pid)])))
            && (self.comms.is_empty()
                || row.event.comm.is_some_and(|x| self.comm_matches(&x.text()))
                || holders.iter().any(|x| self.comm_matches(&x.comm)))
            && self.place_matches(&row.event)
            && self.expr.as_ref().is_none_or(|expr| expr.matches(row))
    }

    /// What to tell at the end when the expression could not be evaluated on some.
    pub fn complaint(&self) -> Option<String> {
        self.expr.as_ref()?.complaint()
    }

    /// What is asked for apart from the kind of event and the process.
    fn place_matches(&self, event: &Event) -> bool {
        let listed = |list: &[u32], value: Option<u32>| {
            list.is_empty() || value.is_some_and(|value| list.contains(&value))
        };
        self.ports.allow([event.lport, event.rport])
            && self.uids.allow([event.uid])
            && listed(&self.netns, event.netns)
            && (self.protos.is_empty() || event.proto.is_some_and(|x| self.protos.contains(&x)))
            && (self.families.is_empty()
                || event.family.is_some_and(|x| self.families.contains(&x)))
            && (self.nets.is_empty()
                || [event.laddr, event.raddr]
                    .into_iter()
                    .flatten()
                    .any(|x| self.in_nets(x)))
            && (self.containers.is_empty() || self.container_matches(event))
    }

    fn in_nets(&self, addr: IpAddr) -> bool {
        self.nets.iter().any(|net| net.contains(&addr))
    }

    fn comm_matches(&self, comm: &str) -> bool {
        self.comms.iter().any(|pattern| pattern.matches(comm))
    }

    fn container_matches(&self, event: &Event) -> bool {
        let container = event.context.as_ref().and_then(|x| x.container.as_deref());
        container.is_some_and(|known| {
            let is_id = known.len() == 12 && known.bytes().all(|x| x.is_ascii_hexdigit());
            self.containers.iter().any(|wanted| match is_id {
                // More of it than these digits is not kept.
                true => {
                    let length = wanted.len().min(known.len());
                    (wanted.get(..length).zip(known.get(..length)))
                        .is_some_and(|(wanted, known)| wanted.eq_ignore_ascii_case(known))
                }
                false => known.starts_with(wanted.as_str()),
            })
        })
    }
}

/// An attempt that is still under way has not failed: its outcome follows.
fn failed(event: &Event) -> bool {
    event.error.is_some() && !event.has_error(libc::EINPROGRESS)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{Comm, Context, Origin, Peer};

    fn comm(text: &str) -> Comm {
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Comm(bytes)
    }

    /// A failed connect of nginx in a container.
    fn event() -> Event {
        let mut event = Event::new(Kind::Connect, Origin::Live, 0);
        event.proto = Some(Proto::Tcp);
        event.family = Some(Family::Ipv4);
        event.laddr = Some("10.1.2.3".parse().unwrap());
        event.lport = Some(40000);
        event.raddr = Some("192.0.2.1".parse().unwrap());
        event.rport = Some(443);
        event.netns = Some(4026531840);
        event.pid = Some(42);
        event.uid = Some(33);
        event.comm = Some(comm("nginx"));
        event.error = Some(libc::ECONNREFUSED as u16);
        event.context = Some(Arc::new(Context {
            container: Some("0123456789ab".into()),
            ..Context::default()
        }));
        event
    }

    /// Both are shown by the filter; the bare event lacks everything a filter can ask for.
    fn check(filter: Filter, shows_full: bool, shows_bare: bool) {
        let bare = Event::new(Kind::Connect, Origin::Live, 0);
        assert_eq!(filter.matches(&event()), shows_full, "{filter:?}");
        assert_eq!(filter.matches(&bare), shows_bare, "bare event, {filter:?}");
        let lost = Event::new(Kind::Lost, Origin::Live, 0);
        assert!(filter.matches(&lost), "a loss is always shown: {filter:?}");
    }

    #[test]
    fn each_flag_asks_for_its_own() {
        fn spans<T: span::Number>(text: &str) -> Spans<T> {
            Spans(text.split(',').map(|x| x.parse().unwrap()).collect())
        }
        let glob = |x: &str| vec![WildMatch::new(x)];
        macro_rules! only {
            ($field:ident: $value:expr) => {
                Filter {
                    $field: $value,
                    ..Filter::default()
                }
            };
        }
        check(Filter::default(), true, true);
        check(only!(kinds: vec![Kind::Connect]), true, true);
        check(only!(kinds: vec![Kind::Bind, Kind::Close]), false, false);
        check(only!(pids: spans("42")), true, false);
        check(only!(pids: spans("1-41,43")), false, false);
        check(only!(ports: spans("443")), true, false);
        check(only!(ports: spans("39999-40001")), true, false);
        check(only!(ports: spans("80,8000-8999")), false, false);
        check(only!(uids: Spans(vec![0.into(), 33.into()])), true, false);
        check(only!(uids: Spans(vec![0.into()])), false, false);
        check(only!(protos: vec![Proto::Tcp, Proto::Mptcp]), true, false);
        check(only!(protos: vec![Proto::Udp]), false, false);
        check(only!(families: vec![Family::Ipv4]), true, false);
        check(only!(families: vec![Family::Ipv6]), false, false);
        check(only!(comms: glob("nginx")), true, false);
        check(only!(comms: glob("ngin")), false, false);
        check(only!(comms: glob("ng*x")), true, false);
        check(only!(comms: glob("?????")), true, false);
        check(only!(netns: vec![4026531840]), true, false);
        check(only!(netns: vec![1]), false, false);
        check(only!(containers: vec!["0123".into()]), true, false);
        check(
            only!(containers: vec![format!("0123456789ab{}", "c".repeat(52))]),
            true,
            false,
        );
        check(only!(containers: vec!["0123456789AB".into()]), true, false);
        check(only!(containers: vec!["123".into()]), false, false);
        check(
            only!(nets: vec!["192.0.2.0/24".parse().unwrap()]),
            true,
            false,
        );
        check(
            only!(nets: vec!["10.0.0.0/8".parse().unwrap()]),
            true,
            false,
        );
        check(
            only!(nets: vec!["2001:db8::/32".parse().unwrap()]),
            false,
            false,
        );
        check(only!(failed: true), true, false);
        check(
            only!(expr: Some(Expr::new::<Event>("rport == 443").unwrap())),
            true,
            false,
        );
        check(
            only!(expr: Some(Expr::new::<Event>("rport == 80").unwrap())),
            false,
            false,
        );
    }

    #[test]
    fn a_row_is_found_by_any_of_its_holders() {
        let mut event = event();
        event.holders = Some(vec![Peer {
            pid: 77,
            comm: "worker".into(),
            sock: None,
        }]);
        let row = Row {
            event,
            ..Row::sample()
        };
        for (pids, comms, shown) in [
            ("42", "nginx", true),
            ("77", "work*", true),
            ("77", "nginx", true),
            ("78", "work*", false),
            ("77", "other", false),
        ] {
            let filter = Filter {
                pids: Spans(vec![pids.parse().unwrap()]),
                comms: vec![WildMatch::new(comms)],
                ..Filter::default()
            };
            assert_eq!(filter.matches_row(&row), shown, "{filter:?}");
        }
    }

    #[test]
    fn a_name_of_a_container_is_no_id() {
        let mut event = event();
        event.context = Some(Arc::new(Context {
            container: Some("my-container".into()),
            ..Context::default()
        }));
        for (wanted, shown) in [("my-", true), ("My-", false), ("my-container2", false)] {
            let filter = Filter {
                containers: vec![wanted.into()],
                ..Filter::default()
            };
            assert_eq!(filter.matches(&event), shown, "{wanted}");
        }
    }

    #[test]
    fn flags_are_joined_by_and() {
        let mut filter = Filter {
            failed: true,
            uids: Spans(vec![33.into()]),
            ..Filter::default()
        };
        assert!(filter.matches(&event()));
        filter.uids = Spans(vec![34.into()]);
        assert!(!filter.matches(&event()));
    }

    #[test]
    fn an_attempt_under_way_has_not_failed() {
        let mut event = event();
        event.error = Some(libc::EINPROGRESS as u16);
        let filter = Filter {
            failed: true,
            ..Filter::default()
        };
        assert!(!filter.matches(&event));
    }
}
