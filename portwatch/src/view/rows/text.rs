//! Rows for people: a table as wide as its values need, and no wider than the screen.

use std::collections::HashMap;
use std::fmt::Write as _;

use jiff::tz::TimeZone;

use crate::event::{Comm, Event, Field};
use crate::group;
use crate::row::{Column, Row};
use crate::sanitize;
use crate::usual;
use crate::view::columns::{DIM, Line, YELLOW, width_of};
use crate::view::human;
use crate::view::lines::text::put_value;
use crate::view::time;

/// How the table looks, and what it need not say.
#[derive(Clone, Debug)]
pub struct Style {
    pub colour: bool,
    /// Numbers instead of names of users and services.
    pub numeric: bool,
    /// Columns of the screen.
    pub width: usize,
    /// Of the times.
    pub zone: TimeZone,
    /// Nanoseconds since the Unix epoch.
    pub now: u64,
    /// The network namespace that goes without saying.
    pub netns: Option<u32>,
    /// Names of other network namespaces.
    pub netns_names: HashMap<u32, String>,
}

/// Room for the name of a service.
const SERVICE: usize = 8;

/// Which columns there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Only servers: nothing about state and peers.
    Servers,
    All,
    Chosen(Vec<Column>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
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

#[derive(Debug)]
struct Head {
    title: String,
    cell: Cell,
    /// Most it takes when the screen is too narrow.
    narrow: usize,
}

#[derive(Debug)]
pub struct Text {
    layout: Layout,
    style: Style,
}

impl Text {
    pub fn new(layout: Layout, style: Style) -> Self {
        Self { layout, style }
    }

    /// Appends header and rows.
    pub fn put(&self, out: &mut Vec<u8>, rows: impl IntoIterator<Item = Row>) {
        let heads = self.heads();
        let mut cells = Cells::new(heads.len());
        for row in rows {
            for head in &heads {
                self.put_cell(&mut cells.text, head.cell, &row);
                cells.end();
            }
            cells.notes.push(usual::note(&row));
        }
        let shown: Vec<usize> = (0..heads.len())
            .filter(|&at| match heads[at].cell {
                Cell::Place | Cell::Since => cells.filled[at],
                _ => true,
            })
            .collect();
        let widths = self.widths(&heads, &cells, &shown);
        let line: usize = shown.iter().map(|&at| widths[at] + 1).sum();
        out.reserve((cells.notes.len() + 1) * (line + SERVICE));
        let mut line = Line::default();
        for &at in &shown {
            let colour = if self.style.colour { DIM } else { "" };
            line.put_coloured(&heads[at].title, widths[at], heads[at].right(), colour);
        }
        line = put_line(out, line);
        for (number, note) in cells.notes.iter().enumerate() {
            for &at in &shown {
                line.put(cells.get(number, at), widths[at], heads[at].right());
                if heads[at].cell == Cell::Service
                    && let Some(note) = note
                {
                    let colour = if self.style.colour { YELLOW } else { "" };
                    line.put_coloured(&format!("!{note}"), 0, false, colour);
                }
            }
            line = put_line(out, line);
        }
    }

    fn heads(&self) -> Vec<Head> {
        let head = |title: &str, cell, narrow| Head {
            title: title.to_owned(),
            cell,
            narrow,
        };
        let field = |field| Cell::Column(Column::Event(field));
        let proto = head("PROTO", field(Field::Proto), 5);
        let pid = head("PID", field(Field::Pid), 7);
        let queue = head("QUEUE", Cell::Queue, 6);
        let place = head("WHERE", Cell::Place, 12);
        let service = head("SERVICE", Cell::Service, 0);
        match &self.layout {
            Layout::Servers => vec![
                proto,
                head("LOCAL", Cell::Local, 18),
                pid,
                head("COMM", field(Field::Comm), 12),
                head("USER", Cell::User, 8),
                head("SINCE", Cell::Since, 5),
                queue,
                place,
                service,
            ],
            Layout::All => vec![
                proto,
                head("STATE", Cell::Column(Column::State), 10),
                head("LOCAL", Cell::Local, 15),
                head("REMOTE", Cell::Remote, 15),
                pid,
                head("COMM", field(Field::Comm), 12),
                queue,
                place,
                service,
            ],
            Layout::Chosen(columns) => (columns.iter())
                .map(|&column| {
                    let title = column.as_str().to_uppercase();
                    head(&title, Cell::Column(column), 30)
                })
                .collect(),
        }
    }

    /// What each column takes: what its widest value needs, or less when they do not all fit. A
    /// wider value then borrows from the columns behind.
    fn widths(&self, heads: &[Head], cells: &Cells, shown: &[usize]) -> Vec<usize> {
        let mut widths: Vec<usize> = (heads.iter().enumerate())
            .map(|(at, head)| match head.cell {
                // the last one, which ends where it ends
                Cell::Service => 0,
                _ => cells.widest[at].max(head.title.len()),
            })
            .collect();
        let total: usize = shown.iter().map(|&at| widths[at] + 1).sum();
        let mut excess = (total + SERVICE).saturating_sub(self.style.width);
        for &at in shown {
            let least = heads[at].narrow.max(heads[at].title.len());
            let less = widths[at].saturating_sub(least).min(excess);
            widths[at] -= less;
            excess -= less;
        }
        widths
    }

    fn put_cell(&self, out: &mut String, cell: Cell, row: &Row) {
        let event = &row.event;
        match cell {
            Cell::Local => human::push_local(out, event.laddr, row.device, event.lport),
            Cell::Remote => human::push_endpoint(out, event.raddr, event.rport),
            Cell::User => {
                let user = Column::Event(Field::User);
                let named = row.value(user).filter(|_| !self.style.numeric);
                let uid = || row.value(Column::Event(Field::Uid));
                put_value(out, named.or_else(uid));
            }
            Cell::Since => match row.since {
                Some(since) => {
                    out.push_str(&time::brief(since, self.style.now, &self.style.zone));
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
                let (before, style) = (out.len(), &self.style);
                human::push_place(out, event, style.netns, &style.netns_names);
                if out.len() == before {
                    out.push('-');
                }
            }
            Cell::Service => {
                let service = Column::Event(Field::Service);
                let named = row.value(service).filter(|_| !self.style.numeric);
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
}

/// All values of the table in one piece of memory, row by row.
struct Cells {
    text: String,
    /// Where each value ends.
    ends: Vec<usize>,
    /// Of each column: columns of the screen that its widest value takes, and whether any row has
    /// something there.
    widest: Vec<usize>,
    filled: Vec<bool>,
    /// What is unusual about each row.
    notes: Vec<Option<String>>,
}

impl Cells {
    fn new(columns: usize) -> Self {
        Self {
            text: String::new(),
            ends: Vec::new(),
            widest: vec![0; columns],
            filled: vec![false; columns],
            notes: Vec::new(),
        }
    }

    /// What was put into `text` since the last one is the next value.
    fn end(&mut self) {
        let at = self.ends.len();
        self.ends.push(self.text.len());
        let value = self.value(at);
        let (width, filled) = (width_of(value), value != "-");
        let column = at % self.widest.len();
        self.widest[column] = self.widest[column].max(width);
        self.filled[column] |= filled;
    }

    fn get(&self, row: usize, column: usize) -> &str {
        self.value(row * self.widest.len() + column)
    }

    fn value(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[at]]
    }
}

/// Appends the line, and gives back an empty one.
fn put_line(out: &mut Vec<u8>, line: Line) -> Line {
    out.extend_from_slice(line.text.trim_end().as_bytes());
    out.push(b'\n');
    Line::within(line.text)
}

impl Head {
    fn right(&self) -> bool {
        use Field::*;
        match self.cell {
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

#[cfg(test)]
impl Style {
    /// In November 2023.
    pub fn sample() -> Self {
        Self {
            colour: false,
            numeric: false,
            width: 80,
            zone: TimeZone::UTC,
            now: 1_700_000_000_000_000_000,
            netns: Some(1),
            netns_names: HashMap::from([(3, "blue".to_owned())]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::event::{Comm, Context, Peer, Proto};
    use crate::row::State;
    use crate::service;

    const NOW: u64 = 1_700_000_000_000_000_000;

    fn check(layout: Layout, rows: &[Row], change: impl Fn(&mut Style), expected: Expect) {
        let mut style = Style::sample();
        change(&mut style);
        let mut rows = rows.to_vec();
        for row in &mut rows {
            row.event.service = service::of(&row.event);
        }
        let mut out = Vec::new();
        Text::new(layout, style).put(&mut out, rows);
        expected.assert_eq(&String::from_utf8(out).unwrap());
    }

    fn peer(pid: u32, comm: &str) -> Peer {
        Peer {
            pid,
            comm: comm.into(),
            sock: None,
        }
    }

    fn servers() -> Vec<Row> {
        let mut rows = vec![
            Row::server(Proto::Tcp, "0.0.0.0:22", 640, "sshd"),
            Row::server(Proto::Udp, "127.0.0.53:53", 512, "systemd-resolve"),
            Row::server(Proto::Tcp, "[::]:80", 812, "nginx"),
            Row::server(Proto::Tcp, "127.0.0.1:2222", 4_194_304, "sshd"),
            Row::server(Proto::Tcp, "10.0.0.1:5432", 900, "postgres"),
            Row::server(Proto::Mptcp, "[2001:db8:1:2:3:4:5:6]:8080", 7262, "x"),
            Row::server(Proto::Udp, "[fe80::1]:546", 1, "x"),
        ];
        rows[0].since = Some(NOW - 3_600_000_000_000);
        rows[2].event.holders = Some(
            [
                (812, "nginx"),
                (816, "nginx"),
                (815, "nginx"),
                (814, "nginx"),
                (820, "nginx"),
            ]
            .map(|(pid, comm)| peer(pid, comm))
            .into_iter()
            .chain([peer(900, "log\x1b[2J"), peer(901, "log\x1b[2J")])
            .collect(),
        );
        rows[2].recv_queue = Some(3);
        rows[2].since = Some(NOW - 30 * 86_400_000_000_000);
        rows[4].event.netns = Some(2);
        rows[4].event.context = Some(Arc::new(Context {
            container: Some("0123456789ab".into()),
            ..Context::default()
        }));
        rows[5].event.netns = Some(3);
        let mut hostile = [0; 16];
        hostile[..7].copy_from_slice(b"\x1b]0;x\x07\xff");
        rows[5].event.comm = Some(Comm(hostile));
        // the kernel did not tell whose it is
        let nobody = &mut rows[6].event;
        (nobody.pid, nobody.uid, nobody.comm) = (None, None, None);
        (nobody.context, nobody.holders, nobody.netns) = (None, None, Some(4));
        rows
    }

    #[test]
    fn servers_are_a_dense_table() {
        check(
            Layout::Servers,
            &servers(),
            |_| {},
            expect![[r#"
                PROTO LOCAL                  PID COMM         USER SINCE QUEUE WHERE        SERVICE
                tcp   0.0.0.0:22             640 sshd         root 21:13 0/128 -            ssh
                udp   127.0.0.53:53          512 systemd-resolve root -      0 -            domain
                tcp   [::]:80                812 nginx        root Oct15 3/128 -            http +814-816,820,log\x1b[2J:900-901
                tcp   127.0.0.1:2222     4194304 sshd         root -     0/128 -            - !ssh on an unusual port (usually 22)
                tcp   10.0.0.1:5432          900 postgres     0    -     0/128 0123456789ab postgresql
                mptcp [2001:db8:1:2:3:4:5:6]:8080 7262 \x1b]0;x\x07\xff root - 0/128 blue   http-alt
                udp   [fe80::1]:546            - -            -    -         0 net:4        dhcpv6-client
            "#]],
        );
        check(
            Layout::Servers,
            &servers(),
            |x| x.width = 140,
            expect![[r#"
                PROTO LOCAL                           PID COMM             USER SINCE QUEUE WHERE        SERVICE
                tcp   0.0.0.0:22                      640 sshd             root 21:13 0/128 -            ssh
                udp   127.0.0.53:53                   512 systemd-resolve  root -         0 -            domain
                tcp   [::]:80                         812 nginx            root Oct15 3/128 -            http +814-816,820,log\x1b[2J:900-901
                tcp   127.0.0.1:2222              4194304 sshd             root -     0/128 -            - !ssh on an unusual port (usually 22)
                tcp   10.0.0.1:5432                   900 postgres         0    -     0/128 0123456789ab postgresql
                mptcp [2001:db8:1:2:3:4:5:6]:8080    7262 \x1b]0;x\x07\xff root -     0/128 blue         http-alt
                udp   [fe80::1]:546                     - -                -    -         0 net:4        dhcpv6-client
            "#]],
        );
    }

    #[test]
    fn on_a_usual_machine_it_fits_80_columns() {
        let rows = &servers()[..4];
        check(
            Layout::Servers,
            rows,
            |_| {},
            expect![[r#"
                PROTO LOCAL              PID COMM            USER SINCE QUEUE SERVICE
                tcp   0.0.0.0:22         640 sshd            root 21:13 0/128 ssh
                udp   127.0.0.53:53      512 systemd-resolve root -         0 domain
                tcp   [::]:80            812 nginx           root Oct15 3/128 http +814-816,820,log\x1b[2J:900-901
                tcp   127.0.0.1:2222 4194304 sshd            root -     0/128 - !ssh on an unusual port (usually 22)
            "#]],
        );
        check(
            Layout::Servers,
            rows,
            |x| x.numeric = true,
            expect![[r#"
                PROTO LOCAL              PID COMM            USER SINCE QUEUE SERVICE
                tcp   0.0.0.0:22         640 sshd            0    21:13 0/128 -
                udp   127.0.0.53:53      512 systemd-resolve 0    -         0 -
                tcp   [::]:80            812 nginx           0    Oct15 3/128 - +814-816,820,log\x1b[2J:900-901
                tcp   127.0.0.1:2222 4194304 sshd            0    -     0/128 - !ssh on an unusual port (usually 22)
            "#]],
        );
    }

    #[test]
    fn a_process_without_a_name_has_its_column() {
        check(
            Layout::Servers,
            &[Row::server(Proto::Tcp, "0.0.0.0:9", 7, "")],
            |_| {},
            expect![[r#"
                PROTO LOCAL     PID COMM USER QUEUE SERVICE
                tcp   0.0.0.0:9   7 ""   root 0/128 discard
            "#]],
        );
    }

    #[test]
    fn all_sockets_have_state_and_peer() {
        let mut rows = servers()[..2].to_vec();
        for (state, remote) in [
            (State::Estab, "192.168.100.201:54321"),
            (State::CloseWait, "[2001:db8::2]:40000"),
            (State::TimeWait, "127.0.0.1:40000"),
        ] {
            let local = if remote.starts_with('[') {
                "[2001:db8::1]:80"
            } else {
                "10.0.0.1:80"
            };
            rows.push(Row::connection(state, local, remote, 812, "nginx"));
        }
        let timewait = &mut rows[4].event;
        (timewait.pid, timewait.comm, timewait.holders) = (None, None, None);
        check(
            Layout::All,
            &rows,
            |_| {},
            expect![[r#"
                PROTO STATE      LOCAL           REMOTE          PID COMM         QUEUE SERVICE
                tcp   LISTEN     0.0.0.0:22      -               640 sshd         0/128 ssh
                udp   UNCONN     127.0.0.53:53   -               512 systemd-resolve  0 domain
                tcp   ESTAB      10.0.0.1:80     192.168.100.201:54321 812 nginx      0 http
                tcp   CLOSE-WAIT [2001:db8::1]:80 [2001:db8::2]:40000 812 nginx       0 http
                tcp   TIME-WAIT  10.0.0.1:80     127.0.0.1:40000   - -                0 http
            "#]],
        );
    }

    #[test]
    fn chosen_columns_and_nothing_at_all() {
        use crate::row::Column as C;
        let columns = vec![
            C::Event(Field::Lport),
            C::State,
            C::Event(Field::Holders),
            C::Since,
            C::Note,
        ];
        check(
            Layout::Chosen(columns),
            &servers()[1..4],
            |_| {},
            expect![[r#"
                LPORT STATE  HOLDERS                        SINCE                          NOTE
                   53 UNCONN systemd-resolve(512)           -                              -
                   80 LISTEN nginx(812),nginx(816),nginx(815),nginx(814),nginx(820),log\x1b[2J(900),log\x1b[2J(901) 2023-10-15T22:13:20.000000000Z -
                 2222 LISTEN sshd(4194304)                  -                              ssh on an unusual port (usually 22)
            "#]],
        );
        check(
            Layout::Servers,
            &[],
            |x| x.colour = true,
            expect![[r#"
                [2mPROTO[0m [2mLOCAL[0m [2mPID[0m [2mCOMM[0m [2mUSER[0m [2mQUEUE[0m [2mSERVICE[0m
            "#]],
        );
        check(
            Layout::All,
            &[],
            |_| {},
            expect![[r#"
            PROTO STATE LOCAL REMOTE PID COMM QUEUE SERVICE
        "#]],
        );
    }
}
