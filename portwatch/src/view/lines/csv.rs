//! Events as CSV (RFC 4180, but lines end with LF): a row of names, then one row an event. Absent values are
//! empty, lists are JSON text. Text is exact, quoted where it has to be, so a row may have several lines; only on
//! a terminal it is escaped as in all that is shown there.

use crate::event::{Event, Field, Value};
use crate::sanitize;
use crate::view::json;
use crate::view::time::Utc;

#[derive(Debug)]
pub struct Csv {
    fields: Vec<Field>,
    cells: Cells,
}

impl Csv {
    /// `None`: all fields in the order of the schema. `shown`: on a terminal.
    pub fn new(fields: Option<Vec<Field>>, shown: bool) -> Self {
        Self {
            fields: fields.unwrap_or_else(|| Field::ALL.to_vec()),
            cells: Cells::new(shown),
        }
    }

    pub fn header(&self, out: &mut Vec<u8>) {
        let names: Vec<&str> = self.fields.iter().map(|x| x.as_str()).collect();
        out.extend_from_slice(names.join(",").as_bytes());
        out.push(b'\n');
    }

    pub fn event(&mut self, out: &mut Vec<u8>, event: &Event) {
        for (i, &field) in self.fields.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            if let Some(value) = event.value(field) {
                self.cells.put(out, &value);
            }
        }
        out.push(b'\n');
    }
}

/// Puts values into cells.
#[derive(Debug)]
pub struct Cells {
    shown: bool,
    time: Utc,
    /// The value at hand; kept for its memory.
    cell: Vec<u8>,
}

impl Cells {
    /// `shown`: on a terminal.
    pub fn new(shown: bool) -> Self {
        Self {
            shown,
            time: Utc::default(),
            cell: Vec::new(),
        }
    }

    pub fn put(&mut self, out: &mut Vec<u8>, value: &Value<'_>) {
        self.cell.clear();
        match value {
            Value::Text(text) if self.shown => {
                let text = sanitize::string(text);
                self.cell.extend_from_slice(text.as_bytes());
            }
            value => put_value(&mut self.cell, &mut self.time, value),
        }
        put_quoted(out, &self.cell);
    }
}

/// A value as it is before it is quoted.
pub fn put_value(cell: &mut Vec<u8>, time: &mut Utc, value: &Value<'_>) {
    match value {
        Value::Time(ns) => time.push(cell, *ns),
        Value::Int(number) => {
            cell.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
        }
        Value::Text(text) => cell.extend_from_slice(text.as_bytes()),
        Value::Addr(addr) => cell.extend_from_slice(addr.to_string().as_bytes()),
        Value::List(items) => json::list(cell, items),
        Value::Peers(peers) => json::peers(cell, peers),
    }
}

/// Quotes a cell where that has to be.
pub fn put_quoted(out: &mut Vec<u8>, cell: &[u8]) {
    if !cell
        .iter()
        .any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r'))
    {
        out.extend_from_slice(cell);
        return;
    }
    out.push(b'"');
    for &b in cell {
        if b == b'"' {
            out.push(b'"');
        }
        out.push(b);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::view::lines::samples;

    /// Reads one row, by the grammar of RFC 4180.
    fn cells(row: &str) -> Vec<String> {
        let mut cells = vec![String::new()];
        let mut chars = row.strip_suffix('\n').unwrap().chars().peekable();
        let mut quoted = false;
        while let Some(c) = chars.next() {
            let cell = cells.last_mut().unwrap();
            match c {
                '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
                '"' => quoted = !quoted,
                ',' if !quoted => cells.push(String::new()),
                c => cell.push(c),
            }
        }
        assert!(!quoted, "{row}");
        cells
    }

    #[test]
    fn typical_events_are_rows() {
        let fields = [
            "ts", "event", "pid", "comm", "laddr", "lport", "args", "error", "holders",
        ];
        let fields = fields.iter().filter_map(|x| Field::parse(x)).collect();
        let mut csv = Csv::new(Some(fields), true);
        let mut out = Vec::new();
        csv.header(&mut out);
        for event in samples::typical() {
            csv.event(&mut out, &event);
        }
        expect![[r#"
            ts,event,pid,comm,laddr,lport,args,error,holders
            2023-11-14T22:13:20.124456789Z,listen,812,nginx,0.0.0.0,80,"[""nginx"",""-g"",""daemon off;""]",,
            2023-11-14T22:13:20.125456789Z,bind,4242,\x1b]0;x\x07\xff,0.0.0.0,80,"[""x"","""",""a b"",""\u001b[2J\n""]",EADDRINUSE,"[{""pid"":812,""comm"":""nginx"",""sock"":7}]"
            2023-11-14T22:13:20.126456789Z,connect,4194304,curl,2001:db8::1,40000,"[""curl"",""https://[2001:db8::2]/""]",,
            2023-11-14T22:13:20.127456789Z,connect,4243,a-fifteen-chars,192.168.100.200,54321,"[""curl"",""https://[2001:db8::2]/""]",ECONNREFUSED,
            2023-11-14T22:13:20.128456789Z,accept,812,nginx,10.0.0.1,80,"[""nginx"",""-g"",""daemon off;""]",,
            2023-11-14T22:13:20.129456789Z,close,812,nginx,10.0.0.1,80,"[""nginx"",""-g"",""daemon off;""]",,
            2023-11-14T22:13:20.130456789Z,close,812,nginx,0.0.0.0,80,"[""nginx"",""-g"",""daemon off;""]",,
            2023-11-14T22:13:20.131456789Z,reset,,,127.0.0.1,9,,,
            2023-11-14T22:13:20.132456789Z,lost,,,,,,,
        "#]].assert_eq(&String::from_utf8(out).unwrap());
    }

    #[test]
    fn text_is_exact_unless_it_is_shown() {
        for (text, exact, shown) in [
            ("nginx", "nginx", "nginx"),
            ("a\\nb", "a\\nb", "a\\\\nb"),
            ("a\nb", "\"a\nb\"", "a\\nb"),
            ("\r,\"", "\"\r,\"\"\"", "\"\\r,\"\"\""),
            ("\x1b[2J", "\x1b[2J", "\\x1b[2J"),
        ] {
            for (on_terminal, expected) in [(false, exact), (true, shown)] {
                let mut out = Vec::new();
                Cells::new(on_terminal).put(&mut out, &Value::Text(text.into()));
                assert_eq!(String::from_utf8(out).unwrap(), expected);
            }
        }
    }

    proptest! {
        #[test]
        fn a_reader_gets_every_value_back(event in samples::event()) {
            let mut csv = Csv::new(None, false);
            let mut out = Vec::new();
            csv.event(&mut out, &event);
            let row = String::from_utf8(out).unwrap();
            let cells = cells(&row);
            prop_assert_eq!(cells.len(), Field::ALL.len());
            for (cell, &field) in cells.iter().zip(Field::ALL) {
                match event.value(field) {
                    None => prop_assert_eq!(cell, ""),
                    Some(Value::Int(number)) => prop_assert_eq!(cell, &number.to_string()),
                    Some(Value::Addr(addr)) => prop_assert_eq!(cell, &addr.to_string()),
                    Some(Value::Time(ns)) => prop_assert_eq!(cell, &Utc::text(ns)),
                    Some(Value::Text(text)) => prop_assert_eq!(cell, &text),
                    Some(Value::List(items)) => {
                        let read: Vec<String> = serde_json::from_str(cell).unwrap();
                        prop_assert_eq!(read, items);
                    }
                    Some(Value::Peers(peers)) => {
                        let read: Vec<serde_json::Value> = serde_json::from_str(cell).unwrap();
                        prop_assert_eq!(read.len(), peers.len());
                    }
                }
            }
        }
    }
}
