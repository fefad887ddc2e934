//! The cells of the table for people: what stands there, and at which side.

use std::fmt::Write as _;

use super::Style;
use crate::event::{Comm, Event, Field};
use crate::group;
use crate::row::{Column, Row};
use crate::sanitize;
use crate::view::human;
use crate::view::lines::text::put_value;
use crate::view::time;

/// What a column of the table has of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    Local,
    Remote,
    User,
    Since,
    Queue,
    Place,
    /// The service, then what there is to say beyond the columns.
    Service,
    Column(Column),
}

impl Cell {
    /// Appends what it has of this row.
    pub fn put(self, out: &mut String, row: &Row, style: &Style) {
        let event = &row.event;
        match self {
            Cell::Local => human::push_local(out, event.laddr, row.device, event.lport),
            Cell::Remote => human::push_endpoint(out, event.raddr, event.rport),
            Cell::User => {
                let user = Column::Event(Field::User);
                let named = row.value(user).filter(|_| !style.numeric);
                let uid = || row.value(Column::Event(Field::Uid));
                put_value(out, named.or_else(uid));
            }
            Cell::Since => match row.since {
                Some(since) => {
                    out.push_str(&time::brief(since, style.now, &style.zone));
                }
                None => out.push('-'),
            },
            Cell::Queue => match row.recv_queue {
                Some(queue) => {
                    human::push_number(out, queue);
                    if let Some(backlog) = event.backlog {
                        out.push('/');
                        human::push_number(out, backlog);
                    }
                }
                None => out.push('-'),
            },
            Cell::Place => {
                let before = out.len();
                human::push_place(out, event, style.netns, &style.netns_names);
                if out.len() == before {
                    out.push('-');
                }
            }
            Cell::Service => {
                let service = Column::Event(Field::Service);
                let named = row.value(service).filter(|_| !style.numeric);
                put_value(out, named);
                put_others(out, event);
            }
            Cell::Column(Column::Event(Field::Comm)) => match &event.comm {
                Some(comm) => human::push_comm(out, comm),
                None => out.push('-'),
            },
            Cell::Column(column) => put_value(out, row.value(column)),
        }
    }

    /// Whether it stands at the right of its column.
    pub fn right(self) -> bool {
        use Field::*;
        match self {
            Cell::Column(Column::Event(field)) => matches!(
                field,
                Lport
                    | Rport
                    | Sock
                    | Netns
                    | Pid
                    | Ppid
                    | Uid
                    | Backlog
                    | RttUs
                    | Retrans
                    | RxBytes
                    | TxBytes
                    | Accepted
            ),
            Cell::Column(Column::RecvQueue | Column::SendQueue | Column::Inode) => true,
            Cell::Queue => true,
            _ => false,
        }
    }
}

/// Processes that have it open besides the owner: pids as ranges, with the name where it differs.
fn put_others(out: &mut String, event: &Event) {
    let mut others = group::processes(event);
    others.retain(|x| Some(x.pid) != event.pid);
    if others.is_empty() {
        return;
    }
    let own = event.comm.as_ref().map(Comm::text);
    let mut runs: Vec<(&str, u32, u32)> = Vec::new();
    for peer in others {
        match runs.last_mut() {
            Some((comm, _, last)) if *comm == peer.comm && peer.pid == *last + 1 => {
                *last = peer.pid;
            }
            _ => runs.push((&peer.comm, peer.pid, peer.pid)),
        }
    }
    for (i, (comm, first, last)) in runs.into_iter().enumerate() {
        out.push_str(if i == 0 { " +" } else { "," });
        if own.as_deref() != Some(comm) {
            sanitize::push_str(out, comm);
            out.push(':');
        }
        // Writing to a String cannot fail.
        let _ = match first == last {
            true => write!(out, "{first}"),
            false => write!(out, "{first}-{last}"),
        };
    }
}
