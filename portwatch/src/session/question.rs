//! Questions in SQL: one statement, which can do nothing but read this session.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, Error, ErrorCode, Statement};

use crate::sanitize;

/// Functions of SQLite that reach beyond the session.
const REFUSED: [&str; 2] = ["load_extension", "fts3_tokenizer"];
/// Pragmas that only tell what there is.
const TELLING: [&str; 5] = [
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
];

/// Why a question was not answered.
#[derive(Debug)]
pub enum Refusal {
    /// It is none; a sentence without a full stop.
    Wrong(String),
    /// The user broke it off.
    Interrupted,
    Failed(Error),
}

/// Steps of SQLite between two looks at whether to go on: well below a millisecond.
const STEPS: i32 = 10_000;

/// Opens a session for questions, and nothing else. An answer is broken off once `stop` is true.
///
/// # Errors
/// When it is none, or of a newer version.
pub fn open(path: &Path, stop: Arc<AtomicBool>) -> Result<Connection> {
    let mut db = super::file::readable(path)?;
    db.authorizer(Some(authorize))?;
    db.progress_handler(STEPS, Some(move || stop.load(Ordering::Relaxed)))?;
    Ok(db)
}

/// Prepares a question.
///
/// # Errors
/// When the SQL is wrong, is more than one statement, or would do more than read.
pub fn prepare<'db>(db: &'db Connection, sql: &str) -> Result<Statement<'db>, Refusal> {
    let statement = db.prepare(sql).map_err(|error| refusal(db, error))?;
    // What no authorizer is asked about, such as VACUUM INTO.
    if !statement.readonly() || statement.column_count() == 0 {
        return Err(Refusal::Wrong(ONLY_READS.to_owned()));
    }
    if statement.parameter_count() > 0 {
        let text = "a question has no parameters: write the value instead of ? or :name";
        return Err(Refusal::Wrong(text.to_owned()));
    }
    Ok(statement)
}

const ONLY_READS: &str =
    "a question reads this session and does nothing else: write SELECT, WITH, VALUES or EXPLAIN";

fn authorize(context: AuthContext<'_>) -> Authorization {
    let allowed = match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => !REFUSED
            .iter()
            .any(|x| function_name.eq_ignore_ascii_case(x)),
        AuthAction::Pragma { pragma_name, .. } => {
            TELLING.iter().any(|x| pragma_name.eq_ignore_ascii_case(x))
        }
        _ => false,
    };
    match allowed {
        true => Authorization::Allow,
        false => Authorization::Deny,
    }
}

/// What an error of SQLite says of the question.
pub fn refusal(db: &Connection, error: Error) -> Refusal {
    let code = error.sqlite_error_code();
    match error {
        Error::SqlInputError {
            msg, sql, offset, ..
        } => Refusal::Wrong(at(db, &msg, &sql, offset)),
        Error::MultipleStatement => Refusal::Wrong("only one statement at a time".to_owned()),
        Error::Empty => Refusal::Wrong("there is no SQL in it".to_owned()),
        Error::NulError(_) => Refusal::Wrong("SQL has no NUL in it".to_owned()),
        _ if code == Some(ErrorCode::OperationInterrupted) => Refusal::Interrupted,
        _ if code == Some(ErrorCode::AuthorizationForStatementDenied) => {
            Refusal::Wrong(ONLY_READS.to_owned())
        }
        Error::SqliteFailure(failure, text) => match failure.code {
            // Of the statement, not of the file.
            ErrorCode::Unknown | ErrorCode::TooBig | ErrorCode::TypeMismatch => {
                let text = text.unwrap_or_else(|| failure.to_string());
                Refusal::Wrong(format!(
                    "{}{}",
                    sanitize::text(text.as_bytes()),
                    hint(db, &text)
                ))
            }
            _ => Refusal::Failed(Error::SqliteFailure(failure, text)),
        },
        error => Refusal::Failed(error),
    }
}

/// The message, where in the SQL that is, and what would help.
fn at(db: &Connection, message: &str, sql: &str, offset: i32) -> String {
    let offset = usize::try_from(offset).unwrap_or(0);
    let (before, from) = sql.split_at_checked(offset).unwrap_or(("", sql));
    let shown: String = from.chars().take(24).collect();
    let more = if from.chars().nth(24).is_some() {
        "…"
    } else {
        ""
    };
    let number = before.chars().count() + 1;
    format!(
        "{}, at character {number}: {}{more}{}",
        sanitize::text(message.as_bytes()),
        sanitize::text(shown.as_bytes()),
        hint(db, message)
    )
}

fn hint(db: &Connection, message: &str) -> String {
    if !message.starts_with("no such table") && !message.starts_with("no such column") {
        return String::new();
    }
    let views = views(db).unwrap_or_default();
    let names: Vec<String> = views.into_iter().map(|(name, _)| name).collect();
    let names = names.join(", ");
    format!(
        "\nViews are: {}; --schema lists their columns",
        sanitize::text(names.as_bytes())
    )
}

/// The views with the names of their columns.
///
/// # Errors
/// When the file is damaged.
pub fn views(db: &Connection) -> rusqlite::Result<Vec<(String, Vec<String>)>> {
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY rowid";
    let mut statement = db.prepare(sql)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut columns = db.prepare("SELECT name FROM pragma_table_info(?)")?;
    let mut views = Vec::new();
    for name in names {
        let name = name?;
        let of_view = columns.query_map([&name], |row| row.get(0))?;
        let of_view = of_view.collect::<rusqlite::Result<_>>()?;
        views.push((name, of_view));
    }
    Ok(views)
}
