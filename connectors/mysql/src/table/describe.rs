//! What a catalog says of a table: what the log cannot say, and all that a snapshot knows.

/// A table in `information_schema`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Its columns in order (`ORDINAL_POSITION`), generated and invisible ones among them.
    pub columns: Vec<DescribedColumn>,
    /// The columns of the key that names a row, in key order: the primary key, else a unique key without NULL; else empty.
    pub key: Vec<String>,
}

/// A column in `information_schema.COLUMNS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribedColumn {
    /// `COLUMN_NAME`.
    pub name: String,
    /// `COLUMN_TYPE`, whole: `int(10) unsigned`, `enum('a','b')`, `varchar(9) /*M!100301 COMPRESSED*/`.
    pub column_type: String,
    /// `CHARACTER_SET_NAME`; `None` where it is NULL.
    pub character_set: Option<String>,
    /// `COLLATION_NAME`; `None` where it is NULL.
    pub collation: Option<String>,
    /// `IS_NULLABLE`.
    pub nullable: bool,
    /// Whether it is a text that MariaDB checks to be JSON: a CHECK constraint ``json_valid(`name`)`` is there.
    pub json: bool,
    /// Whether it is the end of a system-versioned row (`GENERATION_EXPRESSION = 'ROW END'`), which MariaDB adds to keys.
    pub row_end: bool,
}
