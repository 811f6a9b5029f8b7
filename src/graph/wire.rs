//! Reading JSON with the place of a mistake, and nothing of what stands there.

use serde::{Deserialize, de::DeserializeOwned};

use crate::calendar::ReadError;

/// One page of a list.
#[derive(Deserialize)]
pub(super) struct Page<T> {
    /// Its items; a page may be empty and still have a next one.
    pub(super) value: Vec<T>,
    /// Where the next page is.
    #[serde(rename = "@odata.nextLink")]
    pub(super) next: Option<String>,
}

/// One page of a round of delta: it has either a next page or the link of the next round.
#[derive(Deserialize)]
pub(super) struct DeltaPage<T> {
    /// Its rows; a page may be empty and still have a next one.
    pub(super) value: Vec<T>,
    /// Where the next page is.
    #[serde(rename = "@odata.nextLink")]
    pub(super) next: Option<String>,
    /// Where the next round goes on.
    #[serde(rename = "@odata.deltaLink")]
    pub(super) delta: Option<String>,
}

/// Reads a document.
///
/// # Errors
/// [`ReadError::Unreadable`] with the path, as `value[3].start`. Serde's own words are dropped: they quote the
/// value that did not fit, which may be a subject.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ReadError> {
    let mut document = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut document).map_err(|error| {
        let path = error.path().to_string();
        unreadable(if path == "." { "the document" } else { &path })
    })?;
    document.end().map_err(|_quotes_the_document| unreadable("the end of the document"))?;
    Ok(read)
}

/// An answer that was not understood at this place.
pub(super) fn unreadable(place: impl Into<String>) -> ReadError {
    ReadError::Unreadable { place: place.into() }
}
