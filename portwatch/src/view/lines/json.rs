//! Events as JSON, one object a line. On the path of every event of a busy machine, so values are
//! written by hand, and what all events of an owner share is encoded once.

use std::net::IpAddr;
use std::sync::Arc;

use crate::event::{Comm, Context, Event, Field, Kind, Peer, Value};
use crate::sanitize::is_deceptive;
use crate::view::time::Utc;

/// Writes objects with all fields, or with some in a given order.
#[derive(Debug)]
pub struct Json {
    fields: Option<Vec<Field>>,
    time: Utc,
    owners: Owners,
}

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

impl Json {
    /// `None`: all fields in the order of the schema. A loss is always written whole.
    pub fn new(fields: Option<Vec<Field>>) -> Self {
        Self {
            fields: fields.map(|fields| once(&fields)),
            time: Utc::default(),
            owners: Owners::new(),
        }
    }

    pub fn event(&mut self, out: &mut Vec<u8>, event: &Event) {
        // Room for most events, so that the vector grows at most once here.
        out.reserve(1024);
        out.push(b'{');
        match &self.fields {
            Some(fields) if event.kind != Kind::Lost => {
                for &field in fields {
                    if let Some(value) = event.value(field) {
                        put_key(out, field.as_str());
                        put_value(out, &mut self.time, &value);
                        out.push(b',');
                    }
                }
            }
            _ => self.put_all(out, event),
        }
        match out.last_mut() {
            Some(last) if *last == b',' => *last = b'}',
            _ => out.push(b'}'),
        }
        out.push(b'\n');
    }

    /// Every field that is there, each with a comma behind it.
    fn put_all(&mut self, out: &mut Vec<u8>, event: &Event) {
        macro_rules! text {
            ($key:literal, $value:expr) => {
                out.extend_from_slice(concat!("\"", $key, "\":\"").as_bytes());
                out.extend_from_slice($value.as_bytes());
                out.extend_from_slice(b"\",");
            };
        }
        macro_rules! maybe {
            ($key:literal, $value:expr, $put:ident) => {
                if let Some(value) = $value {
                    out.extend_from_slice(concat!("\"", $key, "\":").as_bytes());
                    $put(out, value);
                    out.push(b',');
                }
            };
        }
        out.extend_from_slice(b"\"ts\":\"");
        self.time.push(out, event.ts);
        out.extend_from_slice(b"\",\"seq\":");
        put_int(out, event.seq);
        out.push(b',');
        text!("event", event.kind.as_str());
        text!("origin", event.origin.as_str());
        if let Some(proto) = event.proto {
            text!("proto", proto.as_str());
        }
        if let Some(family) = event.family {
            text!("family", family.as_str());
        }
        maybe!("laddr", event.laddr, put_addr);
        maybe!("lport", event.lport, put_int);
        maybe!("raddr", event.raddr, put_addr);
        maybe!("rport", event.rport, put_int);
        maybe!("sock", event.sock, put_int);
        maybe!("netns", event.netns, put_int);
        out.extend_from_slice(self.owners.encoded(event));
        if let Some(error) = event.error {
            text!("error", crate::errno::name(error));
        }
        maybe!("backlog", event.backlog, put_int);
        maybe!("latency_us", event.latency_us, put_int);
        maybe!("duration_us", event.duration_us, put_int);
        maybe!("rx_bytes", event.rx_bytes, put_int);
        maybe!("tx_bytes", event.tx_bytes, put_int);
        maybe!("rtt_us", event.rtt_us, put_int);
        maybe!("retrans", event.retrans, put_int);
        maybe!("accepted", event.accepted, put_int);
        if let Some(cause) = event.cause {
            text!("cause", cause.as_str());
        }
        maybe!("reason", event.reason, put_text);
        maybe!("holders", event.holders.as_deref(), peers);
        maybe!("count", event.count, put_int);
        maybe!("service", event.service, put_text);
    }
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

fn put_int<T: itoa::Integer>(out: &mut Vec<u8>, number: T) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn put_addr(out: &mut Vec<u8>, addr: IpAddr) {
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

/// The fields of owners as they stand in an object, each with a comma behind it.
///
/// A table with one place per owner, found by its numbers: another owner at the same place takes it
/// over, so nothing has to be cleaned up.
struct Owners {
    entries: Box<[Encoded]>,
}

#[derive(Clone, Default)]
struct Encoded {
    owner: Owner,
    json: Vec<u8>,
}

/// What makes the fields of an owner. It holds on to the context, so that no other can be at the same
/// address.
#[derive(Clone, Default)]
struct Owner {
    /// pid, tid, ppid, uid, gid.
    ids: [Option<u32>; 5],
    comm: Option<Comm>,
    context: Option<Arc<Context>>,
}

impl Owners {
    const BITS: u32 = 9;

    fn new() -> Self {
        Self {
            entries: vec![Encoded::default(); 1 << Self::BITS].into(),
        }
    }

    fn encoded(&mut self, event: &Event) -> &[u8] {
        let context = event.context.as_ref().map_or(0, |x| Arc::as_ptr(x) as u64);
        // Fibonacci hashing: addresses differ in their middle bits, threads in their last ones.
        let at = ((context >> 4) ^ u64::from(event.tid.unwrap_or(0)))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            >> (64 - Self::BITS);
        let entry = &mut self.entries[at as usize];
        if !entry.owner.is_of(event) {
            entry.owner = Owner::of(event);
            entry.json.clear();
            entry.owner.put(&mut entry.json);
        }
        &entry.json
    }
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owners").finish_non_exhaustive()
    }
}

impl Owner {
    fn of(event: &Event) -> Self {
        Self {
            ids: ids(event),
            comm: event.comm,
            context: event.context.clone(),
        }
    }

    fn is_of(&self, event: &Event) -> bool {
        self.ids == ids(event)
            && self.comm == event.comm
            && match (&self.context, &event.context) {
                (Some(mine), Some(its)) => Arc::ptr_eq(mine, its),
                (mine, its) => mine.is_none() && its.is_none(),
            }
    }

    fn put(&self, out: &mut Vec<u8>) {
        for (field, id) in [Field::Pid, Field::Tid, Field::Ppid, Field::Uid, Field::Gid]
            .into_iter()
            .zip(self.ids)
        {
            if let Some(id) = id {
                put_key(out, field.as_str());
                put_int(out, id);
                out.push(b',');
            }
        }
        if let Some(comm) = &self.comm {
            put_key(out, Field::Comm.as_str());
            put_text(out, &comm.text());
            out.push(b',');
        }
        if let Some(context) = &self.context {
            put_context(out, context);
        }
    }
}

fn ids(event: &Event) -> [Option<u32>; 5] {
    [event.pid, event.tid, event.ppid, event.uid, event.gid]
}

fn put_context(out: &mut Vec<u8>, context: &Context) {
    let text = |out: &mut Vec<u8>, field: Field, value: &Option<String>| {
        if let Some(value) = value {
            put_key(out, field.as_str());
            put_text(out, value);
            out.push(b',');
        }
    };
    text(out, Field::Exe, &context.exe);
    if let Some(args) = &context.args {
        put_key(out, Field::Args.as_str());
        list(out, args);
        out.push(b',');
    }
    text(out, Field::User, &context.user);
    if let Some(parents) = &context.parents {
        put_key(out, Field::Parents.as_str());
        peers(out, parents);
        out.push(b',');
    }
    text(out, Field::Cgroup, &context.cgroup);
    text(out, Field::Container, &context.container);
    text(out, Field::Unit, &context.unit);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::view::lines::samples;

    fn line(json: &mut Json, event: &Event) -> String {
        let mut out = Vec::new();
        json.event(&mut out, event);
        String::from_utf8(out).unwrap()
    }

    /// What a value is in JSON, by another way.
    fn expected(value: Value<'_>) -> serde_json::Value {
        let peer = |peer: &Peer| {
            let mut x = serde_json::json!({"pid": peer.pid, "comm": peer.comm});
            if let Some(sock) = peer.sock {
                x["sock"] = sock.into();
            }
            x
        };
        match value {
            Value::Time(ns) => {
                let time = jiff::Timestamp::from_nanosecond(ns.into()).unwrap();
                format!("{time:.9}").into()
            }
            Value::Int(number) => number.into(),
            Value::Text(text) => text.into_owned().into(),
            Value::Addr(addr) => addr.to_string().into(),
            Value::List(items) => items.into(),
            Value::Peers(peers) => peers.iter().map(peer).collect(),
        }
    }

    fn check(json: &mut Json, event: &Event, fields: &[Field]) -> Result<(), TestCaseError> {
        let text = line(json, event);
        prop_assert!(text.ends_with("}\n"), "{}", text);
        prop_assert_eq!(text.matches('\n').count(), 1);
        prop_assert!(
            text.trim_end()
                .chars()
                .all(|c| !c.is_control() && !is_deceptive(c))
        );
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
        let present: Vec<Field> = fields
            .iter()
            .copied()
            .filter(|&x| event.value(x).is_some())
            .collect();
        for &field in &present {
            let value = event.value(field).map(expected);
            prop_assert_eq!(object.get(field.as_str()), value.as_ref(), "{}", field);
        }
        prop_assert_eq!(object.len(), present.len(), "{}", text);
        // serde_json sorts the keys, so their order is looked up in the text
        let mut rest = text.as_str();
        for field in present {
            let key = format!("\"{field}\":");
            let at = rest.find(&key);
            prop_assert!(at.is_some(), "{} is not in its place in {}", field, text);
            rest = &rest[at.unwrap_or_default() + key.len()..];
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn an_object_holds_exactly_the_values_of_the_event(events in samples::events(1..4)) {
            let mut json = Json::new(None);
            // twice, so that encoded contexts are used again
            for event in events.iter().chain(&events) {
                check(&mut json, event, Field::ALL)?;
            }
        }

        #[test]
        fn fields_select_and_order(
            event in samples::event(),
            fields in proptest::sample::subsequence(Field::ALL.to_vec(), 0..8).prop_shuffle(),
        ) {
            let whole = event.kind == Kind::Lost;
            let shown = if whole { Field::ALL.to_vec() } else { fields.clone() };
            check(&mut Json::new(Some(fields)), &event, &shown)?;
        }
    }

    #[test]
    fn an_owner_that_takes_the_place_of_another_is_not_mistaken_for_it() {
        let mut json = Json::new(None);
        for i in 0..5000 {
            let mut event = Event::new(Kind::Bind, crate::event::Origin::Live, 0);
            event.context = Some(Arc::new(Context {
                exe: Some(format!("/bin/{i}")),
                ..Context::default()
            }));
            let text = line(&mut json, &event);
            assert!(text.contains(&format!("\"exe\":\"/bin/{i}\"")), "{text}");
        }
    }

    #[test]
    fn owners_that_differ_in_one_field_are_told_apart() {
        let mut event = Event::new(Kind::Bind, crate::event::Origin::Live, 0);
        event.context = Some(Arc::default());
        event.tid = Some(7);
        let changes: [fn(&mut Event); 7] = [
            |event| event.pid = Some(7),
            |event| event.ppid = Some(1),
            |event| event.uid = Some(0),
            |event| event.gid = Some(0),
            |event| event.comm = Some("a".into()),
            |event| event.comm = Some("b".into()),
            |event| event.context = None,
        ];
        let mut json = Json::new(None);
        for change in changes {
            change(&mut event);
            check(&mut json, &event, Field::ALL).unwrap();
        }
    }

    #[test]
    fn no_field_at_all_is_an_empty_object() {
        let event = Event::new(Kind::Bind, crate::event::Origin::Live, 0);
        assert_eq!(
            line(&mut Json::new(Some(vec![Field::Error])), &event),
            "{}\n"
        );
    }

    #[test]
    fn a_field_that_is_asked_for_twice_is_one_key() {
        let event = Event::new(Kind::Bind, crate::event::Origin::Live, 0);
        let fields = vec![Field::Event, Field::Origin, Field::Event];
        assert_eq!(
            line(&mut Json::new(Some(fields)), &event),
            "{\"event\":\"bind\",\"origin\":\"live\"}\n"
        );
    }
}
