//! A document that can be changed, and the paths that say where.
//!
//! Only for partial updates, which are rare; whole documents are written without it.

use super::{
    DAMAGED, MAX_DEPTH,
    binary::{Budget, Container, Value},
    scalar,
};
use headgate_sdk::Unwritable;

/// A value of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Its text.
    Scalar(Vec<u8>),
    Array(Vec<Node>),
    /// Names and values, in the server's order: by length, then by bytes.
    Object(Vec<(Vec<u8>, Node)>),
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Member(Vec<u8>),
    Element(usize),
}

impl Node {
    /// Reads a document in the binary form, or its text.
    pub(super) fn read(raw: &[u8]) -> Result<Self, Unwritable> {
        let Some((&kind, body)) = raw.split_first() else { return Ok(Self::Scalar(b"null".to_vec())) };
        Self::build(&Value::read(kind, body)?, MAX_DEPTH, &mut Budget::new(raw.len()))
    }

    fn build(value: &Value<'_>, depth: usize, budget: &mut Budget) -> Result<Self, Unwritable> {
        let inner = |container: &Container<'_>, nth: usize, budget: &mut Budget| {
            budget.spend(1)?;
            let depth = depth.checked_sub(1).ok_or(DAMAGED)?;
            Self::build(&container.value(nth)?, depth, budget)
        };
        Ok(match value {
            Value::Array(container) => {
                let elements = (0..container.len()).map(|nth| inner(container, nth, budget));
                Self::Array(elements.collect::<Result<_, _>>()?)
            }
            Value::Object(container) => {
                let members = (0..container.len()).map(|nth| {
                    let key = container.key(nth)?;
                    budget.spend(key.len())?;
                    Ok((key.to_vec(), inner(container, nth, budget)?))
                });
                Self::Object(members.collect::<Result<_, Unwritable>>()?)
            }
            scalar => {
                let mut text = Vec::new();
                scalar::write(scalar, budget, &mut text)?;
                Self::Scalar(text)
            }
        })
    }

    /// Writes it as the server prints it.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        match self {
            Self::Scalar(text) => out.extend_from_slice(text),
            Self::Array(elements) => {
                out.push(b'[');
                for (nth, element) in elements.iter().enumerate() {
                    if nth > 0 {
                        out.extend_from_slice(b", ");
                    }
                    element.write(out)?;
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (nth, (key, value)) in members.iter().enumerate() {
                    if nth > 0 {
                        out.extend_from_slice(b", ");
                    }
                    scalar::write_string(key, out)?;
                    out.extend_from_slice(b": ");
                    value.write(out)?;
                }
                out.push(b'}');
            }
        }
        Ok(())
    }

    /// The value at a path.
    fn at(&mut self, path: &[Step]) -> Option<&mut Self> {
        path.iter().try_fold(self, |node, step| match (node, step) {
            (Self::Array(elements), Step::Element(nth)) => elements.get_mut(*nth),
            (Self::Object(members), Step::Member(name)) => {
                members.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            // The server takes any other value for an array of itself.
            (node, Step::Element(0)) => Some(node),
            _ => None,
        })
    }

    /// Puts another value where one is.
    pub(super) fn replace(&mut self, path: &[Step], value: Self) -> Option<()> {
        *self.at(path)? = value;
        Some(())
    }

    /// Puts a value where none is: a new member, or an element before the one that is there, or after the last.
    pub(super) fn insert(&mut self, path: &[Step], value: Self) -> Option<()> {
        let (last, parent) = path.split_last()?;
        match (self.at(parent)?, last) {
            (Self::Object(members), Step::Member(name)) => {
                let order = |key: &[u8]| (key.len(), key.to_vec());
                match members.binary_search_by_key(&order(name), |(key, _)| order(key)) {
                    Ok(_) => return None,
                    Err(at) => members.insert(at, (name.clone(), value)),
                }
            }
            (Self::Array(elements), Step::Element(nth)) => elements.insert((*nth).min(elements.len()), value),
            _ => return None,
        }
        Some(())
    }

    /// Takes a value away.
    pub(super) fn remove(&mut self, path: &[Step]) -> Option<()> {
        let (last, parent) = path.split_last()?;
        match (self.at(parent)?, last) {
            (Self::Object(members), Step::Member(name)) => {
                let at = members.iter().position(|(key, _)| key == name)?;
                members.remove(at);
            }
            (Self::Array(elements), Step::Element(nth)) if *nth < elements.len() => {
                elements.remove(*nth);
            }
            _ => return None,
        }
        Some(())
    }
}

/// The steps of a path as the server writes it into the log: `$.a[0]."b c"`.
pub(super) fn steps(path: &[u8]) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix(b"$")?;
    let mut steps = Vec::new();
    while let Some((&first, tail)) = rest.split_first() {
        rest = match first {
            b'[' => {
                let end = memchr::memchr(b']', tail)?;
                let (number, after) = tail.split_at(end);
                steps.push(Step::Element(std::str::from_utf8(number).ok()?.parse().ok()?));
                after.get(1..)?
            }
            b'.' if tail.first() == Some(&b'"') => {
                let end = closing(tail)?;
                let (quoted, after) = tail.split_at(end + 1);
                let name: String = serde_json::from_slice(quoted).ok()?;
                steps.push(Step::Member(name.into_bytes()));
                after
            }
            b'.' => {
                let end = memchr::memchr2(b'.', b'[', tail).unwrap_or(tail.len());
                let (name, after) = tail.split_at(end);
                steps.push(Step::Member(name.to_vec()));
                after
            }
            _ => return None,
        };
        if steps.len() > MAX_DEPTH {
            return None;
        }
    }
    Some(steps)
}

/// Where a quoted name ends that begins at the start.
fn closing(quoted: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match quoted.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at),
            _ => at += 1,
        }
    }
}
