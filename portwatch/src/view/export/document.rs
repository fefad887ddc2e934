//! A JSON object that is put together from dotted names.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::event::Peer;

#[derive(Debug, Default)]
pub struct Document(Map<String, Value>);

impl Document {
    /// Puts a value at a name such as `process.parent.pid`, unless it is absent.
    pub fn put<T: Into<Value>>(&mut self, name: &str, value: Option<T>) {
        let Some(value) = value else { return };
        let mut names = name.split('.').peekable();
        let mut object = &mut self.0;
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                object.insert(name.to_owned(), value.into());
                return;
            }
            let inner = object.entry(name).or_insert_with(|| json!({}));
            // Names are ours: none is that of a value and of an object.
            let Some(inner) = inner.as_object_mut() else {
                return;
            };
            object = inner;
        }
    }

    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// A number as schemas have it: signed, of 64 bits.
pub fn long<T: Into<u64>>(number: T) -> Value {
    number.into().min(i64::MAX.cast_unsigned()).into()
}

pub fn address(address: IpAddr) -> Value {
    address.to_string().into()
}

/// `[{"pid":…,"name":…}]`
pub fn processes(peers: &[Peer]) -> Value {
    let process = |peer: &Peer| json!({ "pid": peer.pid, "name": peer.comm });
    peers.iter().map(process).collect()
}

/// The same with the cookie of the socket that is held, as text: it may be more than a signed number
/// holds.
pub fn holders(peers: &[Peer]) -> Value {
    let holder = |peer: &Peer| {
        let sock = peer.sock.map(|sock| sock.to_string());
        json!({ "pid": peer.pid, "name": peer.comm, "sock": sock })
    };
    peers.iter().map(holder).collect()
}
