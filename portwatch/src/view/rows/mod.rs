//! Rows as a table, or one line each: the output of `list`.

mod cell;
mod text;

use crate::row::{Column, Row};
use crate::view::json;
use crate::view::lines::csv::Cells;
use crate::view::time::Utc;

pub use text::{Layout, Style, Text};

/// Writes rows in one of the formats.
#[derive(Debug)]
pub enum Rows {
    Text(Text),
    /// `None`: all columns.
    Json(Option<Vec<Column>>),
    /// The same; whether it goes to a terminal.
    Csv(Option<Vec<Column>>, bool),
}

impl Rows {
    /// Appends the names of the columns (not in JSON) and all rows.
    pub fn put(&self, out: &mut Vec<u8>, rows: impl IntoIterator<Item = Row>) {
        match self {
            Rows::Text(text) => text.put(out, rows),
            Rows::Json(columns) => {
                let columns = json::once(columns.as_deref().unwrap_or(Column::ALL));
                put_json(out, rows, &columns);
            }
            Rows::Csv(columns, shown) => {
                let columns = columns.as_deref().unwrap_or(Column::ALL);
                put_csv(out, rows, columns, Cells::new(*shown));
            }
        }
    }
}

/// An object a line; absent values are left out.
fn put_json(out: &mut Vec<u8>, rows: impl IntoIterator<Item = Row>, columns: &[Column]) {
    let mut time = Utc::default();
    for row in rows {
        put_object(out, &mut time, &row, columns);
        out.push(b'\n');
    }
}

/// One row as an object.
pub fn put_object(out: &mut Vec<u8>, time: &mut Utc, row: &Row, columns: &[Column]) {
    out.push(b'{');
    let start = out.len();
    for &column in columns {
        if let Some(value) = row.value(column) {
            if out.len() > start {
                out.push(b',');
            }
            json::put_key(out, column.as_str());
            json::put_value(out, time, &value);
        }
    }
    out.push(b'}');
}

/// As RFC 4180 has it, but with LF at the ends of lines; absent values are empty.
fn put_csv(
    out: &mut Vec<u8>,
    rows: impl IntoIterator<Item = Row>,
    columns: &[Column],
    mut cells: Cells,
) {
    let names: Vec<&str> = columns.iter().map(|x| x.as_str()).collect();
    out.extend_from_slice(names.join(",").as_bytes());
    out.push(b'\n');
    for row in rows {
        for (i, &column) in columns.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            if let Some(value) = row.value(column) {
                cells.put(out, &value);
            }
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::device::Device;
    use crate::event::{Field, Proto};

    fn rows() -> Vec<Row> {
        let mut rows = vec![
            Row::server(Proto::Tcp, "0.0.0.0:2222", 640, "sshd"),
            Row::server(Proto::Udp, "[::1]:53", 512, "a,\"\x1b"),
        ];
        rows[1].device = Device::new(b"lo");
        rows[0].since = Some(1_700_000_000_000_000_123);
        rows[1].event.pid = None;
        rows
    }

    fn text(format: &Rows) -> String {
        let mut out = Vec::new();
        format.put(&mut out, rows());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_leaves_out_what_is_absent() {
        expect![[r#"
            {"proto":"tcp","state":"LISTEN","family":"ipv4","laddr":"0.0.0.0","lport":2222,"sock":6400,"netns":1,"pid":640,"uid":0,"comm":"sshd","user":"root","holders":[{"pid":640,"comm":"sshd","sock":6400}],"since":"2023-11-14T22:13:20.000000123Z","backlog":128,"recv_queue":0,"send_queue":128,"inode":64000,"note":"ssh on an unusual port (usually 22)"}
            {"proto":"udp","state":"UNCONN","family":"ipv6","laddr":"::1","lport":53,"device":"lo","sock":5120,"netns":1,"uid":0,"comm":"a,\"\u001b","user":"root","holders":[{"pid":512,"comm":"a,\"\u001b","sock":5120}],"recv_queue":0,"inode":51200,"note":"not a usual domain server"}
        "#]].assert_eq(&text(&Rows::Json(None)));
    }

    #[test]
    fn csv_has_a_cell_for_each_column() {
        expect![[r#"
            proto,state,family,laddr,lport,raddr,rport,device,sock,netns,pid,ppid,uid,comm,exe,args,user,parents,cgroup,container,unit,holders,since,backlog,recv_queue,send_queue,rtt_us,retrans,rx_bytes,tx_bytes,accepted,inode,service,note
            tcp,LISTEN,ipv4,0.0.0.0,2222,,,,6400,1,640,,0,sshd,,,root,,,,,"[{""pid"":640,""comm"":""sshd"",""sock"":6400}]",2023-11-14T22:13:20.000000123Z,128,0,128,,,,,,64000,,ssh on an unusual port (usually 22)
            udp,UNCONN,ipv6,::1,53,,,lo,5120,1,,,0,"a,""\x1b",,,root,,,,,"[{""pid"":512,""comm"":""a,\""\u001b"",""sock"":5120}]",,,0,,,,,,,51200,,not a usual domain server
        "#]].assert_eq(&text(&Rows::Csv(None, true)));
    }

    #[test]
    fn columns_select_and_order() {
        let columns = vec![Column::Note, Column::Event(Field::Comm), Column::Note];
        expect![[r#"
            {"note":"ssh on an unusual port (usually 22)","comm":"sshd"}
            {"note":"not a usual domain server","comm":"a,\"\u001b"}
        "#]]
        .assert_eq(&text(&Rows::Json(Some(columns.clone()))));
        expect![[r#"
            note,comm,note
            ssh on an unusual port (usually 22),sshd,ssh on an unusual port (usually 22)
            not a usual domain server,"a,""\x1b",not a usual domain server
        "#]]
        .assert_eq(&text(&Rows::Csv(Some(columns), true)));
    }
}
