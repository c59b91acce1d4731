//! QUERY, EXECUTE_LOAD_QUERY, QUERY_COMPRESSED and ROWS_QUERY: statements as text.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/classbinary__log_1_1Query__event.html>

use super::{
    compressed,
    cursor::{Cursor, DecodeError},
    header::kind,
};
use std::borrow::Cow;

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The connection that ran it.
    pub thread_id: u32,
    /// The server's error code; 0 as a rule.
    pub error: u16,
    /// The default database it ran in; empty if none.
    pub schema: &'a [u8],
    /// Variables of the session that it depends on, in the server's own form.
    pub status: &'a [u8],
    /// Its text, in the client's character set ([`Query::charset`]).
    pub text: Cow<'a, [u8]>,
}

/// The variable that holds the client's character set (`Q_CHARSET_CODE`), and those that may stand before it.
mod variable {
    pub(super) const FLAGS2: u8 = 0;
    pub(super) const SQL_MODE: u8 = 1;
    pub(super) const CATALOG: u8 = 2;
    pub(super) const AUTO_INCREMENT: u8 = 3;
    pub(super) const CHARSET: u8 = 4;
    pub(super) const TIME_ZONE: u8 = 5;
    pub(super) const CATALOG_NZ: u8 = 6;
}

/// Bytes of an EXECUTE_LOAD_QUERY that tell of its file.
const FILE: u64 = 13;

impl<'a> Query<'a> {
    pub(super) fn decode(event: u8, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "QUERY");
        let thread_id = cursor.u32("thread")?;
        cursor.u32("duration")?;
        let schema = cursor.u8("length of schema")?;
        let error = cursor.u16("error code")?;
        let status = cursor.u16("length of status")?;
        if event == kind::EXECUTE_LOAD_QUERY {
            // Which file was loaded, where the statement names it, and what becomes of rows that are there already.
            cursor.bytes(FILE, "file")?;
        }
        let status = cursor.bytes(status.into(), "status")?;
        let schema = cursor.bytes(schema.into(), "schema")?;
        cursor.u8("end of schema")?;
        let text = cursor.take();
        let text = if event == kind::MARIADB_QUERY_COMPRESSED {
            Cow::Owned(compressed::inflate(text, "QUERY_COMPRESSED")?)
        } else {
            Cow::Borrowed(text)
        };
        Ok(Self { thread_id, error, schema, status, text })
    }

    /// The collation of the client that sent the text; `None` where the server did not tell.
    #[must_use]
    pub fn charset(&self) -> Option<u16> {
        let mut cursor = Cursor::new(self.status, "QUERY");
        loop {
            // The variables come in the order of their codes, so all before the wanted one are known.
            let skip = match cursor.u8("variable").ok()? {
                variable::CHARSET => return cursor.u16("collation").ok(),
                variable::FLAGS2 | variable::AUTO_INCREMENT => 4,
                variable::SQL_MODE => 8,
                variable::CATALOG => u64::from(cursor.u8("length").ok()?) + 1,
                variable::TIME_ZONE | variable::CATALOG_NZ => u64::from(cursor.u8("length").ok()?),
                _ => return None,
            };
            cursor.bytes(skip, "variable").ok()?;
        }
    }
}

/// The body of a ROWS_QUERY: a length that is too short to be of use, and the text.
pub(super) fn rows_query(body: &[u8]) -> Result<&[u8], DecodeError> {
    let mut cursor = Cursor::new(body, "ROWS_QUERY");
    cursor.u8("length")?;
    Ok(cursor.take())
}
