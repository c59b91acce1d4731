//! System-versioned tables of MariaDB: their log holds history as rows, what is told are the rows of now.
//!
//! An UPDATE writes the former row once more, with the end of its life; a DELETE is an update that sets that end. Both rows
//! have one key, which is without the end, so that the former row, told as it is logged, would take the place of the present one.
//!
//! Tables whose ends are numbers of transactions are not met here: their changes are logged as statements.
//!
//! <https://mariadb.com/kb/en/system-versioned-tables/>

use crate::event::{Images, RowChange};
use headgate_sdk::{Cell, Op};

/// The column that says when a row's life ended, a TIMESTAMP(6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(super) column: usize,
}

impl Ending {
    /// What a logged row means for the rows of now; `None` for one of history.
    pub(crate) fn told(self, change: RowChange, images: &Images<'_>) -> Option<Op> {
        match change {
            RowChange::Write => (!self.has_ended(&images.after)).then_some(Op::Created),
            RowChange::Delete => (!self.has_ended(&images.before)).then_some(Op::Deleted),
            RowChange::Update => match (self.has_ended(&images.before), self.has_ended(&images.after)) {
                (false, false) => Some(Op::Updated),
                (false, true) => Some(Op::Deleted),
                (true, false) => Some(Op::Created),
                (true, true) => None,
            },
        }
    }

    /// Whether a row has an end. What a minimal image leaves out has not changed: none.
    fn has_ended(self, image: &[Cell<'_>]) -> bool {
        let Some(Cell::Value(raw)) = image.get(self.column) else { return false };
        // None is the last microsecond that there is: in 2038, from 11.5 on in 2106.
        !matches!(raw, [0x7f | 0xff, 0xff, 0xff, 0xff, 0x0f, 0x42, 0x3f])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: [u8; 7] = [0x6a, 1, 2, 3, 0, 0, 9];
    const NEVER: [u8; 7] = [0x7f, 0xff, 0xff, 0xff, 0x0f, 0x42, 0x3f];
    const NEVER_SINCE_11_5: [u8; 7] = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x42, 0x3f];

    #[test]
    fn only_the_rows_of_now_are_told() {
        let ending = Ending { column: 1 };
        let told = |change, before: &[u8], after: &[u8]| {
            let image = |end| vec![Cell::Null, Cell::Value(end)];
            ending.told(change, &Images { before: image(before), after: image(after) })
        };
        for never in [&NEVER[..], &NEVER_SINCE_11_5] {
            assert_eq!(told(RowChange::Write, &[], never), Some(Op::Created));
            assert_eq!(told(RowChange::Write, &[], &NOW), None);
            assert_eq!(told(RowChange::Update, never, never), Some(Op::Updated));
            assert_eq!(told(RowChange::Update, never, &NOW), Some(Op::Deleted));
            assert_eq!(told(RowChange::Update, &NOW, never), Some(Op::Created));
            assert_eq!(told(RowChange::Delete, never, &[]), Some(Op::Deleted));
        }
        assert_eq!(told(RowChange::Update, &NOW, &NOW), None);
        assert_eq!(told(RowChange::Delete, &NOW, &[]), None);
    }

    #[test]
    fn what_an_image_leaves_out_has_not_ended() {
        let ending = Ending { column: 0 };
        let images = Images { before: vec![Cell::Value(&NEVER)], after: vec![Cell::Unavailable] };
        assert_eq!(ending.told(RowChange::Update, &images), Some(Op::Updated));
    }
}
