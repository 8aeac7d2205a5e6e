//! The registry of schemes. A provider is one file beneath this one and one line in the list below; the file
//! holds everything that is peculiar to it, and no I/O.
//! The ingress verifies with what it finds here, integration actors identify, the command line signs.

use hookmill_actors::ports::provider::{Provider, Providers};

pub(crate) mod doctor;
mod members;
mod payload;
pub(crate) mod signature;
pub(crate) mod template;

/// Declares each provider's module and lists its `PROVIDER`. `cargo fmt` does not see modules that a macro
/// declares: run `rustfmt --edition 2024` on them.
macro_rules! providers {
    ($($name:ident,)+) => {
        $(mod $name;)+
        /// By name, sorted.
        static PROVIDERS: &[&dyn Provider] = &[$($name::PROVIDER,)+];
    };
}

providers! {
    generic_hmac,
    github,
    none,
    standard_webhooks,
    stripe,
}

/// The scheme of an integration that names none: what the module that hookmill replaces did.
pub const DEFAULT: &str = "generic_hmac";

/// Every scheme that is compiled in.
#[derive(Clone, Copy, Debug)]
pub struct Registry(());

/// The registry.
pub fn registry() -> &'static Registry {
    &Registry(())
}

impl Providers for Registry {
    fn get(&self, name: &str) -> Option<&'static dyn Provider> {
        PROVIDERS.iter().copied().find(|provider| provider.name() == name)
    }

    fn names(&self) -> Vec<&'static str> {
        PROVIDERS.iter().map(|provider| provider.name()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use hookmill_actors::{
        domain::{headers::HeaderBlock, secret::Secret},
        ports::provider::InboundRequest,
    };
    use serde_json::{Map, json};

    use super::*;

    /// A `POST` for the providers' tests.
    pub(super) fn post<'a>(headers: &'a HeaderBlock, body: &'a [u8]) -> InboundRequest<'a> {
        InboundRequest { method: "POST", target: "/hook?a=1", headers, body, peer: IpAddr::V4(Ipv4Addr::LOCALHOST) }
    }

    /// Header lines as a block.
    pub(super) fn block(lines: &[(&str, &str)]) -> HeaderBlock {
        HeaderBlock::from_lines(lines.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    #[test]
    fn names_are_sorted_and_found() {
        let names = registry().names();
        assert!(names.is_sorted(), "{names:?}");
        for name in names {
            assert_eq!(registry().get(name).map(Provider::name), Some(name));
        }
        assert!(registry().get("no_such").is_none());
    }

    #[test]
    fn what_a_provider_signs_it_verifies_and_identifies() {
        let now_ms = 1_700_000_000_123;
        for provider in PROVIDERS {
            let secret = provider.new_secret(&[9; 32]);
            let other = provider.new_secret(&[8; 32]);
            let (content_type, body) = provider.sample("evt_test_1");
            let signed = provider.sign(&Map::new(), &secret, "evt_test_1", &body, now_ms).expect("signs");
            let headers = HeaderBlock::from_lines(
                signed
                    .headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_bytes()))
                    .chain([("content-type", content_type.as_bytes())]),
            );
            let verifier = provider.verifier(&Map::new(), &[other.clone(), secret]).expect("compiles");
            let name = provider.name();
            let outcome =
                verifier.verify(&post(&headers, &body), now_ms).unwrap_or_else(|error| panic!("{name}: {error}"));
            if !signed.headers.is_empty() {
                assert_eq!(outcome.secret_index, 1, "{name}");
                let verifier = provider.verifier(&Map::new(), &[other]).expect("compiles");
                assert!(verifier.verify(&post(&headers, &body), now_ms).is_err(), "{name}: another secret");
            }

            let lines: Vec<(&str, &str)> =
                signed.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let identity = provider.identify(&Map::new(), &payload::tests::event(&lines, &body));
            assert_eq!(identity.provider_id.as_deref(), Some("evt_test_1"), "{name}");
            assert!(identity.event_type.is_some(), "{name}");
        }
    }

    #[test]
    fn every_provider_says_how_to_set_it_up() {
        for provider in PROVIDERS {
            let (guide, name) = (provider.guide(), provider.name());
            assert!(!guide.secret.is_empty() && !guide.url.is_empty(), "{name}");
            assert!(guide.reference.starts_with("https://"), "{name}");
        }
    }

    /// What the schema says is right is taken, and what it says is wrong is refused at that member.
    #[test]
    fn a_schema_says_what_the_reader_takes() {
        for provider in PROVIDERS {
            let (schema, name) = (provider.settings_schema(), provider.name());
            assert_eq!(schema["additionalProperties"], false, "{name}");
            let secrets = [provider.new_secret(&[9; 32])];
            let fault = |member: &str, value: serde_json::Value| {
                let settings = Map::from_iter([(member.to_owned(), value)]);
                provider.verifier(&settings, &secrets).err().map(|error| error.field)
            };
            for (member, schema) in schema["properties"].as_object().expect("an object") {
                let of = |key: &str| schema[key].as_array().cloned().unwrap_or_default();
                let right = of("enum").into_iter().chain(of("examples")).chain(schema.get("default").cloned());
                for value in right {
                    // Alone, a member may miss another that belongs to it; but not be wrong itself.
                    let alone = fault(member, value.clone()).is_some_and(|field| field == *member);
                    assert!(!alone || member.ends_with("encoding"), "{name}: `{member}` does not take {value}");
                }
                let wrong = [json!({}), json!(true), json!([1])];
                let too_small = schema.get("minimum").map(|_| json!(0));
                let too_large = schema.get("maximum").and_then(serde_json::Value::as_u64).map(|most| json!(most + 1));
                let unknown = schema.get("enum").map(|_| json!("no such"));
                for value in wrong.into_iter().chain(too_small).chain(unknown) {
                    assert!(fault(member, value.clone()).is_some(), "{name}: `{member}` takes {value}");
                }
                assert!(too_large.is_none_or(|value| fault(member, value).is_some()), "{name}: `{member}`");
            }
        }
    }

    #[test]
    fn a_sample_survives_any_id() {
        for provider in PROVIDERS {
            let (_, body) = provider.sample("a\"b\\c");
            let name = provider.name();
            assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok(), "{name}");
        }
    }

    #[test]
    fn an_empty_secret_is_refused() {
        for provider in PROVIDERS.iter().filter(|provider| provider.name() != "none") {
            let secrets = [provider.new_secret(&[9; 32]), Secret::new("")];
            let Err(error) = provider.verifier(&Map::new(), &secrets) else {
                panic!("{} takes an empty secret", provider.name());
            };
            assert_eq!(error.field, "secrets[1]");
            assert!(provider.verifier(&Map::new(), &[]).is_err());
        }
    }

    #[test]
    fn unknown_members_are_refused_without_their_value() {
        let settings = members::tests::map(json!({ "tolerance": "s3cret" }));
        for provider in PROVIDERS {
            let Err(error) = provider.verifier(&settings, &[provider.new_secret(&[9; 32])]) else {
                panic!("{} takes unknown members", provider.name());
            };
            assert_eq!(error.field, "tolerance");
            assert!(!error.to_string().contains("s3cret"));
        }
    }
}
