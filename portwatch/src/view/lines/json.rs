//! Events as JSON, one object a line. On the path of every event of a busy machine, so it is
//! written by hand, and what all events of an owner share is encoded once.

use super::owners::Owners;
use crate::event::{Event, Field, Kind};
use crate::view::json::{once, peers, put_addr, put_int, put_key, put_text, put_value};
use crate::view::time::Utc;

/// Writes objects with all fields, or with some in a given order.
#[derive(Debug)]
pub struct Json {
    fields: Option<Vec<Field>>,
    time: Utc,
    owners: Owners,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::event::{Context, Peer, Value};
    use crate::sanitize::is_deceptive;
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
