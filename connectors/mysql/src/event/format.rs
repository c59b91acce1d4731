//! FORMAT_DESCRIPTION: whose log it is, and how the events after it are laid out.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/classbinary__log_1_1Format__description__event.html>

use super::{
    cursor::{Cursor, DecodeError, Problem},
    header::kind,
};

/// Whose log it is. Types and what is known of them differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// MySQL, and Percona Server.
    MySql,
    /// MariaDB.
    MariaDb,
}

/// What a log says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Whose log it is.
    pub flavor: Flavor,
    /// The version of the server that wrote it.
    pub server_version: String,
}

/// The fixed parts that this decoder reads, which are the same in every server since 5.6: type and bytes.
const POST_HEADERS: [(u8, u8); 8] = [
    (kind::QUERY, 13),
    (kind::TABLE_MAP, 8),
    (kind::WRITE_ROWS_V1, 8),
    (kind::UPDATE_ROWS_V1, 8),
    (kind::DELETE_ROWS_V1, 8),
    (kind::WRITE_ROWS, 10),
    (kind::UPDATE_ROWS, 10),
    (kind::DELETE_ROWS, 10),
];

impl Format {
    /// Bytes of the server's version, padded with zeros.
    const VERSION: u64 = 50;

    /// Decodes the body: what is between the header and the checksum's algorithm.
    ///
    /// # Errors
    /// It is not a description of version 4, or lays out events as no supported server does.
    pub(super) fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "FORMAT_DESCRIPTION");
        match cursor.u16("version of the log")? {
            4 => {}
            version => return Err(cursor.error("version of the log", Problem::Unknown(version.into()))),
        }
        let version = cursor.bytes(Self::VERSION, "version of the server")?;
        let version = version.split(|&byte| byte == 0).next().unwrap_or_default();
        let server_version = cursor.utf8(version, "version of the server")?.to_owned();
        cursor.u32("creation time")?;
        cursor.u8("length of headers")?;
        let lengths = cursor.take();
        for (kind, expected) in POST_HEADERS {
            // A server that never writes a type may leave it out of the list.
            match lengths.get(usize::from(kind) - 1) {
                Some(&length) if length != 0 && length != expected => {
                    return Err(cursor.error("length of a fixed part", Problem::Unknown(length.into())));
                }
                _ => {}
            }
        }
        let flavor = if server_version.to_ascii_lowercase().contains("mariadb") {
            Flavor::MariaDb
        } else {
            Flavor::MySql
        };
        Ok(Self { flavor, server_version })
    }
}
