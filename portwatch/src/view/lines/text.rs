//! Events for people: aligned columns, then the details that matter for the kind of event.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use crate::event::{Event, Field, Kind, Value};
use crate::sanitize;
use crate::view::columns::{BOLD_RED, DIM, Line, PLAIN, RED};
use crate::view::human;
use crate::view::time::{Local, Utc};

use super::details::{put_details, put_peers, put_words};

/// How text looks, apart from what it says.
#[derive(Clone, Debug)]
pub struct Style {
    pub colour: bool,
    /// Numbers instead of names of users and services.
    pub numeric: bool,
    /// There is room for the longest IPv4 addresses.
    pub wide: bool,
    /// Of the times of day.
    pub zone: TimeZone,
    /// The network namespace that goes without saying; where that is not known, none is told.
    pub netns: Option<u32>,
}

/// What a column shows.
#[derive(Clone, Copy, Debug)]
enum Cell {
    Time,
    Local,
    Remote,
    Field(Field),
}

#[derive(Debug)]
struct Column {
    title: String,
    width: usize,
    right: bool,
    cell: Cell,
}

#[derive(Debug)]
pub struct Text {
    columns: Vec<Column>,
    /// Whether the last column is the free one, with the details.
    details: bool,
    style: Style,
    time: Local,
    /// The line and the value at hand; kept for their memory.
    line: String,
    scratch: String,
}

impl Text {
    /// `None`: the usual columns and the details. Otherwise these fields, a column each.
    pub fn new(fields: Option<&[Field]>, style: Style) -> Self {
        let columns = match fields {
            None => usual_columns(style.wide),
            Some(fields) => fields.iter().map(|&field| field_column(field)).collect(),
        };
        Self {
            columns,
            details: fields.is_none(),
            time: Local::new(style.zone.clone()),
            style,
            line: String::new(),
            scratch: String::new(),
        }
    }

    /// See [`Style::netns`].
    pub fn at_home(&mut self, netns: Option<u32>) {
        self.style.netns = netns;
    }

    pub fn header(&self, out: &mut Vec<u8>) {
        let mut row = Line::default();
        for column in &self.columns {
            row.put(&column.title, column.width, column.right);
        }
        if self.details {
            row.put("DETAILS", 0, false);
        }
        let (start, end) = if self.style.colour {
            (DIM, PLAIN)
        } else {
            ("", "")
        };
        for part in [start, row.text.trim_end(), end, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }

    pub fn event(&mut self, out: &mut Vec<u8>, event: &Event) {
        let mut row = Line::within(std::mem::take(&mut self.line));
        if event.kind == Kind::Lost {
            self.lost(&mut row.text, event);
        } else {
            for column in &self.columns {
                self.scratch.clear();
                put_cell(&mut self.scratch, &mut self.time, column.cell, event);
                let red = self.style.colour && matches!(column.cell, Cell::Field(Field::Error));
                let colour = if red { RED } else { "" };
                row.put_coloured(&self.scratch, column.width, column.right, colour);
            }
            if self.details {
                self.scratch.clear();
                put_details(&mut self.scratch, event, &self.style);
                row.put(&self.scratch, 0, false);
            }
        }
        out.extend_from_slice(row.text.trim_end().as_bytes());
        out.push(b'\n');
        self.line = row.text;
    }

    fn lost(&mut self, line: &mut String, event: &Event) {
        if self.style.colour {
            line.push_str(BOLD_RED);
        }
        self.time.push(line, event.ts);
        let count = event.count.unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            " lost    *** {count} events lost: they came faster than they could be read; try --ring-size ***"
        );
        if self.style.colour {
            line.push_str(PLAIN);
        }
    }
}

/// They take 80 columns with the gaps, or 104 when there is room.
fn usual_columns(wide: bool) -> Vec<Column> {
    let (comm, endpoint) = if wide { (15, 26) } else { (12, 15) };
    let column = |title: &str, width, right, cell| Column {
        title: title.into(),
        width,
        right,
        cell,
    };
    vec![
        column("TIME", 12, false, Cell::Time),
        column("EVENT", 7, false, Cell::Field(Field::Event)),
        column("PROTO", 5, false, Cell::Field(Field::Proto)),
        column("PID", 7, true, Cell::Field(Field::Pid)),
        column("COMM", comm, false, Cell::Field(Field::Comm)),
        column("LOCAL", endpoint, false, Cell::Local),
        column("REMOTE", endpoint, false, Cell::Remote),
    ]
}

fn field_column(field: Field) -> Column {
    use Field::*;
    let (width, right) = match field {
        Ts => (30, false),
        Event | Container | Unit => (12, false),
        Proto => (5, false),
        Origin | Family => (6, false),
        Laddr | Raddr | Comm | Error => (15, false),
        Exe | Args | Parents | Cgroup | Holders => (28, false),
        User | Cause | Reason | Service => (10, false),
        Lport | Rport | Uid | Gid => (5, true),
        Pid | Tid | Ppid | Seq | Sock => (7, true),
        Netns | Backlog | LatencyUs | DurationUs | RxBytes | TxBytes | RttUs | Retrans
        | Accepted | Count => (10, true),
    };
    let title = field.as_str().to_uppercase();
    let width = width.max(title.len());
    Column {
        title,
        width,
        right,
        cell: Cell::Field(field),
    }
}

fn put_cell(out: &mut String, time: &mut Local, cell: Cell, event: &Event) {
    let field = match cell {
        Cell::Time => return time.push(out, event.ts),
        Cell::Local => return human::push_endpoint(out, event.laddr, event.lport),
        Cell::Remote => return human::push_endpoint(out, event.raddr, event.rport),
        Cell::Field(Field::Comm) => {
            return match &event.comm {
                Some(comm) => human::push_comm(out, comm),
                None => out.push('-'),
            };
        }
        Cell::Field(field) => field,
    };
    put_value(out, event.value(field));
}

/// A value as text without anything a terminal would obey; `-` when absent.
pub fn put_value(out: &mut String, value: Option<Value<'_>>) {
    // Writing to a String cannot fail.
    let _ = match value {
        None => return out.push('-'),
        Some(Value::Time(ns)) => write!(out, "{}", Utc::text(ns)),
        Some(Value::Int(number)) => return human::push_number(out, number),
        Some(Value::Text(text)) => return sanitize::push_str(out, &text),
        Some(Value::Addr(addr)) => write!(out, "{addr}"),
        Some(Value::List(items)) => return put_words(out, items),
        Some(Value::Peers(peers)) => return put_peers(out, peers),
    };
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Comm, Context, Origin, Peer};
    use crate::view::lines::samples;

    const PLAIN_STYLE: Style = Style {
        colour: false,
        numeric: false,
        wide: false,
        zone: TimeZone::UTC,
        netns: Some(1),
    };

    fn check(fields: Option<&[Field]>, style: Style, expected: Expect) {
        let mut text = Text::new(fields, style);
        let mut out = Vec::new();
        text.header(&mut out);
        for event in samples::typical() {
            text.event(&mut out, &event);
        }
        expected.assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn typical_events_are_aligned() {
        check(
            None,
            PLAIN_STYLE,
            expect![[r#"
                TIME         EVENT   PROTO     PID COMM         LOCAL           REMOTE          DETAILS
                22:13:20.124 listen  tcp       812 nginx        0.0.0.0:80      -               backlog=511 service=http user=root exe=/usr/sbin/nginx unit=nginx.service parent=systemd(1)
                22:13:20.125 bind    tcp      4242 \x1b]0;x\x07\xff 0.0.0.0:80  -               EADDRINUSE held_by=nginx(812) uid=0 exe="/tmp/\u{202e}gpj.x (deleted)"
                22:13:20.126 connect tcp   4194304 curl         [2001:db8::1]:40000 [2001:db8::2]:443 latency=12.3ms service=https user=alice exe=/usr/bin/curl container=0123456789ab parent=bash(4000)
                22:13:20.127 connect tcp      4243 a-fifteen-chars 192.168.100.200:54321 192.168.100.201:54322 ECONNREFUSED user=alice exe=/usr/bin/curl container=0123456789ab parent=bash(4000)
                22:13:20.128 accept  tcp       812 nginx        10.0.0.1:80     10.0.0.2:40001  waited=30us
                22:13:20.129 close   tcp       812 nginx        10.0.0.1:80     10.0.0.2:40001  remote duration=2.50s rtt=180us rx=420B tx=1.2M retrans=2
                22:13:20.130 close   tcp       812 nginx        0.0.0.0:80      -               local duration=1h02m accepted=1
                22:13:20.131 reset   tcp         - -            127.0.0.1:9     127.0.0.1:40002 sent reason=NO_SOCKET
                22:13:20.132 lost    *** 1234 events lost: they came faster than they could be read; try --ring-size ***
            "#]],
        );
    }

    #[test]
    fn a_wide_screen_has_room_for_long_addresses() {
        check(
            None,
            Style {
                wide: true,
                ..PLAIN_STYLE
            },
            expect![[r#"
                TIME         EVENT   PROTO     PID COMM            LOCAL                      REMOTE                     DETAILS
                22:13:20.124 listen  tcp       812 nginx           0.0.0.0:80                 -                          backlog=511 service=http user=root exe=/usr/sbin/nginx unit=nginx.service parent=systemd(1)
                22:13:20.125 bind    tcp      4242 \x1b]0;x\x07\xff 0.0.0.0:80                -                          EADDRINUSE held_by=nginx(812) uid=0 exe="/tmp/\u{202e}gpj.x (deleted)"
                22:13:20.126 connect tcp   4194304 curl            [2001:db8::1]:40000        [2001:db8::2]:443          latency=12.3ms service=https user=alice exe=/usr/bin/curl container=0123456789ab parent=bash(4000)
                22:13:20.127 connect tcp      4243 a-fifteen-chars 192.168.100.200:54321      192.168.100.201:54322      ECONNREFUSED user=alice exe=/usr/bin/curl container=0123456789ab parent=bash(4000)
                22:13:20.128 accept  tcp       812 nginx           10.0.0.1:80                10.0.0.2:40001             waited=30us
                22:13:20.129 close   tcp       812 nginx           10.0.0.1:80                10.0.0.2:40001             remote duration=2.50s rtt=180us rx=420B tx=1.2M retrans=2
                22:13:20.130 close   tcp       812 nginx           0.0.0.0:80                 -                          local duration=1h02m accepted=1
                22:13:20.131 reset   tcp         - -               127.0.0.1:9                127.0.0.1:40002            sent reason=NO_SOCKET
                22:13:20.132 lost    *** 1234 events lost: they came faster than they could be read; try --ring-size ***
            "#]],
        );
    }

    #[test]
    fn numeric_shows_no_names_of_users_and_services() {
        let mut text = Text::new(
            None,
            Style {
                numeric: true,
                ..PLAIN_STYLE
            },
        );
        let mut out = Vec::new();
        text.event(&mut out, &samples::typical()[0]);
        expect![[r#"
            22:13:20.124 listen  tcp       812 nginx        0.0.0.0:80      -               backlog=511 uid=0 exe=/usr/sbin/nginx unit=nginx.service parent=systemd(1)
        "#]].assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn another_network_namespace_is_told_but_for_that_of_a_container() {
        let mut event = Event::new(Kind::Close, Origin::Live, 0);
        let mut details = |home, netns, container: Option<&str>| {
            event.netns = netns;
            event.context = Some(Arc::new(Context {
                container: container.map(str::to_owned),
                ..Context::default()
            }));
            let mut text = Text::new(None, PLAIN_STYLE);
            text.at_home(home);
            let mut out = Vec::new();
            text.event(&mut out, &event);
            let line = String::from_utf8(out).unwrap();
            line.split_whitespace().last().map(str::to_owned)
        };
        for (home, netns, container, expected) in [
            (Some(1), Some(2), None, "netns=2"),
            (Some(2), Some(2), None, "-"),
            (Some(1), Some(2), Some("0123456789ab"), "-"),
            (Some(1), None, None, "-"),
            (None, Some(2), None, "-"),
        ] {
            let last = details(home, netns, container);
            assert_eq!(last.as_deref(), Some(expected), "{home:?} {netns:?}");
        }
    }

    #[test]
    fn fields_select_columns() {
        let fields = [
            Field::Ts,
            Field::Pid,
            Field::Error,
            Field::Args,
            Field::Holders,
        ];
        check(
            Some(&fields),
            PLAIN_STYLE,
            expect![[r#"
            TS                                 PID ERROR           ARGS                         HOLDERS
            2023-11-14T22:13:20.124456789Z     812 -               nginx -g "daemon off;"       -
            2023-11-14T22:13:20.125456789Z    4242 EADDRINUSE      x "" "a b" \x1b[2J\n         nginx(812)
            2023-11-14T22:13:20.126456789Z 4194304 -               curl https://[2001:db8::2]/  -
            2023-11-14T22:13:20.127456789Z    4243 ECONNREFUSED    curl https://[2001:db8::2]/  -
            2023-11-14T22:13:20.128456789Z     812 -               nginx -g "daemon off;"       -
            2023-11-14T22:13:20.129456789Z     812 -               nginx -g "daemon off;"       -
            2023-11-14T22:13:20.130456789Z     812 -               nginx -g "daemon off;"       -
            2023-11-14T22:13:20.131456789Z       - -               -                            -
            22:13:20.132 lost    *** 1234 events lost: they came faster than they could be read; try --ring-size ***
        "#]],
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_escaped_once_wherever_they_stand() {
        let latin = sanitize::utf8(b"caf\xe9").into_owned();
        let peers = vec![Peer {
            pid: 7,
            comm: latin.clone(),
            sock: None,
        }];
        let mut event = Event::new(Kind::Bind, Origin::Live, 0);
        event.comm = Some(Comm::from(&b"caf\xe9"[..]));
        event.holders = Some(peers.clone());
        event.context = Some(Arc::new(Context {
            exe: Some(format!("/{latin}")),
            args: Some([latin.clone(), format!("\\ {latin}")].into()),
            parents: Some(peers),
            ..Context::default()
        }));
        let fields = [
            Field::Comm,
            Field::Exe,
            Field::Args,
            Field::Parents,
            Field::Holders,
        ];
        let mut out = Vec::new();
        Text::new(Some(&fields), PLAIN_STYLE).event(&mut out, &event);
        Text::new(None, PLAIN_STYLE).event(&mut out, &event);
        expect![[r#"
            caf\xe9         /caf\xe9                     caf\xe9 "\\ caf\xe9"         caf\xe9(7)                   caf\xe9(7)
            00:00:00.000 bind    -           - caf\xe9      -               -               held_by=caf\xe9(7) exe=/caf\xe9 parent=caf\xe9(7)
        "#]].assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn colour_marks_errors_and_losses_only() {
        let mut text = Text::new(
            None,
            Style {
                colour: true,
                ..PLAIN_STYLE
            },
        );
        let mut out = Vec::new();
        for event in samples::typical() {
            text.event(&mut out, &event);
        }
        let shown = String::from_utf8(out).unwrap();
        let coloured: Vec<&str> = shown.lines().filter(|x| x.contains('\x1b')).collect();
        assert_eq!(coloured.len(), 3, "{coloured:#?}");
        assert!(coloured[0].contains("\x1b[31mEADDRINUSE\x1b[0m"));
        assert!(coloured[1].contains("\x1b[31mECONNREFUSED\x1b[0m"));
        assert!(coloured[2].starts_with("\x1b[1;31m") && coloured[2].contains("1234 events lost"));
    }

    proptest! {
        #[test]
        fn no_event_can_break_the_screen(event in samples::event()) {
            for fields in [None, Some(Field::ALL)] {
                let mut text = Text::new(fields, PLAIN_STYLE);
                let mut out = Vec::new();
                text.event(&mut out, &event);
                let line = String::from_utf8(out).unwrap();
                prop_assert!(line.ends_with('\n'));
                for c in line.trim_end_matches('\n').chars() {
                    prop_assert!(!c.is_control() && !sanitize::is_deceptive(c), "{:?}", line);
                }
            }
        }
    }
}
