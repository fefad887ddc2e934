//! Events as columns of a parquet file: the fields of the schema, numbers as numbers, lists as JSON.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::event::{Event, Field, Value};
use crate::view::lines::csv;
use crate::view::time::Utc;

/// Events kept in memory, which are a row group then.
const ROWS: usize = 1 << 16;

/// Writes events; what is ready is appended to a buffer.
pub struct Parquet {
    file: SerializedFileWriter<Vec<u8>>,
    events: Vec<Event>,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Time,
    /// Unsigned, of so many bits.
    Number(u8),
    Text,
    Json,
}

impl Kind {
    fn of(field: Field) -> Self {
        use Field::*;
        match field {
            Ts => Kind::Time,
            Lport | Rport => Kind::Number(16),
            Netns | Pid | Tid | Ppid | Uid | Gid | Backlog | RttUs | Retrans | Accepted => {
                Kind::Number(32)
            }
            Seq | Sock | LatencyUs | DurationUs | RxBytes | TxBytes | Count => Kind::Number(64),
            Args | Parents | Holders => Kind::Json,
            Event | Origin | Proto | Family | Laddr | Raddr | Comm | Exe | User | Cgroup
            | Container | Unit | Error | Cause | Reason | Service => Kind::Text,
        }
    }

    /// As the language of schemas has it.
    fn spelled(self) -> String {
        match self {
            Kind::Time => "INT64 {} (TIMESTAMP(NANOS, true))".to_owned(),
            Kind::Number(64) => "INT64 {} (INTEGER(64, false))".to_owned(),
            Kind::Number(bits) => format!("INT32 {{}} (INTEGER({bits}, false))"),
            Kind::Text => "BYTE_ARRAY {} (STRING)".to_owned(),
            Kind::Json => "BYTE_ARRAY {} (JSON)".to_owned(),
        }
    }
}

impl Parquet {
    /// # Errors
    /// Never, as long as the schema can be read.
    pub fn new() -> Result<Self> {
        let mut schema = "message event {\n".to_owned();
        for &field in Field::ALL {
            let always = matches!(field, Field::Ts | Field::Seq | Field::Event | Field::Origin);
            schema.push_str(if always { "REQUIRED " } else { "OPTIONAL " });
            schema.push_str(&Kind::of(field).spelled().replace("{}", field.as_str()));
            schema.push_str(";\n");
        }
        schema.push('}');
        let schema = Arc::new(parse_message_type(&schema)?);
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
        let properties = Arc::new(properties.build());
        Ok(Self {
            file: SerializedFileWriter::new(Vec::new(), schema, properties)?,
            events: Vec::with_capacity(ROWS),
        })
    }

    /// Keeps the event; appends a row group when there are enough of them.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn event(&mut self, out: &mut Vec<u8>, event: &Event) -> Result<()> {
        self.events.push(event.clone());
        match self.events.len() >= ROWS {
            true => self.put_rows(out),
            false => Ok(()),
        }
    }

    /// Appends the rest.
    ///
    /// # Errors
    /// As [`Parquet::event`].
    pub fn end(mut self, out: &mut Vec<u8>) -> Result<()> {
        if !self.events.is_empty() {
            self.put_rows(out)?;
        }
        out.append(&mut self.file.into_inner()?);
        Ok(())
    }

    fn put_rows(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let mut rows = self.file.next_row_group()?;
        for &field in Field::ALL {
            let values = self.events.iter().map(|event| event.value(field));
            // Numbers are stored with the same bits.
            match Kind::of(field) {
                Kind::Time | Kind::Number(64) => put::<Int64Type>(&mut rows, values, |value| {
                    number(value).map(u64::cast_signed)
                }),
                Kind::Number(_) => put::<Int32Type>(&mut rows, values, |value| {
                    Some(u32::try_from(number(value)?).ok()?.cast_signed())
                }),
                Kind::Text | Kind::Json => put::<ByteArrayType>(&mut rows, values, text),
            }
            .with_context(|| format!("writing the column {field}"))?;
        }
        rows.close()?;
        self.events.clear();
        out.append(self.file.inner_mut());
        Ok(())
    }
}

/// Writes the next column.
fn put<'e, T: DataType>(
    rows: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: impl Iterator<Item = Option<Value<'e>>>,
    convert: impl Fn(Value<'e>) -> Option<T::T>,
) -> Result<()> {
    let values: Vec<Option<T::T>> = values.map(|x| x.and_then(&convert)).collect();
    let there: Vec<i16> = values.iter().map(|x| i16::from(x.is_some())).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    let mut column = rows.next_column()?.context("a column too many")?;
    (column.typed::<T>()).write_batch(&values, Some(&there), None)?;
    column.close()?;
    Ok(())
}

fn number(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Time(number) | Value::Int(number) => Some(number),
        _ => None,
    }
}

/// Text as it is, since no terminal reads this; addresses and lists as in JSON.
fn text(value: Value<'_>) -> Option<ByteArray> {
    Some(match value {
        Value::Text(text) => text.as_bytes().to_vec().into(),
        value => {
            let mut cell = Vec::new();
            csv::put_value(&mut cell, &mut Utc::default(), &value);
            cell.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::RowAccessor as _;

    use super::*;
    use crate::view::lines::samples;

    fn written(events: &[Event]) -> SerializedFileReader<bytes::Bytes> {
        let mut out = Vec::new();
        let mut parquet = Parquet::new().unwrap();
        for event in events {
            parquet.event(&mut out, event).unwrap();
        }
        parquet.end(&mut out).unwrap();
        SerializedFileReader::new(bytes::Bytes::from(out)).unwrap()
    }

    #[test]
    fn events_come_back_with_their_types() {
        let events = samples::typical();
        let file = written(&events);
        let rows: Vec<_> = file
            .get_row_iter(None)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(rows.len(), events.len());
        let at = |field| Field::ALL.iter().position(|x| *x == field).unwrap();
        for (row, event) in rows.iter().zip(&events) {
            assert_eq!(
                row.get_string(at(Field::Event)).unwrap(),
                event.kind.as_str()
            );
            assert_eq!(row.get_ulong(at(Field::Seq)).unwrap(), event.seq);
            match event.lport {
                Some(port) => assert_eq!(row.get_ushort(at(Field::Lport)).unwrap(), port),
                None => assert!(row.get_ushort(at(Field::Lport)).is_err()),
            }
        }
        let args = rows[0].get_string(at(Field::Args)).unwrap();
        assert_eq!(args, r#"["nginx","-g","daemon off;"]"#);
        let schema = file.metadata().file_metadata().schema();
        let names: Vec<&str> = schema.get_fields().iter().map(|x| x.name()).collect();
        let expected: Vec<&str> = Field::ALL.iter().map(|x| x.as_str()).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn many_events_are_several_row_groups_and_none_are_a_file() {
        let event = &samples::typical()[0];
        let file = written(&vec![event.clone(); ROWS + 1]);
        assert_eq!(file.num_row_groups(), 2);
        assert_eq!(file.metadata().file_metadata().num_rows(), ROWS as i64 + 1);
        assert_eq!(written(&[]).metadata().file_metadata().num_rows(), 0);
    }
}
