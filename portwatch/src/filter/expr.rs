//! `--filter EXPR`: a CEL expression over the names of the schema, about events or about rows.
//!
//! An absent value is null. Comparing it for order, or calling something on it, gives neither true
//! nor false, and such an event is not shown, as in SQL; `&&`, `||` and `!` go on from there as CEL
//! has it. So `lport > 1024 && comm == "nginx"` needs no test for presence.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use anyhow::{Result, bail};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Program, Value as Cel};

use super::check::Check;
use super::names;
use super::parse::parse;
use super::subject::Subject;
use super::types::Type;

use crate::event::{Peer, Value};
use crate::row::Column;
use crate::sanitize;

/// A compiled expression, and what went wrong while it ran.
pub struct Expr {
    source: String,
    program: Program,
    context: Context<'static, 'static>,
    /// Names that it uses.
    used: Vec<Column>,
    mismatches: Cell<u64>,
    first_mismatch: RefCell<Option<String>>,
}

impl Expr {
    /// Compiles an expression about events or rows and tries it on one that has every value.
    ///
    /// # Errors
    /// When it does not parse (with the position), is nested too deeply, names what is not in the
    /// schema, or is not a yes-or-no question about its subject.
    pub fn new<S: Subject>(source: &str) -> Result<Self> {
        Self::among::<S>(source, &S::columns())
    }

    /// The same with only some of the names.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn among<S: Subject>(source: &str, columns: &[Column]) -> Result<Self> {
        if source.trim().is_empty() {
            bail!("the expression is empty; an example: lport < 1024 && uid != 0");
        }
        let program = parse(source)?;
        let used = names::used(source, &program, columns)?;
        let expr = Self {
            source: source.to_owned(),
            program,
            context: Context::default(),
            used,
            mismatches: Cell::new(0),
            first_mismatch: RefCell::new(None),
        };
        let sample = S::sample();
        let types = |name: &str| {
            let column = expr.used.iter().find(|x| x.as_str() == name)?;
            sample.value(*column).as_ref().map(Type::of)
        };
        let given = expr.with_values_of(&sample, |scope| {
            let check = Check {
                source,
                program: &expr.program,
                sample: scope,
                types: &types,
            };
            check.run()?;
            // What fails here may well not for others, as all that always fails is found above.
            Ok::<_, anyhow::Error>(expr.program.execute(scope).ok())
        })?;
        match given {
            Some(Cel::Bool(_)) | None => Ok(expr),
            Some(other) => bail!(
                "'{source}' gives {}, not true or false: compare it with something",
                kind_of(&other)
            ),
        }
    }

    pub fn matches(&self, subject: &impl Subject) -> bool {
        let value = self.with_values_of(subject, |scope| self.program.execute(scope));
        let problem = match value {
            Ok(Cel::Bool(matches)) => return matches,
            Ok(other) => format!("it gave {}, not true or false", kind_of(&other)),
            Err(error) => error.to_string(),
        };
        if self
            .used
            .iter()
            .all(|&column| subject.value(column).is_some())
        {
            self.mismatches.set(self.mismatches.get() + 1);
            self.first_mismatch.borrow_mut().get_or_insert(problem);
        }
        false
    }

    /// What to tell at the end: how often it could not be evaluated, and why.
    pub fn complaint(&self) -> Option<String> {
        let reason = self.first_mismatch.borrow();
        // It may quote what came from outside.
        let reason = sanitize::text(reason.as_deref()?.as_bytes());
        let times = match self.mismatches.get() {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        Some(format!(
            "--filter '{}' could not be evaluated {times}, and nothing was shown then: {reason}",
            self.source,
        ))
    }

    /// Calls `f` with a scope in which names stand for the values of the subject.
    fn with_values_of<S: Subject, T>(&self, subject: &S, f: impl FnOnce(&Context) -> T) -> T {
        let variables = Variables {
            subject,
            columns: &self.used,
        };
        let mut scope = self.context.new_inner_scope();
        scope.set_variable_resolver(&variables);
        f(&scope)
    }
}

impl std::fmt::Debug for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expr").field(&self.source).finish()
    }
}

/// Values by name.
struct Variables<'a, S> {
    subject: &'a S,
    columns: &'a [Column],
}

impl<S: Subject> VariableResolver for Variables<'_, S> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let column = self.columns.iter().find(|x| x.as_str() == name)?;
        let value = self.subject.value(*column).map_or(Cel::Null, to_cel);
        let value: Box<dyn Val> = value.try_into().ok()?;
        Some(CowVal::Owned(value))
    }
}

fn to_cel(value: Value<'_>) -> Cel {
    match value {
        Value::Time(ns) => chrono::DateTime::from_timestamp(
            (ns / 1_000_000_000) as i64,
            (ns % 1_000_000_000) as u32,
        )
        .map_or(Cel::Null, |time| Cel::Timestamp(time.fixed_offset())),
        // CEL's plain numbers are signed; only a cookie or a count beyond 2^63 would not fit.
        Value::Int(number) => Cel::Int(i64::try_from(number).unwrap_or(i64::MAX)),
        Value::Text(text) => text.as_ref().into(),
        Value::Addr(addr) => addr.to_string().into(),
        Value::List(list) => list.iter().map(String::as_str).collect::<Vec<_>>().into(),
        Value::Peers(peers) => peers.iter().map(peer_to_cel).collect::<Vec<_>>().into(),
    }
}

fn peer_to_cel(peer: &Peer) -> Cel {
    let mut map: HashMap<&str, Cel> = HashMap::new();
    map.insert("pid", i64::from(peer.pid).into());
    map.insert("comm", peer.comm.as_str().into());
    if let Some(sock) = peer.sock {
        map.insert("sock", i64::try_from(sock).unwrap_or(i64::MAX).into());
    }
    map.into()
}

fn kind_of(value: &Cel) -> String {
    match value {
        Cel::Null => "nothing".to_owned(),
        other => format!("a value of type {}", other.type_of()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use std::sync::Arc;

    use super::*;
    use crate::event::{self, Event, Kind, Origin};
    use crate::row::Row;

    fn rejected(source: &str, expected: Expect) {
        expected.assert_eq(
            &Expr::new::<Event>(source)
                .expect_err("should be rejected")
                .to_string(),
        );
    }

    fn event() -> Event {
        let mut event = Event::new(Kind::Connect, Origin::Live, 1_700_000_000_000_000_000);
        event.lport = Some(8080);
        event.comm = Event::sample().comm;
        event.error = Some(libc::EADDRINUSE as u16);
        event.context = Some(Arc::new(event::Context {
            args: Some(["serve".into(), "--debug".into()].into()),
            parents: Event::sample().context.and_then(|x| x.parents.clone()),
            ..Default::default()
        }));
        event
    }

    #[test]
    fn events_are_judged_without_tests_for_presence() {
        for (source, expected) in [
            (r#"error == "EADDRINUSE""#, true),
            (r#"error != "EADDRINUSE""#, false),
            ("lport > 1024", true),
            (r#"lport > 1024 && comm.startsWith("x")"#, true),
            (r#"lport in [80, 8080]"#, true),
            ("lport == 8080.0 && lport == 8080u && lport < 8080.5", true),
            (r#""--debug" in args"#, true),
            (r#"args.exists(a, a.startsWith("--"))"#, true),
            (r#"parents.exists(p, p.comm == "x")"#, true),
            (r#"event == "connect""#, true),
            (r#"ts > timestamp("2023-01-01T00:00:00Z")"#, true),
            (r#"comm.matches("^x+$")"#, true),
            // absent values
            ("latency_us > 100", false),
            ("latency_us < 100", false),
            ("!(latency_us < 100)", false),
            ("latency_us == null", true),
            ("error != null", true),
            (r#"cause == "local""#, false),
            (r#"!(cause == "local")"#, true),
            (r#"!(cause in ["local"])"#, true),
            (r#"!cause.startsWith("l")"#, false),
            ("latency_us > 100 || lport == 8080", true),
            ("latency_us > 100 && lport == 8080", false),
            ("size(holders) > 0", false),
        ] {
            let expr =
                Expr::new::<Event>(source).unwrap_or_else(|error| panic!("{source}: {error}"));
            assert_eq!(expr.matches(&event()), expected, "{source}");
            assert_eq!(expr.complaint(), None, "{source}");
        }
    }

    #[test]
    fn a_row_is_judged_by_its_state_too() {
        let row = Row::sample();
        for (source, expected) in [
            (r#"state == "LISTEN""#, true),
            (r#"state == "ESTAB" || lport != 1"#, false),
            ("recv_queue < send_queue", false),
        ] {
            let expr = Expr::new::<Row>(source).unwrap();
            assert_eq!(expr.matches(&row), expected, "{source}");
        }
        let error = Expr::new::<Row>("latency_us > 1").unwrap_err().to_string();
        assert!(error.contains("no name 'latency_us'"), "{error}");
        let error = Expr::new::<Event>("state > 1").unwrap_err().to_string();
        assert!(error.contains("no name 'state'"), "{error}");
    }

    #[test]
    fn an_error_in_evaluation_is_counted_and_told() {
        let expr = Expr::new::<Event>(r#"args[7] == "x""#).unwrap();
        assert!(!expr.matches(&event()));
        assert!(!expr.matches(&event()));
        expect![[r#"--filter 'args[7] == "x"' could not be evaluated 2 times, and nothing was shown then: Index out of bounds: Int(7)"#]].assert_eq(&expr.complaint().unwrap());
    }

    #[test]
    fn a_bad_expression_is_rejected_with_its_place() {
        rejected(
            "lport >",
            expect![[r#"
            column 8: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}
              lport >
                     ^"#]],
        );
        rejected(
            "lport > 80 &&& pid == 1",
            expect![[r#"
            column 14: Syntax error: token recognition error at: '& '
              lport > 80 &&& pid == 1
                           ^"#]],
        );
        rejected(
            "",
            expect!["the expression is empty; an example: lport < 1024 && uid != 0"],
        );
        rejected(
            "dport == 80",
            expect![[r#"
            column 1: no name 'dport'
              dport == 80
              ^
            the names are: ts, event, origin, proto, family, laddr, lport, raddr, rport, sock, netns, pid, tid, ppid, uid, gid, comm, exe, args, user, parents, cgroup, container, unit, error, backlog, latency_us, duration_us, rx_bytes, tx_bytes, rtt_us, retrans, accepted, cause, reason, holders, count, service"#]],
        );
        rejected(
            "lport",
            expect![
                "'lport' gives a value of type int, not true or false: compare it with something"
            ],
        );
        rejected(
            r#"lport > "80""#,
            expect![[r#"
                column 7: int and string cannot be compared
                  lport > "80"
                        ^"#]],
        );
        rejected(
            "nosuch(lport)",
            expect![[r#"
                column 7: Undeclared reference to 'nosuch'
                  nosuch(lport)
                        ^"#]],
        );
        rejected(
            "args.exists(a, b == a)",
            expect![[r#"
            column 16: no name 'b'
              args.exists(a, b == a)
                             ^
            the names are: ts, event, origin, proto, family, laddr, lport, raddr, rport, sock, netns, pid, tid, ppid, uid, gid, comm, exe, args, user, parents, cgroup, container, unit, error, backlog, latency_us, duration_us, rx_bytes, tx_bytes, rtt_us, retrans, accepted, cause, reason, holders, count, service"#]],
        );
    }
}
