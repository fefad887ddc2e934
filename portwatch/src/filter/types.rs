//! Types of the values in an expression.

use crate::event::Value;

/// Of a value, as far as it can be told without one.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    Bool,
    /// Int, uint and double: they compare with each other.
    Number(&'static str),
    String,
    Bytes,
    Timestamp,
    /// Of these, where they are of one type.
    List(Option<Box<Type>>),
    /// A process of `parents` or `holders`.
    Process,
}

impl Type {
    pub fn of(value: &Value<'_>) -> Self {
        let list = |of: Type| Type::List(Some(Box::new(of)));
        match value {
            Value::Time(_) => Type::Timestamp,
            Value::Int(_) => Type::Number("int"),
            Value::Text(_) | Value::Addr(_) => Type::String,
            Value::List(_) => list(Type::String),
            Value::Peers(_) => list(Type::Process),
        }
    }

    /// Whether values of the two are never equal, nor one less than the other.
    pub fn is_alien_to(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Number(_), Type::Number(_)) => false,
            (Type::List(Some(a)), Type::List(Some(b))) => a.is_alien_to(b),
            (Type::List(_), Type::List(_)) => false,
            (a, b) => a != b,
        }
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Type::Bool => "bool",
            Type::Number(name) => name,
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "timestamp",
            Type::List(_) => "list",
            Type::Process => "map",
        })
    }
}
