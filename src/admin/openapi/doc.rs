//! What the document says of one method. It stands beside the method's handler, and the route table takes no method
//! without it. What all methods have in common (sign-in, problems, headers) is added by [`super::operation`].

use axum::http::StatusCode;
use serde_json::Value;
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{
        Content, Ref, RefOr, Required, Schema,
        example::ExampleBuilder,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{AdditionalProperties, AnyOfBuilder, ObjectBuilder, Type},
    },
};

use super::parts::{or_null, part_of};
use crate::admin::problem::Code;

/// The id of an event that does not exist, for examples.
pub(in crate::admin) const EVENT: &str = "019ab3f0-0000-7000-8000-000000010000";
pub(super) const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
/// The schema of a body that an action without members takes.
const NOTHING: &str = "Nothing";

/// A method's part of the document, made when that is asked for.
pub(in crate::admin) type Describe = fn() -> Doc;

/// See the module.
pub(in crate::admin) struct Doc {
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) about: &'static str,
    /// Path parameters that are no resource's number, and query parameters.
    pub(super) parameters: Vec<Parameter>,
    /// Whether it heeds `If-Match`.
    pub(super) conditional: bool,
    pub(super) body: Option<Body>,
    pub(super) replies: Vec<Reply>,
    /// Refusals beyond those that follow from its path, its method and its body.
    pub(super) refusals: Vec<Code>,
    /// What the others refer to.
    pub(super) schemas: Vec<(String, RefOr<Schema>)>,
}

/// What is sent with a request.
pub(super) struct Body {
    pub(super) required: bool,
    pub(super) media_types: &'static [&'static str],
    pub(super) content: Content,
}

/// A reply that is no refusal.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// Media types and what they hold; none where there is no body.
    pub(super) contents: Vec<(&'static str, Content)>,
    pub(super) tagged: bool,
    pub(super) located: bool,
}

impl Doc {
    /// `id` is the operation's name in generated clients; `summary` one line for people.
    pub(in crate::admin) fn new(id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            summary,
            about: "",
            parameters: Vec::new(),
            conditional: false,
            body: None,
            replies: Vec::new(),
            refusals: Vec::new(),
            schemas: Vec::new(),
        }
    }

    /// More about it.
    pub(in crate::admin) fn about(mut self, text: &'static str) -> Self {
        self.about = text;
        self
    }

    /// A path parameter that is not a resource's number.
    pub(in crate::admin) fn segment<T: ToSchema>(mut self, name: &'static str, example: impl Into<Value>) -> Self {
        let schema = self.schema_of::<T>();
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
        self.parameters.push(parameter.schema(Some(schema)).example(Some(example.into())).build());
        self
    }

    /// A path parameter that is text of this form.
    pub(in crate::admin) fn segment_like(mut self, name: &'static str, pattern: &str, example: &str) -> Self {
        let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
        self.parameters.push(parameter.schema(Some(schema)).example(Some(example.into())).build());
        self
    }

    /// The query parameters, those of `P`.
    pub(in crate::admin) fn query<P: IntoParams>(mut self) -> Self {
        self.parameters.extend(P::into_params(|| Some(ParameterIn::Query)));
        self
    }

    /// Whether it has query parameters.
    pub(in crate::admin) fn takes_query(&self) -> bool {
        self.parameters.iter().any(|it| it.parameter_in == ParameterIn::Query)
    }

    /// It heeds `If-Match`.
    pub(in crate::admin) fn conditional(mut self) -> Self {
        self.conditional = true;
        self
    }

    /// It takes a body, which must be there.
    pub(in crate::admin) fn body<T: ToSchema>(mut self, example: Value) -> Self {
        let content = self.closed::<T>(example);
        self.body = Some(Body { required: true, media_types: &[JSON], content });
        self
    }

    /// It takes a body that changes what `T` makes: none of its members must be there, and some must not. The schema
    /// is called `name`.
    pub(in crate::admin) fn change<T: ToSchema>(
        mut self,
        name: &'static str,
        without: &[&str],
        example: Value,
    ) -> Self {
        T::schemas(&mut self.schemas);
        let mut object = part_of::<T>(without);
        object.required.clear();
        object.description = Some("A change: members that are not given stay.".to_owned());
        self.schemas.push((name.to_owned(), RefOr::T(object.into())));
        let content = content(Ref::from_schema_name(name), example);
        self.body = Some(Body { required: true, media_types: &[JSON], content });
        self
    }

    /// Its body, which was told last, has the members of `M` too; they take the place of those of the same name.
    pub(in crate::admin) fn with_members<M: ToSchema>(mut self) -> Self {
        if let Some((_, RefOr::T(Schema::Object(body)))) = self.schemas.last_mut() {
            body.properties.extend(part_of::<M>(&[]).properties);
        }
        M::schemas(&mut self.schemas);
        self
    }

    /// Its body is a JSON Merge Patch (RFC 7396).
    pub(in crate::admin) fn merge_patch(mut self) -> Self {
        if let Some(body) = &mut self.body {
            body.media_types = &[MERGE_PATCH, JSON];
        }
        self
    }

    /// In its body, which is called `name`, `null` says of a member that it is not given.
    pub(in crate::admin) fn nullable(mut self, name: &'static str) -> Self {
        let Some(Body { content, .. }) = &mut self.body else { return self };
        let Some(RefOr::Ref(known)) = &content.schema else { return self };
        let known = known.ref_location.rsplit('/').next().unwrap_or_default();
        let found = self.schemas.iter().find_map(|(name, schema)| (name == known).then_some(schema));
        if let Some(RefOr::T(Schema::Object(object))) = found {
            let mut object = object.clone();
            for (member, schema) in &mut object.properties {
                if !object.required.contains(member) {
                    *schema = or_null(schema.clone());
                }
            }
            content.schema = Some(Ref::from_schema_name(name).into());
            self.schemas.push((name.to_owned(), RefOr::T(object.into())));
        }
        self
    }

    /// It takes a body, which may be left out.
    pub(in crate::admin) fn optional_body<T: ToSchema>(mut self, example: Value) -> Self {
        let content = self.closed::<T>(example);
        self.body = Some(Body { required: false, media_types: &[JSON], content });
        self
    }

    /// It takes a body without members, which may be left out.
    pub(in crate::admin) fn empty_body(mut self) -> Self {
        let nothing = ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .description(Some("An object without members."));
        self.schemas.push((NOTHING.to_owned(), nothing.into()));
        let content = content(Ref::from_schema_name(NOTHING), Value::Object(serde_json::Map::new()));
        self.body = Some(Body { required: false, media_types: &[JSON], content });
        self
    }

    /// It answers with JSON.
    pub(in crate::admin) fn reply<T: ToSchema>(mut self, status: StatusCode, example: Value) -> Self {
        let schema = self.schema_of::<T>();
        self.replies.push(Reply {
            status,
            contents: vec![(JSON, content(schema, example))],
            tagged: false,
            located: false,
        });
        self
    }

    /// The last reply may also be this.
    pub(in crate::admin) fn or<T: ToSchema>(mut self, example: Value) -> Self {
        let other = self.schema_of::<T>();
        if let Some((_, content)) = self.last_reply().contents.first_mut()
            && let Some(first) = content.schema.take()
        {
            content.schema = Some(AnyOfBuilder::new().item(first).item(other).into());
        }
        if let Some((_, content)) = self.last_reply().contents.first_mut()
            && let Some(first) = content.example.take()
        {
            for (name, value) in [("first", first), ("second", example)] {
                let example = ExampleBuilder::new().value(Some(value)).build();
                content.examples.insert(name.to_owned(), RefOr::T(example));
            }
        }
        self
    }

    /// It answers with a list `L` of `T`.
    pub(in crate::admin) fn list<L: ToSchema, T: ToSchema>(mut self, example: Value) -> Self {
        self.schema_of::<T>();
        self.reply::<L>(StatusCode::OK, example)
    }

    /// It answers without a body.
    pub(in crate::admin) fn done(mut self) -> Self {
        self.replies.push(Reply {
            status: StatusCode::NO_CONTENT,
            contents: Vec::new(),
            tagged: false,
            located: false,
        });
        self
    }

    /// It answers with what is no JSON value, as one of these media types; `example` is of the first.
    pub(in crate::admin) fn text(
        mut self,
        status: StatusCode,
        media_types: &[&'static str],
        example: &'static str,
    ) -> Self {
        let mut example = Some(example.into());
        let text = |media_type: &&'static str| {
            let mut content = Content::new(Some(ObjectBuilder::new().schema_type(Type::String)));
            content.example = example.take();
            (*media_type, content)
        };
        let contents = media_types.iter().map(text).collect();
        self.replies.push(Reply { status, contents, tagged: false, located: false });
        self
    }

    /// The last reply tells its version as `ETag`.
    pub(in crate::admin) fn tagged(mut self) -> Self {
        self.last_reply().tagged = true;
        self
    }

    /// The last reply tells where what it made is.
    pub(in crate::admin) fn located(mut self) -> Self {
        self.last_reply().located = true;
        self
    }

    /// It may be refused for these reasons too.
    pub(in crate::admin) fn refused(mut self, codes: &[Code]) -> Self {
        self.refusals.extend(codes);
        self
    }

    fn last_reply(&mut self) -> &mut Reply {
        self.replies.last_mut().expect("a reply is told before more is told of it")
    }

    /// A reference to a type's schema, which goes into the document with all that it refers to.
    fn schema_of<T: ToSchema>(&mut self) -> RefOr<Schema> {
        self.add::<T>(T::schema())
    }

    fn add<T: ToSchema>(&mut self, schema: RefOr<Schema>) -> RefOr<Schema> {
        T::schemas(&mut self.schemas);
        // What is no object is told in place, and so is what is generic: its name is that of all of its kind.
        let is_generic = std::any::type_name::<T>().contains('<');
        if is_generic
            || !matches!(&schema, RefOr::T(Schema::Object(object)) if !object.properties.is_empty())
                && !matches!(&schema, RefOr::T(Schema::OneOf(_) | Schema::AllOf(_)))
        {
            return schema;
        }
        let name = T::name().into_owned();
        self.schemas.push((name.clone(), schema));
        Ref::from_schema_name(name).into()
    }

    /// What a request may hold: members that are not known are refused.
    fn closed<T: ToSchema>(&mut self, example: Value) -> Content {
        let mut schema = <T as PartialSchema>::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
        let schema = self.add::<T>(schema);
        content(schema, example)
    }
}

fn content(schema: impl Into<RefOr<Schema>>, example: Value) -> Content {
    let mut content = Content::new(Some(schema));
    content.example = Some(example);
    content
}
