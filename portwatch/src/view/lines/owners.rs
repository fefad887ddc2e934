//! The fields of owners as they stand in a JSON object, each with a comma behind it: what all events of an
//! owner share is encoded once.

use std::sync::Arc;

use crate::event::{Comm, Context, Event, Field};
use crate::view::json::{list, peers, put_int, put_key, put_text};

/// A table with one place per owner, found by its numbers: another owner at the same place takes it
/// over, so nothing has to be cleaned up.
pub struct Owners {
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

    pub fn new() -> Self {
        Self {
            entries: vec![Encoded::default(); 1 << Self::BITS].into(),
        }
    }

    /// Those of this event's owner.
    pub fn encoded(&mut self, event: &Event) -> &[u8] {
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
