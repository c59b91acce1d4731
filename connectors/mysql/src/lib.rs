//! The binary log of MySQL and MariaDB as a Headgate source.
