//! The binary log of MySQL and MariaDB as a Headgate source.

#[doc(hidden)]
pub mod event;
#[doc(hidden)]
pub mod gtid;
#[doc(hidden)]
pub mod json;
#[doc(hidden)]
pub mod table;
#[doc(hidden)]
pub mod value;
