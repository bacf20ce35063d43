//! Fewer round trips: one statement over many rows, and several statements that do not depend on each other sent as one.

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{AnyConnection, Arguments as _, AssertSqlSafe, Row as _};

use zeroize::Zeroizing;

use super::super::EngineError;
use super::Dialect;

/// Values of one statement, at most: databases take 32,766 or more.
const MAX_VALUES: usize = 16_000;
/// A statement over more rows is not kept prepared: there would be one for each number of rows.
const MAX_KEPT_ROWS: usize = 4;

/// A value of a row; `None` is NULL.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Number(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
    Secret(Zeroizing<Vec<u8>>),
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(Some(text.clone()))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<[u8; 32]> for Value {
    fn from(bytes: [u8; 32]) -> Self {
        Self::Bytes(Some(bytes.to_vec()))
    }
}

impl From<&Zeroizing<Vec<u8>>> for Value {
    fn from(secret: &Zeroizing<Vec<u8>>) -> Self {
        Self::Secret(secret.clone())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(Some(bytes))
    }
}

impl From<Option<Vec<u8>>> for Value {
    fn from(bytes: Option<Vec<u8>>) -> Self {
        Self::Bytes(bytes)
    }
}

/// A row of values.
macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$($crate::engine::sql::many::Value::from($value)),*] };
}
pub(super) use row;

/// A statement: `head`, then `row` for each row, joined by commas, then `tail`. Each `?` of a row is a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Many {
    head: &'static str,
    row: &'static str,
    tail: &'static str,
    /// Over so many rows it is kept prepared.
    max_kept_rows: usize,
}

impl Many {
    /// A statement with these parts.
    pub(super) const fn new(head: &'static str, row: &'static str, tail: &'static str) -> Self {
        Self { head, row, tail, max_kept_rows: MAX_KEPT_ROWS }
    }

    /// Kept prepared over one row only. Several that are joined with rows of a table that is small as yet are found by reading all of it; a plan for that must
    /// not stay.
    pub(super) const fn kept_for_one_row(self) -> Self {
        Self { max_kept_rows: 1, ..self }
    }

    pub(super) async fn execute(&self, connection: &mut AnyConnection, rows: &[Vec<Value>]) -> Result<(), EngineError> {
        for rows in chunks(rows) {
            let (sql, values) = self.statement(rows);
            let query = sqlx::query_with(AssertSqlSafe(sql), values).persistent(rows.len() <= self.max_kept_rows);
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }

    pub(super) async fn fetch(&self, connection: &mut AnyConnection, rows: &[Vec<Value>]) -> Result<Vec<AnyRow>, EngineError> {
        let mut fetched = Vec::new();
        for rows in chunks(rows) {
            let (sql, values) = self.statement(rows);
            let query = sqlx::query_with(AssertSqlSafe(sql), values).persistent(rows.len() <= self.max_kept_rows);
            fetched.extend(query.fetch_all(&mut *connection).await?);
        }
        Ok(fetched)
    }

    /// The statement over these rows.
    #[cfg(test)]
    pub(super) fn text(&self, rows: &[Vec<Value>]) -> String {
        self.statement(rows).0
    }

    /// As one of several statements; none if there are no rows. They must be few enough for one.
    pub(super) fn part(&self, rows: Vec<Vec<Value>>) -> Option<Part> {
        let text = vec![self.row; rows.len()].join(", ");
        let (n_rows, is_kept) = (rows.len(), rows.len() <= self.max_kept_rows);
        let values = rows.into_iter().flatten().collect();
        (n_rows > 0).then(|| Part { sql: format!("{}{text}{}", self.head, self.tail), values, is_kept })
    }

    /// Only literals become text of the statement.
    fn statement(&self, rows: &[Vec<Value>]) -> (String, AnyArguments) {
        let (mut sql, mut values) = (self.head.to_owned(), AnyArguments::default());
        for (i, row) in rows.iter().enumerate() {
            sql.push_str(if i == 0 { "" } else { ", " });
            append(&mut sql, &mut values, self.row, row);
        }
        sql.push_str(self.tail);
        (sql, values)
    }
}

/// Appends a text each of whose `?` is a value.
fn append(sql: &mut String, values: &mut AnyArguments, text: &str, row: &[Value]) {
    let mut texts = text.split('?');
    sql.push_str(texts.next().unwrap_or_default());
    for (value, text) in row.iter().zip(texts) {
        // Adding one of these to the list of values cannot fail.
        let _ = match value {
            Value::Number(number) => values.add(*number),
            Value::Text(text) => values.add(text.clone()),
            Value::Bytes(bytes) => values.add(bytes.clone()),
            Value::Secret(secret) => values.add(secret.to_vec()),
        };
        sql.push('$');
        sql.push_str(&values.len().to_string());
        sql.push_str(text);
    }
}

/// One of several statements that are sent together: none sees what another writes, and no two write the same row. Each `?` is a value.
#[derive(Debug)]
pub(super) struct Part {
    sql: String,
    values: Vec<Value>,
    /// It is kept prepared.
    is_kept: bool,
}

impl Part {
    pub(super) fn new(sql: &str, values: Vec<Value>) -> Self {
        Self { sql: sql.to_owned(), values, is_kept: true }
    }
}

/// Executes statements that do not depend on each other, all at once.
pub(super) async fn execute_together(dialect: Dialect, connection: &mut AnyConnection, parts: &[Part]) -> Result<(), EngineError> {
    let mut rest = parts;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(n_at_once(rest));
        let (sql, values) = joined(dialect, now);
        let is_kept = now.iter().all(|part| part.is_kept);
        sqlx::query_with(AssertSqlSafe(sql), values).persistent(is_kept).execute(&mut *connection).await?;
        rest = later;
    }
    Ok(())
}

/// Reads with several statements of the same columns at once: rows in any order, each with the place of its
/// statement. They must be few enough for one, and not none. It is kept prepared if it comes again and again.
pub(super) async fn fetch_united(
    connection: &mut AnyConnection,
    parts: &[Part],
    is_kept: bool,
) -> Result<Vec<(usize, AnyRow)>, EngineError> {
    let (sql, values) = united(parts);
    let rows = sqlx::query_with(AssertSqlSafe(sql), values).persistent(is_kept).fetch_all(connection).await?;
    rows.into_iter().map(|row| Ok((usize::try_from(row.try_get::<i64, _>("part")?).unwrap_or(usize::MAX), row))).collect()
}

/// Each in its own FROM, so that its order and its limit are its own.
fn united(parts: &[Part]) -> (String, AnyArguments) {
    let (mut sql, mut values) = (String::new(), AnyArguments::default());
    for (i, part) in parts.iter().enumerate() {
        let and = if i == 0 { "" } else { " UNION ALL " };
        sql.push_str(&format!("{and}SELECT CAST({i} AS BIGINT) AS part, part{i}.* FROM ("));
        append(&mut sql, &mut values, &part.sql, &part.values);
        sql.push_str(&format!(") AS part{i}"));
    }
    (sql, values)
}

/// How many of the next statements go at once.
fn n_at_once(parts: &[Part]) -> usize {
    let n_values = parts.iter().scan(0, |sum, part| {
        *sum += part.values.len();
        Some(*sum)
    });
    n_values.take_while(|n| *n <= MAX_VALUES).count().max(1)
}

/// SQLite takes several statements, one after another. PostgreSQL takes one, the last, with the others as its common table expressions.
fn joined(dialect: Dialect, parts: &[Part]) -> (String, AnyArguments) {
    let (mut sql, mut values) = (String::new(), AnyArguments::default());
    for (i, part) in parts.iter().enumerate() {
        let is_last = i + 1 == parts.len();
        match (dialect, i, is_last) {
            (_, 0, true) => {}
            (Dialect::Sqlite, _, _) => sql.push_str(if i == 0 { "" } else { "; " }),
            (Dialect::Postgres, 0, false) => sql.push_str("WITH part0 AS ("),
            (Dialect::Postgres, _, true) => sql.push_str(") "),
            (Dialect::Postgres, _, false) => sql.push_str(&format!("), part{i} AS (")),
        }
        append(&mut sql, &mut values, &part.sql, &part.values);
    }
    (sql, values)
}

/// As many rows at a time as a statement takes.
fn chunks(rows: &[Vec<Value>]) -> impl Iterator<Item = &[Vec<Value>]> {
    let n_columns = rows.first().map_or(1, |row| row.len().max(1));
    rows.chunks((MAX_VALUES / n_columns).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbered_through_all_rows() {
        let insert = Many::new("INSERT INTO t(a, b, c) VALUES ", "(?, 0, ?)", " ON CONFLICT DO NOTHING");
        let (sql, values) = insert.statement(&[row![1, "x"], row![2, [7; 32]]]);
        assert_eq!(sql, "INSERT INTO t(a, b, c) VALUES ($1, 0, $2), ($3, 0, $4) ON CONFLICT DO NOTHING");
        assert_eq!(values.len(), 4);
    }

    #[test]
    fn parts_are_joined_and_their_values_numbered() {
        let parts = |n: usize| -> Vec<Part> {
            (0..n)
                .map(|i| {
                    Part::new(
                        ["UPDATE a SET b = ? WHERE c = ?", "DELETE FROM d WHERE e = ?", "DELETE FROM f"][i],
                        row![1, 2][i.min(2)..].to_vec(),
                    )
                })
                .collect()
        };
        for dialect in [Dialect::Sqlite, Dialect::Postgres] {
            assert_eq!(joined(dialect, &parts(1)).0, "UPDATE a SET b = $1 WHERE c = $2");
        }
        let (sql, values) = joined(Dialect::Postgres, &parts(3));
        assert_eq!(sql, "WITH part0 AS (UPDATE a SET b = $1 WHERE c = $2), part1 AS (DELETE FROM d WHERE e = $3) DELETE FROM f");
        assert_eq!(values.len(), 3);
        assert_eq!(joined(Dialect::Sqlite, &parts(3)).0, "UPDATE a SET b = $1 WHERE c = $2; DELETE FROM d WHERE e = $3; DELETE FROM f");
        let large = || Part::new("DELETE FROM f", vec![Value::from(1); MAX_VALUES]);
        assert_eq!((n_at_once(&parts(3)), n_at_once(&[large(), large()])), (3, 1));
    }

    #[test]
    fn statements_over_few_rows_are_kept_and_joins_over_one() {
        let insert = Many::new("INSERT INTO t(a) VALUES ", "(?)", "");
        let kept = |many: Many, n: usize| many.part(vec![row![1]; n]).unwrap().is_kept;
        assert_eq!([1, MAX_KEPT_ROWS, MAX_KEPT_ROWS + 1].map(|n| kept(insert, n)), [true, true, false]);
        assert_eq!([1, 2].map(|n| kept(insert.kept_for_one_row(), n)), [true, false]);
    }

    #[test]
    fn no_statement_has_more_values_than_databases_take() {
        let rows = vec![row![1, 2, 3]; 20_000];
        let chunks: Vec<usize> = chunks(&rows).map(<[_]>::len).collect();
        assert_eq!(chunks.iter().sum::<usize>(), rows.len());
        assert!(chunks.iter().all(|n| n * 3 <= MAX_VALUES), "{chunks:?}");
        assert_eq!(super::chunks(&[]).count(), 0);
    }
}
