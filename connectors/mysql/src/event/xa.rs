//! XA_PREPARE: a distributed transaction is prepared. Its rows came before; what becomes of them is told later.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/classbinary__log_1_1XA__prepare__event.html>

use super::cursor::{Cursor, DecodeError, Problem};

/// The first half of a distributed transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XaPrepare<'a> {
    /// Whether it is committed at once (`XA COMMIT … ONE PHASE`).
    pub one_phase: bool,
    /// The format of the transaction's name; 1 unless the application said otherwise.
    pub format: i32,
    /// The global part of its name.
    pub gtrid: &'a [u8],
    /// The branch.
    pub bqual: &'a [u8],
}

/// Most bytes of either part of a name (`MAXGTRIDSIZE`, `MAXBQUALSIZE`).
const MAX_PART: u32 = 64;

impl<'a> XaPrepare<'a> {
    pub(super) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "XA_PREPARE");
        let one_phase = cursor.u8("one phase")? != 0;
        let format = cursor.u32("format")?.cast_signed();
        let (gtrid, bqual) = (cursor.u32("length of gtrid")?, cursor.u32("length of bqual")?);
        if gtrid.max(bqual) > MAX_PART {
            return Err(cursor.error("length of the name", Problem::TooMany(gtrid.max(bqual).into())));
        }
        let gtrid = cursor.bytes(gtrid.into(), "gtrid")?;
        let bqual = cursor.bytes(bqual.into(), "bqual")?;
        cursor.finish()?;
        Ok(Self { one_phase, format, gtrid, bqual })
    }

    /// The name as the server prints it in the `XA COMMIT` and `XA ROLLBACK` that follow: `X'…',X'…',1`.
    #[must_use]
    pub fn name(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("X'{}',X'{}',{}", hex(self.gtrid), hex(self.bqual), self.format)
    }
}
