//! Panic isolation: a panic while a row is answered becomes the error of that row.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::rows::{Answer, Row, RowError};

/// The answers to rows; a row that panics gives an error.
///
/// If a batch panics, its rows are answered one by one, so that only the faulty row fails. The panic hook has printed the location
/// on standard error.
pub(super) fn answer(model: &dyn Answer, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
    if rows.len() < 2 {
        return rows.into_iter().map(|row| alone(model, row)).collect();
    }
    let copies = rows.clone();
    caught(|| model.answer(rows))
        .unwrap_or_else(|_| copies.into_iter().map(|row| alone(model, row)).collect())
}

fn alone(model: &dyn Answer, row: Row) -> Result<Row, RowError> {
    caught(|| model.answer(vec![row]).pop().expect("each row has an answer")).unwrap_or_else(Err)
}

/// The result of `run`, or the error of a row that panicked.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T, RowError> {
    // A model keeps nothing of a row, so that nothing half done is left behind.
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| panicked(&*panic))
}

fn panicked(panic: &(dyn Any + Send)) -> RowError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    RowError {
        code: "internal_error",
        message: format!("the program failed at this row, which is a fault of its own: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Panics at rows that say so.
    struct Touchy;

    impl Answer for Touchy {
        fn answer(&self, rows: Vec<Row>) -> Vec<Result<Row, RowError>> {
            let one = |row: Row| match row.get("do").and_then(Value::as_str) {
                Some("panic") => panic!("index {} is out of range", row.len()),
                Some("refuse") => Err(RowError::invalid("no")),
                _ => Ok(row),
            };
            rows.into_iter().map(one).collect()
        }
    }

    fn row(value: Value) -> Row {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_panic_is_the_error_of_its_row_alone() {
        let rows =
            [json!({ "a": 1 }), json!({ "do": "panic" }), json!({ "do": "refuse" }), json!({ "a": 2 })];
        for together in [1, 2, 4] {
            let answers = rows
                .chunks(together)
                .flat_map(|rows| answer(&Touchy, rows.iter().cloned().map(row).collect::<Vec<_>>()));
            let said: Vec<_> =
                answers.map(|answer| answer.map_err(|error| (error.code, error.message))).collect();
            assert_eq!((&said[0], &said[3]), (&Ok(row(rows[0].clone())), &Ok(row(rows[3].clone()))));
            assert_eq!(said[2], Err(("invalid_row", "no".to_owned())));
            let (code, message) = said[1].clone().unwrap_err();
            assert_eq!(code, "internal_error");
            assert!(message.contains("index 1 is out of range"), "{message}");
        }
    }

    #[test]
    fn no_rows_have_no_answers() {
        assert!(answer(&Touchy, Vec::new()).is_empty());
    }
}
