//! From the text of an expression to a program. The parser goes as deep as what it reads, and so does
//! everything that is done with a program, until it is dropped: neither may be more than a stack holds.

use anyhow::{Context as _, Result, anyhow, bail};
use cel::Program;

use super::names;
use super::parts::parts;

/// Longest text, in bytes: some 200 comparisons.
const LONGEST: usize = 4096;
/// Most levels of a program. Each takes up to 40 KiB of stack where nothing is optimized, and the
/// stacks of threads have 2 MiB.
const DEEPEST: usize = 32;
/// For the parser, with what it makes of the longest text: there each parenthesis, of which it allows
/// 96, takes 160 KiB, and each operator 2 KiB.
const STACK: usize = 32 << 20;

/// # Errors
/// When it is no expression (with the position), too long, or nested too deeply.
pub fn parse(source: &str) -> Result<Program> {
    if source.len() > LONGEST {
        bail!(
            "the expression has {} bytes, more than {LONGEST}",
            source.len()
        );
    }
    std::thread::scope(|scope| {
        let parser = std::thread::Builder::new().stack_size(STACK);
        let parser = parser.spawn_scoped(scope, || within_bounds(source));
        let program = parser.context("a thread for the parser")?.join();
        program.map_err(|_| anyhow!("the parser failed on '{source}'"))?
    })
}

fn within_bounds(source: &str) -> Result<Program> {
    let program = Program::compile(source).map_err(|errors| match errors.errors.first() {
        Some(error) => {
            let (line, column) = error.pos;
            anyhow!(names::point_at(source, line, column, in_words(&error.msg)))
        }
        None => anyhow!("'{source}': {errors}"),
    })?;
    let mut nodes = vec![(program.expression(), 1)];
    while let Some((node, level)) = nodes.pop() {
        if level > DEEPEST {
            bail!(
                "{}",
                names::point_to(source, &program, node.id, "nested too deeply")
            );
        }
        nodes.extend(parts(node).into_iter().map(|part| (part, level + 1)));
    }
    Ok(program)
}

/// Some messages of the parser are about its own insides.
fn in_words(message: &str) -> &str {
    match message {
        _ if message.contains("Recursion limit") => "nested too deeply",
        _ if message.contains("`_?_:_`") => "? without its two values: CONDITION ? THIS : THAT",
        _ if message.starts_with("Incomplete ") || message.starts_with("No `") => {
            "the expression is incomplete"
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use crate::event::Event;
    use crate::filter::{Expr, Subject as _};

    fn refused(source: &str, expected: Expect) {
        let error = Expr::new::<Event>(source).unwrap_err().to_string();
        expected.assert_eq(error.lines().next().unwrap());
    }

    #[test]
    fn what_is_nested_too_deeply_is_refused() {
        for (link, times) in [("+1", 2000), (".x", 2000), ("[0]", 1300), ("<1", 2000)] {
            let source = format!("lport{}", link.repeat(times));
            let error = Expr::new::<Event>(&source).unwrap_err().to_string();
            assert!(error.contains("nested too deeply"), "{link}: {error}");
        }
        let source = format!("{}true{}", "(".repeat(2000), ")".repeat(2000));
        refused(&source, expect!["column 97: nested too deeply"]);
        let source = format!("{}true{}", "args.exists(a, ".repeat(20), ")".repeat(20));
        refused(&source, expect!["column 252: nested too deeply"]);
    }

    #[test]
    fn what_is_long_but_not_deep_is_accepted() {
        let mut source = "lport == 1".to_owned();
        while source.len() < 4000 {
            source += " || lport == 1";
        }
        assert!(
            Expr::new::<Event>(&source)
                .unwrap()
                .matches(&Event::sample())
        );
        refused(
            &source.repeat(2),
            expect!["the expression has 8000 bytes, more than 4096"],
        );
    }

    #[test]
    fn what_is_incomplete_is_told_in_words() {
        refused(
            "true ? false",
            expect!["column 1: ? without its two values: CONDITION ? THIS : THAT"],
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_expression_takes_more_than_the_stack(
            parts in prop::collection::vec(
                prop::sample::select(&[
                    "lport", "comm", "args", "1", "\"x\"", "true", "null", "(", ")", "[", "]", "{", "}",
                    "!", "-", "+", "*", "/", "==", "<", "in", "&&", "||", "?", ":", ",", ".", ".x", "[0]",
                    ".exists(a, ", ".map(a, a)", "size(", ".matches(",
                ][..]),
                1..8,
            ),
            times in 1..300_usize,
        ) {
            let source = parts.concat().repeat(times);
            if let Ok(expr) = Expr::new::<Event>(&source) {
                expr.matches(&Event::sample());
            }
        }
    }
}
