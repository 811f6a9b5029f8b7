//! What goes to scripts and comes back.

use std::fmt::Display;

use jiff::Timestamp;
use redis::Value;

use crate::queue::StoreError;

/// Arguments of a script.
#[derive(Debug, Clone, Default)]
pub(super) struct Args(Vec<Vec<u8>>);

impl Args {
    /// None, with room for `most`.
    pub(super) fn with_capacity(most: usize) -> Self {
        Self(Vec::with_capacity(most))
    }

    /// A number or a text.
    pub(super) fn add(self, argument: impl Display) -> Self {
        self.bytes(argument.to_string().into_bytes())
    }

    /// A document.
    pub(super) fn bytes(mut self, argument: Vec<u8>) -> Self {
        self.0.push(argument);
        self
    }

    /// A number, or nothing.
    pub(super) fn maybe(self, argument: Option<impl Display>) -> Self {
        match argument {
            Some(argument) => self.add(argument),
            None => self.bytes(Vec::new()),
        }
    }

    /// These and those.
    pub(super) fn append(mut self, mut others: Self) -> Self {
        self.0.append(&mut others.0);
        self
    }

    /// Bytes of all.
    pub(super) fn size(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    pub(super) fn into_inner(self) -> Vec<Vec<u8>> {
        self.0
    }
}

/// An answer, taken apart piece by piece.
#[derive(Debug)]
pub(super) struct Answer(std::vec::IntoIter<Value>);

impl Answer {
    /// A list of values.
    pub(super) fn list(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            other => Err(unexpected(&format!("{other:?}"))),
        }
    }

    /// Whether there is nothing more.
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// The next value as it is.
    pub(super) fn value(&mut self) -> Result<Value, StoreError> {
        self.0.next().ok_or_else(|| unexpected("too few values"))
    }

    /// The next value, a list itself.
    pub(super) fn inner_list(&mut self) -> Result<Self, StoreError> {
        Self::list(self.value()?)
    }

    /// A document, or none.
    pub(super) fn maybe_bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        bytes(self.value()?)
    }

    /// A document.
    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        Ok(self.maybe_bytes()?.unwrap_or_default())
    }

    /// A text.
    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?)
            .map_err(|error| StoreError::Corrupt { what: "text", source: Box::new(error) })
    }

    /// A number.
    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        number(self.value()?)
    }

    /// A time, or none.
    pub(super) fn time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let text = self.text()?;
        Ok(text.parse().ok().and_then(|microseconds| Timestamp::from_microsecond(microseconds).ok()))
    }
}

/// A document, or none.
pub(super) fn bytes(value: Value) -> Result<Option<Vec<u8>>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        Value::Int(number) => Ok(Some(number.to_string().into_bytes())),
        // What Lua calls `false`.
        Value::Nil | Value::Boolean(false) => Ok(None),
        other => Err(unexpected(&format!("{other:?}"))),
    }
}

/// A number.
pub(super) fn number(value: Value) -> Result<u64, StoreError> {
    match value {
        Value::Int(number) => Ok(u64::try_from(number).unwrap_or_default()),
        Value::BulkString(digits) => std::str::from_utf8(&digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| unexpected("not a number")),
        Value::Nil | Value::Boolean(false) => Ok(0),
        other => Err(unexpected(&format!("{other:?}"))),
    }
}

/// Whether a script that answers nothing where a lease is lost has found it.
pub(super) fn is_found(value: &Value) -> bool {
    !matches!(value, Value::Nil | Value::Boolean(false))
}

fn unexpected(what: &str) -> StoreError {
    let source = format!("a script of this service answered otherwise than it should: {what}");
    StoreError::Corrupt { what: "answer", source: source.into() }
}
