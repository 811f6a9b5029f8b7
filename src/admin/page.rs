//! Long lists in pieces: always in the same order, each piece named by the last item of the one before, so that what
//! comes and goes meanwhile makes nothing appear twice.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Ref, RefOr,
        schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type},
    },
};

/// Items in a piece where nothing is said.
const USUAL: usize = 500;

/// Most items in a piece.
const MOST: usize = 2_000;

/// Which piece of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PageRequest {
    /// `next` of the piece before; absent: from the beginning.
    pub after: Option<String>,
    /// Most items wanted: 500 where absent, and never more than 2,000.
    pub limit: Option<usize>,
}

impl PageRequest {
    /// How many items to give.
    pub fn most(&self) -> usize {
        self.limit.unwrap_or(USUAL).clamp(1, MOST)
    }
}

/// A piece of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// In the list's order.
    pub items: Vec<T>,
    /// `after` of the next piece; absent: this is the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The piece of a sorted list that was asked for; `key` tells an item's place in the order.
    pub fn cut<K: Ord + ToString>(
        request: &PageRequest,
        sorted: impl IntoIterator<Item = T>,
        key: impl Fn(&T) -> K,
    ) -> Self {
        let after = request.after.as_deref();
        let most = request.most();
        let mut rest = sorted.into_iter();
        // The item itself may be gone: what counts is where it would stand.
        let mut items: Vec<T> = rest
            .by_ref()
            .filter(|item| after.is_none_or(|after| *key(item).to_string() > *after))
            .take(most + 1)
            .collect();
        let more = items.len() > most;
        items.truncate(most);
        let next = items.last().filter(|_| more).map(|last| key(last).to_string());
        Self { items, next }
    }
}

// By hand: derived, it would refer to the item's schema and not bring it along.
impl<T: ToSchema> PartialSchema for Page<T> {
    fn schema() -> RefOr<Schema> {
        let next = ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
            .description(Some("`after` of the next piece; null: this is the last."));
        ObjectBuilder::new()
            .property("items", ArrayBuilder::new().items(Ref::from_schema_name(T::name())))
            .required("items")
            .property("next", next)
            .into()
    }
}

impl<T: ToSchema> ToSchema for Page<T> {
    fn name() -> Cow<'static, str> {
        format!("PageOf{}", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(after: Option<&str>, list: &[&'static str]) -> Page<&'static str> {
        let request = PageRequest { after: after.map(ToOwned::to_owned), limit: Some(2) };
        Page::cut(&request, list.to_vec(), |item| (*item).to_owned())
    }

    #[test]
    fn pieces_follow_each_other_though_their_last_item_goes_meanwhile() {
        let first = page(None, &["201", "202", "203", "204"]);
        assert_eq!((first.items, first.next.as_deref()), (vec!["201", "202"], Some("202")));
        let second = page(Some("202"), &["201", "203", "204"]);
        assert_eq!((second.items, second.next), (vec!["203", "204"], None));
        assert_eq!(page(Some("204"), &["201"]), Page { items: vec![], next: None });
    }

    #[test]
    fn a_piece_is_bounded_whatever_is_asked_for() {
        let most = |limit| PageRequest { after: None, limit }.most();
        assert_eq!([most(None), most(Some(0)), most(Some(7)), most(Some(1_000_000))], [500, 1, 7, 2_000]);
    }
}
