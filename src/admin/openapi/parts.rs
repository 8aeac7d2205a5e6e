//! What descriptions of single methods are put together from: examples, texts, and objects within objects.

use serde_json::Value;
use utoipa::{
    PartialSchema,
    openapi::{
        Object, RefOr, Schema,
        schema::{AdditionalProperties, AnyOfBuilder, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type},
    },
};

/// An example with further members: of the one of many, what a list leaves out.
pub(in crate::admin) fn with(mut example: Value, more: Value) -> Value {
    if let (Value::Object(members), Value::Object(more)) = (&mut example, more) {
        members.extend(more);
    }
    example
}

/// What a request holds within another: the members of `T` but for some. A part's name may be left out.
pub(in crate::admin) fn part_of<T: PartialSchema>(without: &[&str]) -> Object {
    let RefOr::T(Schema::Object(mut object)) = T::schema() else { return Object::default() };
    object.properties.retain(|name, _| !without.contains(&name.as_str()));
    object.required.retain(|name| name != "name" && !without.contains(&name.as_str()));
    object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    object
}

/// A merge patch of an object, or `null`: no member must be there, and `null` takes away what need not be. Of an object
/// with variants it has the members of all of them: which go together depends on what stands.
pub(in crate::admin) fn patch_of<T: PartialSchema>() -> Object {
    let variants: Vec<Object> = match T::schema() {
        RefOr::T(Schema::Object(object)) => vec![object],
        RefOr::T(Schema::OneOf(one_of)) => one_of.items.into_iter().filter_map(as_object).collect(),
        _ => Vec::new(),
    };
    let mut patch = ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        .description(Some("Merged with what stands; `null` takes it away."))
        .build();
    for variant in &variants {
        for (name, member) in &variant.properties {
            match (patch.properties.get_mut(name), member) {
                // What tells the variants apart.
                (Some(RefOr::T(Schema::Object(known))), RefOr::T(Schema::Object(tag))) if tag.enum_values.is_some() => {
                    known.enum_values.get_or_insert_default().extend(tag.enum_values.iter().flatten().cloned());
                }
                (Some(_), _) => {}
                (None, _) if variants.iter().all(|it| it.required.contains(name)) => {
                    patch.properties.insert(name.clone(), member.clone());
                }
                (None, _) => {
                    patch.properties.insert(name.clone(), or_null(member.clone()));
                }
            }
        }
    }
    patch
}

/// A line of text, not blank, as `fields::line` reads it.
pub(in crate::admin) fn line<const CHARS_MAX: usize>() -> Object {
    let line = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$";
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(line));
    text.min_length(Some(1)).max_length(Some(CHARS_MAX)).build()
}

/// A whole number within bounds, as `fields::number` and `Params::number` read it.
pub(in crate::admin) fn whole<const MIN: u32, const MAX: u32>() -> Object {
    let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(MIN)).maximum(Some(MAX));
    number.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64))).build()
}

/// The number of a resource or a version: 32 bits, from 1.
pub(in crate::admin) fn id() -> Object {
    whole::<1, { u32::MAX }>()
}

/// Text of several lines, as `fields::prose` reads it, or `null`.
pub(in crate::admin) fn prose<const CHARS_MAX: usize>() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .pattern(Some(r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"))
        .max_length(Some(CHARS_MAX))
        .build()
}

fn as_object(schema: RefOr<Schema>) -> Option<Object> {
    match schema {
        RefOr::T(Schema::Object(object)) => Some(object),
        _ => None,
    }
}

/// What may also be `null`.
pub(in crate::admin) fn or_null(schema: RefOr<Schema>) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::Object(mut object)) if object.enum_values.is_none() => {
            if let SchemaType::Type(kind) = object.schema_type {
                object.schema_type = SchemaType::from_iter([kind, Type::Null]);
            }
            object.into()
        }
        other => AnyOfBuilder::new().item(other).item(ObjectBuilder::new().schema_type(Type::Null)).into(),
    }
}

/// An object of secrets, or `null`: sealed, and never shown again.
pub(in crate::admin) fn sealed_members() -> Object {
    let mut members = merged_members();
    members.min_properties = Some(1);
    members
}

/// The same, to be merged with what stands.
pub(in crate::admin) fn merged_members() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some("Sealed, and never shown again."))
        .write_only(true)
        .build()
}
