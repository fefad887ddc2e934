//! What is wrong with an expression whatever it is asked about, found before anything starts: parts
//! that fail, and comparisons of values that are never of one type.

use anyhow::{Result, bail};
use cel::common::ast::{Expr as Node, LiteralValue, operators};
use cel::{Context, ExecutionError, IdedExpr, Program, Value as Cel};

use super::names;
use super::parts::parts;
use super::types::Type;

/// An expression and a subject in which nothing is absent.
pub struct Check<'a> {
    pub source: &'a str,
    pub program: &'a Program,
    /// Resolves the names to the values of that subject.
    pub sample: &'a Context<'a, 'a>,
    /// Types of the names.
    pub types: &'a dyn Fn(&str) -> Option<Type>,
}

/// Names that are bound inside an expression (as `x` in `args.exists(x, …)` is), the innermost last.
type Bound<'a> = Vec<(&'a str, Option<Type>)>;

impl<'a> Check<'a> {
    /// # Errors
    /// When a part fails for every subject, or compares what can never be compared.
    pub fn run(&self) -> Result<()> {
        self.visit(self.program.expression(), &mut Vec::new())
    }

    /// Parts come before what they are parts of, so that an error is told of the smallest one.
    fn visit(&self, node: &'a IdedExpr, bound: &mut Bound<'a>) -> Result<()> {
        match &node.expr {
            Node::Unspecified | Node::Literal(_) | Node::Ident(_) => return Ok(()),
            Node::Comprehension(part) => {
                self.visit(&part.iter_range, bound)?;
                self.visit(&part.accu_init, bound)?;
                let element = match self.type_of(&part.iter_range, bound) {
                    Some(Type::List(of)) if part.iter_var2.is_none() => of.map(|x| *x),
                    _ => None,
                };
                let outside = bound.len();
                bound.push((&part.iter_var, element));
                bound.push((&part.accu_var, None));
                bound.extend(part.iter_var2.as_deref().map(|name| (name, None)));
                for inner in [&part.loop_cond, &part.loop_step, &part.result] {
                    self.visit(inner, bound)?;
                }
                bound.truncate(outside);
            }
            _ => {
                for part in parts(node) {
                    self.visit(part, bound)?;
                }
            }
        }
        self.comparison(node, bound)?;
        self.constant_argument(node)?;
        self.sampled(node, bound)
    }

    /// Evaluates a part for the sample, unless it depends on what is bound outside of it.
    fn sampled(&self, node: &IdedExpr, bound: &Bound<'_>) -> Result<()> {
        let names = names::free(node);
        if (names.iter()).any(|(_, name)| bound.iter().any(|(other, _)| name == other)) {
            return Ok(());
        }
        match self.sample.resolve(node) {
            // What has no names gives the same for all.
            Err(error) if names.is_empty() || !depends_on_data(&error) => {
                self.fail(node, &error.to_string())
            }
            _ => Ok(()),
        }
    }

    /// A pattern that is none, and a divisor of 0, fail whatever they are applied to.
    fn constant_argument(&self, node: &IdedExpr) -> Result<()> {
        let Node::Call(call) = &node.expr else {
            return Ok(());
        };
        let Some(last) = (call.args.last()).filter(|last| names::free(last).is_empty()) else {
            return Ok(());
        };
        let value = self.sample.resolve(last);
        match (call.func_name.as_str(), value) {
            ("matches", Ok(Cel::String(_))) => {
                let text = IdedExpr {
                    id: node.id,
                    expr: Node::Literal(LiteralValue::String("".into())),
                };
                let mut call = call.clone();
                match (&mut call.target, &mut call.args[..]) {
                    (Some(target), [_]) => **target = text,
                    (None, [first, _]) => *first = text,
                    _ => return Ok(()),
                }
                let call = IdedExpr {
                    id: node.id,
                    expr: Node::Call(call),
                };
                match self.sample.resolve(&call) {
                    Err(error) => self.fail(last, &error.to_string()),
                    Ok(_) => Ok(()),
                }
            }
            (operators::DIVIDE | operators::MODULO, Ok(Cel::Int(0) | Cel::UInt(0))) => {
                self.fail(last, "division by zero")
            }
            _ => Ok(()),
        }
    }

    fn comparison(&self, node: &IdedExpr, bound: &Bound<'_>) -> Result<()> {
        let Node::Call(call) = &node.expr else {
            return Ok(());
        };
        let [left, right] = &call.args[..] else {
            return Ok(());
        };
        let types = (self.type_of(left, bound), self.type_of(right, bound));
        let (a, b, problem) = match (call.func_name.as_str(), types) {
            (operators::IN, (Some(a), Some(Type::List(Some(b))))) => {
                let problem = format!("{a} in a list of {b}: it is never there");
                (a, *b, problem)
            }
            (operators::EQUALS | operators::NOT_EQUALS, (Some(a), Some(b))) => {
                let problem = format!("{a} compared with {b}: they are never equal");
                (a, b, problem)
            }
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                (Some(a), Some(b)),
            ) => {
                let problem = format!("{a} and {b} cannot be compared");
                (a, b, problem)
            }
            _ => return Ok(()),
        };
        let hint = match (&a, &b) {
            (Type::Timestamp, Type::String) | (Type::String, Type::Timestamp) => {
                "; write timestamp(\"…\")"
            }
            _ => "",
        };
        match a.is_alien_to(&b) {
            true => self.fail(node, &format!("{problem}{hint}")),
            false => Ok(()),
        }
    }

    fn type_of(&self, node: &IdedExpr, bound: &Bound<'_>) -> Option<Type> {
        match &node.expr {
            Node::Literal(value) => match value {
                LiteralValue::Boolean(_) => Some(Type::Bool),
                LiteralValue::Bytes(_) => Some(Type::Bytes),
                LiteralValue::Double(_) => Some(Type::Number("double")),
                LiteralValue::Int(_) => Some(Type::Number("int")),
                LiteralValue::UInt(_) => Some(Type::Number("uint")),
                LiteralValue::String(_) => Some(Type::String),
                LiteralValue::Null => None,
            },
            Node::Ident(name) => match bound.iter().rev().find(|(other, _)| name == other) {
                Some((_, bound)) => bound.clone(),
                None => (self.types)(name),
            },
            Node::Select(select) if select.test => Some(Type::Bool),
            Node::Select(select) => {
                let of = self.type_of(&select.operand, bound)?;
                match (of, select.field.as_str()) {
                    (Type::Process, "pid" | "sock") => Some(Type::Number("int")),
                    (Type::Process, "comm") => Some(Type::String),
                    _ => None,
                }
            }
            Node::List(list) => {
                let mut types = list.elements.iter().map(|x| self.type_of(x, bound));
                let first = types.next().flatten();
                let same = types.all(|x| x == first);
                Some(Type::List(first.filter(|_| same).map(Box::new)))
            }
            Node::Call(call) => match call.func_name.as_str() {
                "size" | "int" => Some(Type::Number("int")),
                "string" => Some(Type::String),
                "timestamp" => Some(Type::Timestamp),
                operators::INDEX => match self.type_of(call.args.first()?, bound)? {
                    Type::List(of) => of.map(|x| *x),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }

    fn fail(&self, node: &IdedExpr, message: &str) -> Result<()> {
        bail!(
            "{}",
            names::point_to(self.source, self.program, node.id, message)
        )
    }
}

/// Whether others may well not have this error.
fn depends_on_data(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::NoSuchKey(_)
            | ExecutionError::DivisionByZero(_)
            | ExecutionError::RemainderByZero(_)
            | ExecutionError::Overflow(..)
            | ExecutionError::IndexOutOfBounds(_)
            | ExecutionError::FunctionError { .. }
    )
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use crate::event::Event;
    use crate::filter::Expr;

    #[test]
    fn what_is_right_for_some_events_is_accepted() {
        for source in [
            r#"comm.matches("^[a-z]+$")"#,
            // the pattern is a name of the event
            r#""abc".matches(comm)"#,
            "1000 / lport > 3",
            "lport / 2 == 40",
            r#"int(comm) > 3"#,
            r#"args[7] == "x""#,
            r#"size(args) > 7 && args[7].startsWith("x")"#,
            r#"error == null || error == "EACCES""#,
            "holders != null && holders[0].sock == 1",
            "lport == 80.0",
            "lport == 80u",
            "lport in [80, 443]",
            r#"lport in [80, "443"]"#,
            r#""x" in args"#,
            r#"comm in ["nginx", "apache2"]"#,
            r#"args == []"#,
            r#"args == ["x", "y"]"#,
            r#"parents.exists(p, p.comm == "x" && p.pid != 1)"#,
            r#"args.exists(pid, pid == "x")"#,
            r#"args.map(a, size(a)).exists(n, n == 3)"#,
            r#"type(error) == string"#,
            r#"(error != null ? error : 0) == 0"#,
            r#"string(lport) == "80""#,
            r#"lport == int("80")"#,
            r#"has(parents[0].comm) == true"#,
            r#"ts > timestamp("2023-01-01T00:00:00Z")"#,
            "[1, 2].exists(x, x == lport)",
        ] {
            if let Err(error) = Expr::new::<Event>(source) {
                panic!("{source}: {error}");
            }
        }
    }

    fn refused(source: &str, expected: Expect) {
        let error = Expr::new::<Event>(source).expect_err(source);
        expected.assert_eq(&error.to_string());
    }

    #[test]
    fn what_fails_for_every_event_is_refused() {
        refused(
            r#"comm.matches("[")"#,
            expect![[r#"
            column 14: Error executing function 'matches': '[' not a valid regex:
            regex parse error:
                [
                ^
            error: unclosed character class
              comm.matches("[")
                           ^"#]],
        );
        refused(
            r#"event == "bind" && matches(comm, "(")"#,
            expect![[r#"
            column 34: Error executing function 'matches': '(' not a valid regex:
            regex parse error:
                (
                ^
            error: unclosed group
              event == "bind" && matches(comm, "(")
                                               ^"#]],
        );
        refused(
            "1/0 == 1",
            expect![[r#"
            column 3: division by zero
              1/0 == 1
                ^"#]],
        );
        refused(
            r#"event == "bind" && lport % (2 - 2) == 1"#,
            expect![[r#"
            column 31: division by zero
              event == "bind" && lport % (2 - 2) == 1
                                            ^"#]],
        );
        refused(
            r#"ts > timestamp("yesterday")"#,
            expect![[r#"
            column 15: Error executing function 'timestamp': premature end of input
              ts > timestamp("yesterday")
                            ^"#]],
        );
        refused(
            "args.exists(a, size(a) / 0 == 1)",
            expect![[r#"
            column 26: division by zero
              args.exists(a, size(a) / 0 == 1)
                                       ^"#]],
        );
        refused(
            r#"event == "bind" && comm.startsWith(1)"#,
            expect![[r#"
            column 35: found no matching overload for 'startsWith' applied to 'string.(int)'
              event == "bind" && comm.startsWith(1)
                                                ^"#]],
        );
    }

    #[test]
    fn what_is_never_of_one_type_is_refused() {
        refused(
            r#"uid == "root""#,
            expect![[r#"
            column 5: int compared with string: they are never equal
              uid == "root"
                  ^"#]],
        );
        refused(
            r#"event == "bind" && error != 13"#,
            expect![[r#"
            column 26: string compared with int: they are never equal
              event == "bind" && error != 13
                                       ^"#]],
        );
        refused(
            r#"lport in ["80", "443"]"#,
            expect![[r#"
            column 7: int in a list of string: it is never there
              lport in ["80", "443"]
                    ^"#]],
        );
        refused(
            "80 in args",
            expect![[r#"
            column 4: int in a list of string: it is never there
              80 in args
                 ^"#]],
        );
        refused(
            r#"args.exists(a, a == 80)"#,
            expect![[r#"
            column 18: string compared with int: they are never equal
              args.exists(a, a == 80)
                               ^"#]],
        );
        refused(
            r#"parents.exists(p, p.pid == "1")"#,
            expect![[r#"
            column 25: int compared with string: they are never equal
              parents.exists(p, p.pid == "1")
                                      ^"#]],
        );
        refused(
            r#"parents[0].comm == 1"#,
            expect![[r#"
            column 17: string compared with int: they are never equal
              parents[0].comm == 1
                              ^"#]],
        );
        refused(
            r#"ts > "2023-01-01T00:00:00Z""#,
            expect![[r#"
                column 4: timestamp and string cannot be compared; write timestamp("…")
                  ts > "2023-01-01T00:00:00Z"
                     ^"#]],
        );
        refused(
            r#"args == ["x", 1] || args == [1]"#,
            expect![[r#"
            column 26: list compared with list: they are never equal
              args == ["x", 1] || args == [1]
                                       ^"#]],
        );
        refused(
            "size(args) == true",
            expect![[r#"
            column 12: int compared with bool: they are never equal
              size(args) == true
                         ^"#]],
        );
    }
}
