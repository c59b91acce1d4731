//! What a statement in the log is, as far as it matters. Pure, and no SQL parser: the first words decide.
//!
//! Rows come as events of their own, so a statement matters only where it bounds a transaction, empties a table, or *is* a
//! change of rows, which happens where a session writes its log in statement format. Such a change cannot be told, so it must
//! be seen.

/// What a statement is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    /// A transaction begins.
    Begin,
    /// It is committed.
    Commit,
    /// It is rolled back.
    Rollback,
    /// A point within it, by its name.
    Savepoint(String),
    /// What came since that point is rolled back.
    RollbackTo(String),
    /// A point is forgotten.
    Release,
    /// A distributed transaction begins.
    XaStart,
    /// Its rows end.
    XaEnd,
    /// A prepared one is committed, by its name.
    XaCommit(String),
    /// A prepared one is rolled back.
    XaRollback(String),
    /// All rows of a table go.
    Truncate(Name),
    /// A table is made, and its rows follow in the same transaction.
    CreateWithRows,
    /// Rows are changed, in words: of that table if it is one alone.
    Change(Option<Name>),
    /// Anything else: shapes of tables, accounts, maintenance.
    Other,
    /// Nothing but comments.
    Empty,
}

/// A table as a statement names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The schema, if it says so.
    pub(crate) schema: Option<String>,
    /// The table.
    pub(crate) table: String,
}

impl Statement {
    /// Reads the beginning of a statement.
    pub(crate) fn read(text: &[u8]) -> Self {
        // Nearly every transaction has one.
        if text == b"BEGIN" {
            return Self::Begin;
        }
        let text = String::from_utf8_lossy(text);
        let mut words = Words { rest: &text };
        let Some(first) = words.keyword() else { return Self::Empty };
        match first.as_str() {
            "BEGIN" => Self::Begin,
            "START" => Self::Begin,
            "COMMIT" => Self::Commit,
            "ROLLBACK" => rollback(&mut words),
            "SAVEPOINT" => Self::Savepoint(words.identifier().unwrap_or_default()),
            "RELEASE" => Self::Release,
            "XA" => xa(&mut words),
            "TRUNCATE" => {
                let mut after = words.clone();
                if after.keyword().as_deref() == Some("TABLE") {
                    words = after;
                }
                words.name().map_or(Self::Other, Self::Truncate)
            }
            "INSERT" | "REPLACE" | "DELETE" | "UPDATE" => Self::Change(target(&mut words)),
            "LOAD" | "WITH" | "SELECT" | "DO" | "CALL" => Self::Change(None),
            "CREATE" => create(&mut words),
            _ => Self::Other,
        }
    }
}

fn rollback(words: &mut Words<'_>) -> Statement {
    let mut word = words.keyword();
    if word.as_deref() == Some("WORK") {
        word = words.keyword();
    }
    if word.as_deref() != Some("TO") {
        return Statement::Rollback;
    }
    let mut after = words.clone();
    if after.keyword().as_deref() == Some("SAVEPOINT") && !after.rest.trim().is_empty() {
        *words = after;
    }
    Statement::RollbackTo(words.identifier().unwrap_or_default())
}

fn xa(words: &mut Words<'_>) -> Statement {
    let what = words.keyword();
    let name = || {
        let name = words.rest.trim().trim_end_matches(';').trim();
        let phase = " ONE PHASE";
        let cut = name.len().saturating_sub(phase.len());
        match name.get(cut..) {
            Some(end) if end.eq_ignore_ascii_case(phase) => name[..cut].trim().to_owned(),
            _ => name.to_owned(),
        }
    };
    match what.as_deref() {
        Some("START" | "BEGIN") => Statement::XaStart,
        Some("END") => Statement::XaEnd,
        Some("COMMIT") => Statement::XaCommit(name()),
        Some("ROLLBACK") => Statement::XaRollback(name()),
        _ => Statement::Other,
    }
}

/// The table of `INSERT`, `REPLACE`, `DELETE` or `UPDATE`, where it is certain that it is the only one.
fn target(words: &mut Words<'_>) -> Option<Name> {
    loop {
        let mut after = words.clone();
        match after.keyword().as_deref() {
            Some("INTO" | "FROM" | "IGNORE" | "LOW_PRIORITY" | "HIGH_PRIORITY" | "DELAYED" | "QUICK") => {
                *words = after;
            }
            _ => break,
        }
    }
    let name = words.name()?;
    // A list of tables, or a join.
    let more = words.rest.trim_start();
    let joined = more.starts_with(',') || more.to_ascii_uppercase().contains("JOIN");
    (!joined).then_some(name)
}

fn create(words: &mut Words<'_>) -> Statement {
    let mut is_table = false;
    for _ in 0..4 {
        match words.keyword().as_deref() {
            Some("TABLE") => {
                is_table = true;
                break;
            }
            Some("OR" | "REPLACE" | "TEMPORARY") => {}
            _ => break,
        }
    }
    if !is_table {
        return Statement::Other;
    }
    if words.rest.trim_end().to_ascii_uppercase().ends_with("START TRANSACTION") {
        return Statement::CreateWithRows;
    }
    // In row format the server logs a table's shape and its rows apart: a query here would have filled it in words.
    while let Some(word) = words.keyword() {
        if word == "SELECT" {
            return Statement::Change(None);
        }
    }
    Statement::Other
}

/// Goes through a statement word by word, past comments; what stands in `/*! … */` counts.
#[derive(Clone, Debug)]
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\0' || c == '(');
            let conditional = ["/*!", "/*M!"].into_iter().find_map(|start| self.rest.strip_prefix(start));
            if let Some(inside) = conditional {
                self.rest = inside.trim_start_matches(|c: char| c.is_ascii_digit());
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = comment.split_once("*/").map_or("", |(_, after)| after);
            } else if let Some(end) = self.rest.strip_prefix("*/") {
                self.rest = end;
            } else if self.rest.starts_with("-- ") || self.rest.starts_with('#') {
                self.rest = self.rest.split_once('\n').map_or("", |(_, after)| after);
            } else {
                return;
            }
        }
    }

    /// The next word, in capitals; a quoted text or a sign counts as an empty one.
    fn keyword(&mut self) -> Option<String> {
        self.skip();
        let first = self.rest.chars().next()?;
        if matches!(first, '\'' | '"' | '`') {
            self.quoted(first);
            return Some(String::new());
        }
        let length = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        if length == 0 {
            self.rest = &self.rest[first.len_utf8()..];
            return Some(String::new());
        }
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(word.to_ascii_uppercase())
    }

    /// A quoted text, whose quote stands for itself when it is doubled.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut rest = self.rest.strip_prefix(quote)?.chars();
        loop {
            match rest.next() {
                None => {
                    self.rest = "";
                    return None;
                }
                Some(c) if c == quote => {
                    let mut after = rest.clone();
                    if after.next() != Some(quote) {
                        break;
                    }
                    text.push(quote);
                    rest = after;
                }
                Some('\\') if quote != '`' => text.extend(rest.next()),
                Some(c) => text.push(c),
            }
        }
        self.rest = rest.as_str();
        Some(text)
    }

    fn identifier(&mut self) -> Option<String> {
        self.skip();
        let first = self.rest.chars().next()?;
        if matches!(first, '`' | '"') {
            return self.quoted(first);
        }
        let length = self
            .rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$') || !c.is_ascii()))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        (!word.is_empty()).then(|| word.to_owned())
    }

    /// `table` or `schema.table`.
    fn name(&mut self) -> Option<Name> {
        let first = self.identifier()?;
        let mut after = self.clone();
        after.skip();
        match after.rest.strip_prefix('.') {
            Some(rest) => {
                self.rest = rest;
                Some(Name { schema: Some(first), table: self.identifier()? })
            }
            None => Some(Name { schema: None, table: first }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Statement {
        Statement::read(text.as_bytes())
    }

    fn name(schema: Option<&str>, table: &str) -> Name {
        Name { schema: schema.map(str::to_owned), table: table.to_owned() }
    }

    #[test]
    fn bounds_of_transactions() {
        assert_eq!(read("BEGIN"), Statement::Begin);
        assert_eq!(read("COMMIT /* implicit, from Xid_log_event */"), Statement::Commit);
        assert_eq!(read("ROLLBACK TO `a``b`"), Statement::RollbackTo("a`b".to_owned()));
        assert_eq!(read("rollback work to savepoint a"), Statement::RollbackTo("a".to_owned()));
        assert_eq!(read("ROLLBACK TO savepoint"), Statement::RollbackTo("savepoint".to_owned()));
        assert_eq!(read("ROLLBACK"), Statement::Rollback);
        assert_eq!(read("SAVEPOINT `a``b`"), Statement::Savepoint("a`b".to_owned()));
        assert_eq!(read("RELEASE SAVEPOINT `a`"), Statement::Release);
        assert_eq!(read("XA START X'61',X'',1"), Statement::XaStart);
        assert_eq!(read("XA COMMIT X'61',X'',1"), Statement::XaCommit("X'61',X'',1".to_owned()));
        assert_eq!(read("xa commit X'61',X'',1 one phase"), Statement::XaCommit("X'61',X'',1".to_owned()));
        assert_eq!(read("XA ROLLBACK X'61',X'',1"), Statement::XaRollback("X'61',X'',1".to_owned()));
    }

    #[test]
    fn changes_in_words_are_seen() {
        assert_eq!(
            read("insert /* x */ into `a``b`.`t` values (1)"),
            Statement::Change(Some(name(Some("a`b"), "t")))
        );
        assert_eq!(read("/* app */ UPDATE t SET a = 1"), Statement::Change(Some(name(None, "t"))));
        assert_eq!(
            read("DELETE FROM shop . orders WHERE 1"),
            Statement::Change(Some(name(Some("shop"), "orders")))
        );
        assert_eq!(read("UPDATE a, b SET a.x = b.x"), Statement::Change(None));
        assert_eq!(read("LOAD DATA INFILE 'x' INTO TABLE t"), Statement::Change(None));
        assert_eq!(read("CREATE TABLE t SELECT 1"), Statement::Change(None));
        assert_eq!(read("create or replace table t (a int) as (select 1)"), Statement::Change(None));
    }

    #[test]
    fn shapes_and_comments() {
        assert_eq!(read("alter /* gh-ost */ table `x` add y int"), Statement::Other);
        assert_eq!(read("/*!50000 TRUNCATE TABLE */ `s`.`t`"), Statement::Truncate(name(Some("s"), "t")));
        assert_eq!(read("truncate orders"), Statement::Truncate(name(None, "orders")));
        assert_eq!(
            read("CREATE TABLE `t` (`select` int COMMENT 'SELECT') START TRANSACTION"),
            Statement::CreateWithRows
        );
        assert_eq!(read("CREATE TABLE `t` (`select` int COMMENT 'SELECT')"), Statement::Other);
        assert_eq!(read("CREATE VIEW v AS SELECT 1"), Statement::Other);
        assert_eq!(read("# Dummy event replacing event type 160"), Statement::Empty);
        assert_eq!(read(""), Statement::Empty);
        assert_eq!(read("/* never closed"), Statement::Empty);
    }
}
