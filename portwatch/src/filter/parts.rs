//! The tree of an expression.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr as Node};

/// What a node is made of.
pub fn parts(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Node::Unspecified | Node::Literal(_) | Node::Ident(_) => Vec::new(),
        Node::Select(select) => vec![&select.operand],
        Node::Call(call) => (call.target.as_deref().into_iter())
            .chain(&call.args)
            .collect(),
        Node::List(list) => list.elements.iter().collect(),
        Node::Map(map) => (map.entries.iter())
            .flat_map(|x| of_entry(&x.expr))
            .collect(),
        Node::Struct(x) => (x.entries.iter()).flat_map(|x| of_entry(&x.expr)).collect(),
        Node::Comprehension(x) => vec![
            &x.iter_range,
            &x.accu_init,
            &x.loop_cond,
            &x.loop_step,
            &x.result,
        ],
    }
}

fn of_entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}
