//! The variables of an expression, made from an event: only those, and of each only the part, that is looked at.

use std::{borrow::Cow, collections::HashMap, fmt};

use cel::{
    Context,
    common::{
        types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt},
        value::Val,
    },
};
use hookmill_actors::ports::program::{ProgramFault, Subject};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::wanted::{Wanted, Wants};
use crate::programs::{
    body::{self, Body},
    facts,
};

type Boxed<'a> = Box<dyn Val + 'a>;

/// Declares what is looked at. Values borrow from the event where they can.
pub(super) fn declare<'a>(
    context: &mut Context<'_, 'a>,
    wants: &Wants,
    subject: &'a Subject,
) -> Result<(), ProgramFault> {
    if wants.event.any() {
        context.add_variable_as_val("event", event(&wants.event, subject));
    }
    if wants.headers.any() {
        let headers = facts::headers(&subject.event.arrival.headers, |name| wants.headers.member(name).any());
        context.add_variable_as_val("headers", texts(headers));
    }
    if wants.query.any() {
        let members = body::form(subject.event.arrival.query.as_bytes());
        context.add_variable_as_val("query", texts(members.filter(|(name, _)| wants.query.member(name).any())));
    }
    if wants.body.any() {
        context.add_variable_as_val("body", parsed(&wants.body, subject)?);
    }
    Ok(())
}

fn event<'a>(wanted: &Wanted, subject: &'a Subject) -> Boxed<'a> {
    let arrival = &subject.event.arrival;
    let mut members = Members::default();
    let mut add = |name: &'static str, make: &dyn Fn() -> Boxed<'a>| {
        if wanted.member(name).any() {
            members.0.insert(name.into(), make());
        }
    };
    let optional = |value: &'a Option<Box<str>>| -> Boxed<'a> {
        value.as_deref().map_or_else(|| Box::new(CelNull) as Boxed<'a>, text)
    };
    add("id", &|| text(subject.event.id.to_string()));
    add("type", &|| optional(&subject.identity.event_type));
    add("provider_id", &|| optional(&subject.identity.provider_id));
    add("received_at", &|| text(facts::time(arrival.received_at_ms)));
    add("endpoint_id", &|| int(u64::from(arrival.endpoint.0)));
    add("query", &|| text(&*arrival.query));
    add("size", &|| int(arrival.body.len() as u64));
    add("peer", &|| text(arrival.peer.to_string()));
    add("integration", &|| {
        let (id, name) = &subject.integration;
        let members = [(CelMapKey::from("id"), int(u64::from(id.0))), (CelMapKey::from("name"), text(&**name))];
        Box::new(CelMap::from(HashMap::from(members)))
    });
    members.into_value()
}

fn parsed<'a>(wanted: &Wanted, subject: &'a Subject) -> Result<Boxed<'a>, ProgramFault> {
    match Body::of(&subject.event) {
        Body::Json(bytes) => {
            let mut deserializer = serde_json::Deserializer::from_slice(bytes);
            let value = Pick { wanted, depth: 0 }.deserialize(&mut deserializer);
            match value.and_then(|value| deserializer.end().map(|()| value)) {
                Ok(value) => Ok(value),
                Err(error) if error.is_data() => Err(ProgramFault(body::TOO_DEEP.to_owned())),
                Err(_) => Ok(Box::new(CelNull)),
            }
        }
        Body::Form(bytes) => Ok(texts(body::form(bytes).filter(|(name, _)| wanted.member(name).any()))),
        Body::Other => Ok(Box::new(CelNull)),
    }
}

#[derive(Default)]
struct Members<'a>(HashMap<CelMapKey<'a>, Boxed<'a>>);

impl<'a> Members<'a> {
    fn into_value(self) -> Boxed<'a> {
        Box::new(CelMap::from(self.0))
    }
}

/// Of a repeated name the last counts.
fn texts<'a>(members: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Boxed<'a> {
    let members = members.map(|(name, value)| (CelMapKey::String(CelString::from(name)), text(value)));
    Members(members.collect()).into_value()
}

fn text<'a>(text: impl Into<Cow<'a, str>>) -> Boxed<'a> {
    Box::new(CelString::from(text.into()))
}

fn int<'a>(number: u64) -> Boxed<'a> {
    match i64::try_from(number) {
        Ok(number) => Box::new(CelInt::from(number)),
        Err(_) => Box::new(CelUInt::from(number)),
    }
}

/// Reads the wanted part of a JSON value and passes over the rest without keeping it.
#[derive(Clone, Copy)]
struct Pick<'w> {
    wanted: &'w Wanted,
    depth: usize,
}

impl<'w> Pick<'w> {
    fn below<E: Error>(self, wanted: &'w Wanted) -> Result<Self, E> {
        if self.depth == body::DEPTH_MAX {
            return Err(E::custom(body::TOO_DEEP));
        }
        Ok(Self { wanted, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Boxed<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Boxed<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(text(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(text(value.to_owned()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(int(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Box::new(CelInt::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Box::new(CelDouble::from(value)))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Box::new(CelBool::from(value)))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Box::new(CelNull))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        if *self.wanted == Wanted::All {
            let below = self.below(self.wanted)?;
            while let Some(item) = seq.next_element_seed(below)? {
                items.push(item);
            }
        } else {
            // Only members are asked for, and a list has none: its type says so.
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(Box::new(CelList::from(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some(Name(name)) = map.next_key()? {
            let part = self.wanted.member(&name);
            if part.any() {
                let value = map.next_value_seed(self.below(part)?)?;
                members.0.insert(CelMapKey::String(CelString::from(name)), value);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(members.into_value())
    }
}

/// A member's name, borrowed where it has no escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}
