//! The types that every server has under the same OID: no look-up, and no race with the catalog.

use super::Kind;
use tokio_postgres::types::{self, Type};

/// The name and the form of a built-in type; `None` where only the catalog knows.
#[must_use]
pub fn builtin(oid: u32) -> Option<(String, Kind)> {
    Type::from_oid(oid).map(|known| (name(&known), kind(&known)))
}

fn name(known: &Type) -> String {
    match known.kind() {
        types::Kind::Array(element) if is_array(known) => format!("{}[]", element.name()),
        _ => known.name().to_owned(),
    }
}

fn kind(known: &Type) -> Kind {
    match *known {
        Type::BOOL => Kind::Bool,
        Type::INT2 | Type::INT4 | Type::INT8 => Kind::Integer,
        Type::FLOAT4 | Type::FLOAT8 => Kind::Float,
        Type::JSON | Type::JSONB => Kind::Json,
        Type::BYTEA => Kind::Bytea,
        Type::TIMESTAMP => Kind::Timestamp,
        Type::TIMESTAMPTZ => Kind::TimestampTz,
        _ => match known.kind() {
            types::Kind::Array(element) if is_array(known) => Kind::Array {
                element: Box::new(kind(element)),
                // box is the one type whose own text is full of commas.
                delimiter: if *element == Type::BOX { b';' } else { b',' },
            },
            _ => Kind::Text,
        },
    }
}

/// int2vector and oidvector have elements, but print them in a way of their own.
fn is_array(known: &Type) -> bool {
    !matches!(*known, Type::INT2_VECTOR | Type::OID_VECTOR)
}
