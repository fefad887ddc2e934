//! Values as JSON text. By hand, since most are of the events of a busy machine, and so that a
//! terminal can show them.

use std::net::IpAddr;

use crate::event::{Peer, Value};
use crate::sanitize::is_deceptive;
use crate::view::time::Utc;

/// Each name once, where it comes first: keys of an object differ.
pub fn once<T: Copy + PartialEq>(names: &[T]) -> Vec<T> {
    let mut once = Vec::new();
    for &name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    once
}

/// A list of strings, as JSON text.
pub fn list(out: &mut Vec<u8>, items: &[String]) {
    put_array(out, items, |out, item| put_text(out, item));
}

/// A list of processes, as JSON text.
pub fn peers(out: &mut Vec<u8>, peers: &[Peer]) {
    put_array(out, peers, |out, peer| {
        out.extend_from_slice(b"{\"pid\":");
        put_int(out, peer.pid);
        out.extend_from_slice(b",\"comm\":");
        put_text(out, &peer.comm);
        if let Some(sock) = peer.sock {
            out.extend_from_slice(b",\"sock\":");
            put_int(out, sock);
        }
        out.push(b'}');
    });
}

/// Any value, keys in alphabetical order.
pub fn put_json(out: &mut Vec<u8>, value: &serde_json::Value) {
    use serde_json::Value as Json;
    match value {
        Json::String(text) => put_text(out, text),
        Json::Array(items) => put_array(out, items, put_json),
        Json::Object(members) => {
            out.push(b'{');
            for (at, (key, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                put_text(out, key);
                out.push(b':');
                put_json(out, value);
            }
            out.push(b'}');
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {
            out.extend_from_slice(value.to_string().as_bytes());
        }
    }
}

/// A name of the schema and what stands behind it.
pub fn put_key(out: &mut Vec<u8>, name: &str) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A value in the shape of its kind.
pub fn put_value(out: &mut Vec<u8>, time: &mut Utc, value: &Value<'_>) {
    match value {
        Value::Time(ns) => {
            out.push(b'"');
            time.push(out, *ns);
            out.push(b'"');
        }
        Value::Int(number) => put_int(out, *number),
        Value::Text(text) => put_text(out, text),
        Value::Addr(addr) => put_addr(out, *addr),
        Value::List(items) => list(out, items),
        Value::Peers(items) => peers(out, items),
    }
}

pub fn put_int<T: itoa::Integer>(out: &mut Vec<u8>, number: T) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub fn put_addr(out: &mut Vec<u8>, addr: IpAddr) {
    out.push(b'"');
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            for octet in [a, b, c] {
                put_int(out, octet);
                out.push(b'.');
            }
            put_int(out, d);
        }
        IpAddr::V6(addr) => out.extend_from_slice(addr.to_string().as_bytes()),
    }
    out.push(b'"');
}

/// A string that no terminal obeys even unescaped by a JSON reader: control, invisible and
/// reordering characters are written as `\uXXXX`, which JSON readers turn back.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if text
        .bytes()
        .all(|b| matches!(b, 0x20..0x7f) && b != b'"' && b != b'\\')
    {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.chars().for_each(|c| put_char(out, c));
    }
    out.push(b'"');
}

fn put_array<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put(out, item);
    }
    out.push(b']');
}

fn put_char(out: &mut Vec<u8>, c: char) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        c if c.is_control() || is_deceptive(c) => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}
