//! What a condition reads of a change: only that is made into CEL's values, and `headgate check` compares it with the
//! table.

use cel::{
    Program,
    common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators},
};
use std::collections::BTreeSet;

/// The columns that a condition reads of one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    /// It does not know the row.
    #[default]
    None,
    /// These; none of them where it only asks whether there is such a row.
    Named(BTreeSet<String>),
    /// The row as a whole.
    All,
}

impl Columns {
    /// Whether the row is read at all.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::None
    }

    /// Whether a column is read.
    #[must_use]
    pub fn contains(&self, column: &str) -> bool {
        match self {
            Self::None => false,
            Self::Named(names) => names.contains(column),
            Self::All => true,
        }
    }

    /// The columns read by name.
    pub fn named(&self) -> impl Iterator<Item = &str> {
        let names = if let Self::Named(names) = self { Some(names) } else { None };
        names.into_iter().flatten().map(String::as_str)
    }

    fn read(&mut self, column: Option<&str>) {
        if *self == Self::None {
            *self = Self::Named(BTreeSet::new());
        }
        if let (Self::Named(names), Some(column)) = (self, column) {
            names.insert(column.to_owned());
        }
    }
}

/// What a condition reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Of the old row.
    pub before: Columns,
    /// Of the new row.
    pub after: Columns,
    /// Whether it reads `changed`.
    pub changed: bool,
}

/// A name that a condition does not know.
#[derive(Debug)]
pub(super) struct Stranger {
    pub(super) name: String,
    /// CEL's number of the expression that it stands in.
    pub(super) expression: u64,
}

/// Names that CEL itself gives a meaning: its types.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "uint"];

impl Reads {
    /// Looks through a program.
    pub(super) fn of(program: &Program) -> Result<Self, Stranger> {
        let mut reads = Self::default();
        reads.look(program.expression(), &mut Vec::new())?;
        Ok(reads)
    }

    fn row(&mut self, name: &str, bound: &[&str]) -> Option<&mut Columns> {
        match name {
            _ if bound.contains(&name) => None,
            "before" => Some(&mut self.before),
            "after" => Some(&mut self.after),
            _ => None,
        }
    }

    /// `bound` are the names that the macros around the expression have brought.
    fn look<'e>(&mut self, expression: &'e IdedExpr, bound: &mut Vec<&'e str>) -> Result<(), Stranger> {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => {
                if let Some(columns) = self.row(name, bound) {
                    *columns = Columns::All;
                } else if name == "changed" && !bound.contains(&"changed") {
                    self.changed = true;
                } else if name != "op" && !TYPES.contains(&name.as_str()) && !bound.contains(&name.as_str()) {
                    return Err(Stranger { name: name.clone(), expression: expression.id });
                }
            }
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(name) if self.row(name, bound).is_some() => {
                    if let Some(columns) = self.row(name, bound) {
                        columns.read(Some(&select.field));
                    }
                }
                _ => self.look(&select.operand, bound)?,
            },
            Expr::Call(call) => {
                if let [first, second] = call.args.as_slice()
                    && self.look_at_pair(&call.func_name, first, second, bound)
                {
                    return Ok(());
                }
                for part in call.target.as_deref().into_iter().chain(&call.args) {
                    self.look(part, bound)?;
                }
            }
            Expr::List(list) => {
                for element in &list.elements {
                    self.look(element, bound)?;
                }
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.look(&entry.key, bound)?;
                        self.look(&entry.value, bound)?;
                    }
                }
            }
            Expr::Struct(structure) => {
                let name = structure.type_name.clone();
                return Err(Stranger { name, expression: expression.id });
            }
            Expr::Comprehension(macro_) => {
                self.look(&macro_.iter_range, bound)?;
                self.look(&macro_.accu_init, bound)?;
                let outside = bound.len();
                bound.push(&macro_.iter_var);
                bound.extend(macro_.iter_var2.as_deref());
                bound.push(&macro_.accu_var);
                for part in [&macro_.loop_cond, &macro_.loop_step, &macro_.result] {
                    self.look(part, bound)?;
                }
                bound.truncate(outside);
            }
        }
        Ok(())
    }

    /// `row["column"]` and `row == null`, which read less than the whole row; says whether it was one of them.
    fn look_at_pair(&mut self, call: &str, first: &IdedExpr, second: &IdedExpr, bound: &[&str]) -> bool {
        let column = match &second.expr {
            Expr::Literal(LiteralValue::String(name)) if call == operators::INDEX => Some(name.inner()),
            Expr::Literal(LiteralValue::Null)
                if matches!(call, operators::EQUALS | operators::NOT_EQUALS) =>
            {
                None
            }
            _ => return false,
        };
        match &first.expr {
            Expr::Ident(name) => self.row(name, bound).map(|columns| columns.read(column)).is_some(),
            _ => false,
        }
    }
}
