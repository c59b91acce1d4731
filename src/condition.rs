//! Conditions over a row change, in CEL (<https://cel.dev>): compiled once when the configuration is read, evaluated for
//! every change of their table.
//!
//! A condition knows `op` (`created`, `updated`, `deleted`), the rows `before` and `after`, and `changed`, the names of the
//! columns that differ. It reads nothing else, keeps nothing and waits for nothing, so the same change always gives the
//! same answer. Its failures never show a value: they go to logs.

mod reads;
mod value;

pub use reads::{Columns, Reads};
pub use value::from_json;

use cel::{Context, Env, ExecutionError, Program, Value};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
};

/// The longest condition, in bytes: its parser goes as deep as the text is nested.
const MAX_LENGTH: usize = 4096;

/// CEL's standard functions. Made once: declaring them is far dearer than evaluating.
static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled condition.
#[derive(Clone)]
pub struct Condition {
    text: String,
    program: Arc<Program>,
    reads: Reads,
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Condition({:?})", self.text)
    }
}

/// Why a text is not a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Line and column within the condition, from 1, where they are known.
    pub at: Option<(usize, usize)>,
    /// What is wrong there.
    pub what: String,
}

/// What a condition is asked about. A row is absent (`None`) where the change has none, and then reads as null.
#[derive(Debug, Default)]
pub struct Facts {
    /// What happened.
    pub op: &'static str,
    /// The old row, as far as the condition reads it and the log has it.
    pub before: Option<HashMap<String, Value>>,
    /// The new row, likewise.
    pub after: Option<HashMap<String, Value>>,
    /// The columns that differ, where that can be known.
    pub changed: Option<Vec<String>>,
}

impl Condition {
    /// Compiles a condition.
    ///
    /// # Errors
    /// It is no CEL, too long, or names something that a condition does not know.
    pub fn compile(text: &str) -> Result<Self, Malformed> {
        if text.len() > MAX_LENGTH {
            let what = format!("{} bytes are more than the {MAX_LENGTH} allowed", text.len());
            return Err(Malformed { at: None, what });
        }
        let program = Program::compile(text).map_err(|errors| {
            let Some(error) = errors.errors.first() else {
                return Malformed { at: None, what: "is no CEL expression".to_owned() };
            };
            let at = usize::try_from(error.pos.0).ok().zip(usize::try_from(error.pos.1).ok());
            Malformed { at: at.filter(|at| at.0 > 0), what: error.msg.clone() }
        })?;
        let reads = Reads::of(&program).map_err(|stranger| Malformed {
            at: program.source_info().offset_for(stranger.expression).map(|(from, _)| place(text, from)),
            what: format!("`{}` is unknown: a condition reads op, before, after and changed", stranger.name),
        })?;
        for function in program.references().functions() {
            if !is_function(function) {
                return Err(Malformed { at: None, what: format!("there is no function `{function}`") });
            }
        }
        Ok(Self { text: text.to_owned(), program: Arc::new(program), reads })
    }

    /// What it reads.
    #[must_use]
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Whether it holds for `facts`.
    ///
    /// What reads the old row of an insert or the new row of a delete does not hold: there is no such row.
    ///
    /// # Errors
    /// Why it could not be evaluated, without any value of the row.
    pub fn holds(&self, facts: Facts) -> Result<bool, String> {
        let Facts { op, before, after, changed } = facts;
        let missing =
            (op == "created" && self.reads.before.any()) || (op == "deleted" && self.reads.after.any());
        if op == "updated" && self.reads.before.any() && before.is_none() {
            return Err("the log holds no old row of this update".to_owned());
        }
        if self.reads.changed && changed.is_none() {
            return Err("the log does not hold the whole old row, so `changed` is not known".to_owned());
        }
        let mut context = Context::with_env(Arc::clone(&STANDARD));
        context.add_variable_from_value("op", op);
        context.add_variable_from_value("before", before.map_or(Value::Null, Value::from));
        context.add_variable_from_value("after", after.map_or(Value::Null, Value::from));
        context.add_variable_from_value("changed", changed.unwrap_or_default());
        // Rows are hostile input to the evaluator as to everything else: a defect in it must not stop the source.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.program.execute(&context)));
        match outcome {
            Ok(Ok(Value::Bool(holds))) => Ok(holds),
            Ok(Err(_)) if missing => Ok(false),
            Ok(Ok(other)) => Err(format!("it gives {}, not true or false", other.type_of())),
            Ok(Err(error)) => Err(reason(&error)),
            Err(_) => Err("its evaluation panicked; this is a defect of Headgate".to_owned()),
        }
    }
}

/// Line and column of a byte of `text`, from 1.
fn place(text: &str, at: u32) -> (usize, usize) {
    let before = text.get(..at as usize).unwrap_or(text);
    let line = 1 + before.matches('\n').count();
    (line, 1 + before.rsplit('\n').next().unwrap_or_default().chars().count())
}

/// Whether CEL has a function of this name, global or of a value. It knows only when it is asked to call it.
fn is_function(name: &str) -> bool {
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return true; // an operator
    }
    let context = Context::with_env(Arc::clone(&STANDARD));
    let knows = |call: String| {
        let outcome = Program::compile(&call).map(|program| program.execute(&context));
        !matches!(outcome, Ok(Err(ExecutionError::UndeclaredReference(_))) | Err(_))
    };
    knows(format!("{name}()")) || knows(format!("''.{name}()"))
}

/// An error of the evaluation without the values that it is about.
fn reason(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => {
            format!("the row has no `{key}` (no such column, or the log did not carry it)")
        }
        ExecutionError::NoSuchOverload(error) => error.to_string(),
        ExecutionError::UnexpectedType { got, want } => format!("found {got} where {want} is needed"),
        ExecutionError::UndeclaredReference(name) => format!("`{name}` is unknown"),
        ExecutionError::InvalidArgumentCount { expected, actual } => {
            format!("a function takes {expected} arguments and got {actual}")
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            format!("{operator} does not take {} and {}", left.type_of(), right.type_of())
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("{} and {} cannot be compared", left.type_of(), right.type_of())
        }
        ExecutionError::FunctionError { function, .. } => format!("{function}() cannot take the value"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number grew too large".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        _ => "a value has a type that this does not take".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn row(json: &str) -> Option<HashMap<String, Value>> {
        let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).unwrap();
        Some(row.into_iter().map(|(name, value)| (name, from_json(value))).collect())
    }

    fn asked(condition: &str, op: &'static str, before: &str, after: &str) -> Result<bool, String> {
        let image = |json: &str| if json.is_empty() { None } else { row(json) };
        let changed = (!before.is_empty()).then(|| vec!["stage".to_owned()]);
        let facts =
            Facts { op, before: image(before), after: image(after), changed: changed.or(Some(Vec::new())) };
        Condition::compile(condition).unwrap().holds(facts)
    }

    #[test]
    fn a_condition_reads_both_rows() {
        let (old, new) =
            (r#"{"stage":"lead","total":7,"price":"19.90"}"#, r#"{"stage":"won","total":9,"price":"20.00"}"#);
        for (condition, holds) in [
            ("before.stage != after.stage", true),
            ("after.total > before.total + 1", true),
            ("after.total > 8.5", true),
            ("op == 'updated' && 'stage' in changed", true),
            ("'total' in changed", false),
            ("after[\"stage\"].startsWith('w') && has(after.total)", true),
            ("double(after.price) >= 20.0", true),
            ("after.stage.matches('^w.n$')", true),
            ("['won', 'lost'].exists(stage, stage == after.stage)", true),
            ("before == null", false),
        ] {
            assert_eq!(asked(condition, "updated", old, new), Ok(holds), "{condition}");
        }
    }

    #[test]
    fn what_reads_a_row_that_cannot_be_there_does_not_hold() {
        let new = r#"{"stage":"won"}"#;
        assert_eq!(asked("before.stage != after.stage", "created", "", new), Ok(false));
        assert_eq!(asked("op == 'created' || before.stage != after.stage", "created", "", new), Ok(true));
        assert_eq!(asked("before == null && after.stage == 'won'", "created", "", new), Ok(true));
        assert_eq!(asked("after.stage == 'won'", "deleted", new, ""), Ok(false));
        assert!(
            asked("before.stage != after.stage", "updated", "", new).is_err(),
            "here the log is to blame"
        );
    }

    #[test]
    fn a_failure_says_why_and_shows_no_value() {
        let new = r#"{"stage":"s3cret","nothing":null,"total":1}"#;
        for (condition, expected) in [
            ("after.stgae == 'x'", "`stgae`"),
            ("after.stage > 5", "string"),
            ("int(after.stage) > 5", "int"),
            ("after.total / 0 == 1", "zero"),
            ("after.total", "gives int"),
            ("after.nothing > 5", "null"),
            ("after.stage[0] == 's'", "string"),
        ] {
            let reason = asked(condition, "created", "", new).unwrap_err();
            assert!(reason.contains(expected), "{condition}: {reason}");
            assert!(!reason.contains("s3cret"), "{condition}: {reason}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_with_its_place() {
        for (text, at) in [
            ("before.stage !=", Some((1, 16))),
            ("op == 'updated' &&\n  befor.stage == 'x'", Some((2, 3))),
            ("size(after.name, ) > 3 &", None),
        ] {
            let malformed = Condition::compile(text).unwrap_err();
            if at.is_some() {
                assert_eq!(malformed.at, at, "{text}: {malformed:?}");
            }
        }
        assert!(Condition::compile("after.name.startWith('x')").unwrap_err().what.contains("startWith"));
        assert!(Condition::compile(&"(".repeat(MAX_LENGTH + 1)).is_err());
    }

    #[test]
    fn it_knows_what_it_reads() {
        let reads = |text: &str| Condition::compile(text).unwrap().reads().clone();
        let read = reads("before.a != after['b'] && has(after.c) && op == 'updated'");
        assert_eq!(read.before, Columns::Named(["a".to_owned()].into()));
        assert_eq!(read.after, Columns::Named(["b".to_owned(), "c".to_owned()].into()));
        assert!(!read.changed);
        assert_eq!(reads("before != null && size(after) > 1").after, Columns::All);
        assert_eq!(reads("before != null").before, Columns::Named([].into()));
        assert_eq!(reads("changed.exists(after, after == 'x')").after, Columns::None, "a name of its own");
    }
}
