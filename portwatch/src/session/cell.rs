//! The tables of a session as the code sees them, and values on their way there.

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

/// What rows are added to, in the order in which they count in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Run,
    Finish,
    Address,
    What,
    Process,
    Owner,
    Exit,
    Event,
    Checkpoint,
    Open,
}

impl Table {
    pub const ALL: [Table; 10] = {
        use Table::*;
        [
            Run, Finish, Address, What, Process, Owner, Exit, Event, Checkpoint, Open,
        ]
    };

    pub const fn name(self) -> &'static str {
        match self {
            Table::Run => "raw_run",
            Table::Finish => "raw_finish",
            Table::Address => "raw_address",
            Table::What => "raw_what",
            Table::Process => "raw_process",
            Table::Owner => "raw_owner",
            Table::Exit => "raw_exit",
            Table::Event => "raw_event",
            Table::Checkpoint => "raw_checkpoint",
            Table::Open => "raw_open",
        }
    }

    /// Number of its columns.
    pub const fn width(self) -> usize {
        match self {
            Table::Run => 14,
            Table::Finish => 6,
            Table::Address => 2,
            Table::What => 10,
            Table::Process => 11,
            Table::Owner => 8,
            Table::Exit => 5,
            Table::Event => 21,
            Table::Checkpoint => 4,
            Table::Open => 29,
        }
    }
}

/// A value to be stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl Cell<'_> {
    /// As it counts for the hash of a batch: its kind, its length where that varies, its bytes.
    pub fn encode(self, out: &mut Vec<u8>) {
        let bytes = |out: &mut Vec<u8>, kind: u8, bytes: &[u8]| {
            out.push(kind);
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Cell::Null => out.push(0),
            Cell::Int(number) => {
                out.push(1);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Cell::Text(text) => bytes(out, 2, text.as_bytes()),
            Cell::Blob(blob) => bytes(out, 3, blob),
        }
    }

    /// The same of a value that was read. No table holds floating point numbers; one that does was
    /// altered.
    pub fn encode_read(value: ValueRef<'_>, out: &mut Vec<u8>) {
        match value {
            ValueRef::Null => Cell::Null.encode(out),
            ValueRef::Integer(number) => Cell::Int(number).encode(out),
            ValueRef::Real(number) => {
                out.push(4);
                out.extend_from_slice(&number.to_bits().to_le_bytes());
            }
            ValueRef::Text(text) => {
                out.push(2);
                out.extend_from_slice(&(text.len() as u64).to_le_bytes());
                out.extend_from_slice(text);
            }
            ValueRef::Blob(blob) => Cell::Blob(blob).encode(out),
        }
    }
}

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Cell::Null => ValueRef::Null,
            Cell::Int(number) => ValueRef::Integer(number),
            Cell::Text(text) => ValueRef::Text(text.as_bytes()),
            Cell::Blob(blob) => ValueRef::Blob(blob),
        }))
    }
}

/// A number, stored with the same bits; absent ones as NULL.
pub fn int<T: Into<u64>>(number: Option<T>) -> Cell<'static> {
    number.map_or(Cell::Null, |x| Cell::Int(x.into().cast_signed()))
}

pub fn text<T: AsRef<str> + ?Sized>(text: Option<&T>) -> Cell<'_> {
    text.map_or(Cell::Null, |x| Cell::Text(x.as_ref()))
}
