//! Files cut short anywhere, and with any bit flipped.

use std::fs;
use std::path::Path;

use portwatch::session;
use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;

use super::signed::keys;
use super::{make, session};

#[test]
fn a_truncated_file_is_never_taken_for_a_whole_one() {
    let (folder, path) = session();
    let whole = fs::read(&path).unwrap();
    let cut = folder.path().join("cut.db");
    for length in (0..whole.len()).step_by(509) {
        fs::write(&cut, &whole[..length]).unwrap();
        let found = session::verify(&cut, None);
        assert!(found.is_err() || found.unwrap().fault.is_some(), "{length}");
    }
}

/// All rows of all tables, the schema among them, and what its readers look at besides.
fn dump(path: &Path) -> rusqlite::Result<Vec<Vec<Value>>> {
    let db = Connection::open(path)?;
    let mut dump = Vec::new();
    let mut tables = vec!["sqlite_schema".to_owned()];
    let mut statement = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    tables.extend(
        statement
            .query_map([], |row| row.get(0))?
            .collect::<Result<Vec<_>, _>>()?,
    );
    for table in tables {
        let columns = match table.as_str() {
            // where a table begins is not what it holds
            "sqlite_schema" => "type, name, tbl_name, sql",
            _ => "*",
        };
        let mut statement = db.prepare(&format!("SELECT {columns} FROM {table} ORDER BY rowid"))?;
        let count = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            dump.push((0..count).map(|at| row.get(at)).collect::<Result<_, _>>()?);
        }
    }
    Ok(dump)
}

/// A signed session, and all that flips of its bits are compared with.
struct Victim {
    folder: TempDir,
    whole: Vec<u8>,
    dump: Vec<Vec<Value>>,
    signed: Vec<([u8; 32], Vec<u8>)>,
}

impl Victim {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        make::session(&path, Some(&keys().0));
        let db = Connection::open(&path).unwrap();
        let mut signed = db.prepare("SELECT hash, signature FROM raw_batch").unwrap();
        let signed = signed.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        let signed = signed.unwrap().collect::<Result<_, _>>().unwrap();
        Self {
            whole: fs::read(&path).unwrap(),
            dump: dump(&path).unwrap(),
            folder,
            signed,
        }
    }

    /// Flips one bit, and says whether that is found by those who have the key. If not, it must not
    /// have changed anything.
    fn flip(&self, position: usize, bit: u32) -> bool {
        let path = self.folder.path().join("flipped.db");
        let mut bytes = self.whole.clone();
        bytes[position] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        // As good as the key for signatures of this session, and faster.
        let check = |hash: &[u8; 32], signature: &[u8]| {
            (self.signed.iter()).any(|(of, by)| of == hash && by == signature)
        };
        let verdict = session::verify(&path, Some(&check));
        let found = !verdict.is_ok_and(|verdict| verdict.fault.is_none());
        if !found {
            let now = dump(&path);
            assert_eq!(now.as_ref(), Ok(&self.dump), "bit {bit} of byte {position}");
        }
        found
    }
}

#[test]
fn a_flipped_bit_is_found_or_changes_nothing() {
    let victim = Victim::new();
    // The same positions each time, all over the file.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let (tries, mut missed) = (2000, 0);
    for _ in 0..tries {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let position = (random >> 8) as usize % victim.whole.len();
        missed += u32::from(!victim.flip(position, random as u32 % 8));
    }
    println!("{missed} of {tries} flipped bits were in unused space");
    // The header, every byte.
    for position in 0..100 {
        victim.flip(position, position as u32 % 8);
    }
}

#[test]
#[ignore = "long: a bit of each byte of a session"]
fn every_flipped_byte_is_found_or_changes_nothing() {
    let victim = Victim::new();
    let size = victim.whole.len();
    let missed = (0..size).filter(|&x| !victim.flip(x, x as u32 % 8)).count();
    println!("{missed} of {size} flipped bits were in unused space");
}
