//! Schemas of words of the domain, which itself knows nothing of documents.

use std::borrow::Cow;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type},
    },
};

use crate::model::{CompanyId, Extension, Interval, Language, ProfileId, SubscriptionId};

macro_rules! text {
    ($($type:ident: $said:literal $(, one of $words:expr)?;)+) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                let schema = ObjectBuilder::new().schema_type(Type::String).description(Some($said));
                $(let schema = schema.enum_values(Some($words));)?
                schema.into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($type))
            }
        }
    )+};
}

text! {
    CompanyId: "A company's id: 1 to 63 of a-z, 0-9 and `-`.";
    Extension: "An extension of the PBX.";
    ProfileId: "A profile's id, as `meeting`.";
    SubscriptionId: "A subscription's name at Microsoft 365.";
    Language: "A language.", one of ["sv", "en"];
}

impl PartialSchema for Interval {
    fn schema() -> RefOr<Schema> {
        let moment = |said| {
            let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
            ObjectBuilder::new().schema_type(Type::String).format(Some(format)).description(Some(said))
        };
        ObjectBuilder::new()
            .description(Some("From a moment up to, and without, another."))
            .property("start", moment("The first moment inside."))
            .property("end", moment("The first moment after."))
            .required("start")
            .required("end")
            .into()
    }
}

impl ToSchema for Interval {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Interval")
    }
}
