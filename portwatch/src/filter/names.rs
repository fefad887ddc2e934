//! The names that a filter expression uses, checked against the schema before anything starts.

use anyhow::{Result, bail};
use cel::common::ast::Expr as Node;
use cel::{IdedExpr, Program};

use super::parts::parts;
use crate::row::Column;

/// Those of the columns that an expression names, each once.
///
/// # Errors
/// When it names what is neither one of the columns nor bound inside the expression.
pub fn used(source: &str, program: &Program, columns: &[Column]) -> Result<Vec<Column>> {
    // Names of types are names too: `type(error) == string`.
    const TYPES: [&str; 10] = [
        "bool",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "null_type",
        "type",
    ];
    let mut used = Vec::new();
    for (id, name) in free(program.expression()) {
        match columns.iter().find(|column| column.as_str() == name) {
            Some(column) if !used.contains(column) => used.push(*column),
            Some(_) => {}
            None if TYPES.contains(&name) => {}
            None => {
                let names: Vec<&str> = columns.iter().map(|x| x.as_str()).collect();
                bail!(
                    "{}\nthe names are: {}",
                    point_to(source, program, id, &format!("no name '{name}'")),
                    names.join(", ")
                );
            }
        }
    }
    Ok(used)
}

/// The names in an expression that are not bound inside it, with the numbers of their nodes.
pub fn free(node: &IdedExpr) -> Vec<(u64, &str)> {
    let mut free = Vec::new();
    collect(node, &mut Vec::new(), &mut free);
    free
}

/// Appends the names that are not bound inside the expression (as `x` in `args.exists(x, …)` is).
fn collect<'a>(node: &'a IdedExpr, bound: &mut Vec<&'a str>, free: &mut Vec<(u64, &'a str)>) {
    match &node.expr {
        Node::Ident(name) => {
            let name = name.as_str();
            if !bound.contains(&name) {
                free.push((node.id, name));
            }
        }
        Node::Comprehension(loop_) => {
            collect(&loop_.iter_range, bound, free);
            collect(&loop_.accu_init, bound, free);
            let outside = bound.len();
            bound.extend([loop_.iter_var.as_str(), loop_.accu_var.as_str()]);
            bound.extend(loop_.iter_var2.as_deref());
            for part in [&loop_.loop_cond, &loop_.loop_step, &loop_.result] {
                collect(part, bound, free);
            }
            bound.truncate(outside);
        }
        _ => (parts(node).into_iter()).for_each(|part| collect(part, bound, free)),
    }
}

/// A message with the place of a node, by its number.
pub fn point_to(source: &str, program: &Program, id: u64, message: &str) -> String {
    let offset = program.source_info().offset_for(id);
    let start = offset.map_or(0, |(start, _)| start);
    let before = source.get(..start as usize).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    point_at(source, line as isize, column as isize, message)
}

/// A message with the place in the expression that it is about. Line and column count from 1.
pub fn point_at(source: &str, line: isize, column: isize, message: &str) -> String {
    let column = usize::try_from(column).unwrap_or(1).max(1);
    let text = usize::try_from(line - 1)
        .ok()
        .and_then(|line| source.lines().nth(line));
    let indent = " ".repeat(column - 1);
    format!(
        "column {column}: {message}\n  {}\n  {indent}^",
        text.unwrap_or(source)
    )
}
