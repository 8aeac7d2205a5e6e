//! What a connection test asks of whom: from an integration's configuration and credentials to one request, or the
//! reason why there is none. Pure; no words repeat a credential or a URL.

use hookmill_actors::domain::{
    config::{Integration, IntegrationType},
    secret::Secret,
};
use serde_json::{Map, Value};

/// A check of one's own, for an integration of any type.
const HEALTH_CHECK_URL: &str = "health_check_url";
const BASE_URL: &str = "base_url";
const HEADERS: &str = "headers";
const AUTH_TYPE: &str = "auth_type";
/// Headers of a check, at most.
const HEADERS_MAX: usize = 32;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// There is nothing to ask; why not.
    Nothing(String),
    /// It cannot be asked as it is configured; why not.
    Fault(String),
    /// Ask this.
    Ask(Request),
}

/// A `GET`.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The member of `configuration` that names the server.
    pub field: &'static str,
    /// Where to.
    pub url: String,
    /// The operator's own headers.
    pub headers: Vec<(String, String)>,
    /// Who we are.
    pub sign_in: SignIn,
    /// Statuses that pass; every other fails.
    pub passes: &'static [u16],
}

/// How a request signs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignIn {
    /// Not at all.
    Nobody,
    /// With a bearer token.
    Bearer(Secret),
    /// With a name and a password.
    Basic(Secret, Secret),
}

/// The test of an integration whose credentials are open; without any, `credentials` is empty.
pub(super) fn plan(integration: &Integration, credentials: &Map<String, Value>) -> Plan {
    let settings = Settings { configuration: &integration.configuration, credentials };
    let made = match integration.configuration.get(HEALTH_CHECK_URL) {
        Some(_) => settings.health_check(),
        None => settings.of_type(integration.kind),
    };
    made.unwrap_or_else(Plan::Fault)
}

struct Settings<'a> {
    configuration: &'a Map<String, Value>,
    credentials: &'a Map<String, Value>,
}

impl Settings<'_> {
    fn of_type(&self, kind: IntegrationType) -> Result<Plan, String> {
        let needs = match kind {
            IntegrationType::PaymentGateway | IntegrationType::SmsProvider | IntegrationType::EmailProvider => BASE_URL,
            IntegrationType::Custom => HEALTH_CHECK_URL,
            _ => {
                return Ok(Plan::Nothing(format!(
                    "integrations of this type have no test of their own; `configuration.{HEALTH_CHECK_URL}` gives one"
                )));
            }
        };
        let Some(base) = self.base_url()? else {
            return Ok(Plan::Nothing(format!("`configuration` has no `{needs}`")));
        };
        let (path, sign_in) = match kind {
            IntegrationType::PaymentGateway => ("/v1/account".to_owned(), SignIn::Bearer(self.credential("api_key")?)),
            IntegrationType::EmailProvider => {
                ("/v3/user/account".to_owned(), SignIn::Bearer(self.credential("api_key")?))
            }
            IntegrationType::SmsProvider => {
                let (account, token) = (self.credential("account_sid")?, self.credential("auth_token")?);
                (format!("/accounts/{}", segment(&account, "account_sid")?), SignIn::Basic(account, token))
            }
            _ => return Ok(Plan::Nothing(format!("`configuration` has no `{needs}`"))),
        };
        let url = format!("{base}{path}");
        Ok(Plan::Ask(Request { field: BASE_URL, url, headers: Vec::new(), sign_in, passes: &[200] }))
    }

    fn health_check(&self) -> Result<Plan, String> {
        let url = self.text(HEALTH_CHECK_URL)?.unwrap_or_default();
        let sign_in = match self.text(AUTH_TYPE)?.map(str::to_ascii_lowercase).as_deref() {
            Some("bearer") => SignIn::Bearer(self.credential("token")?),
            Some("basic") => SignIn::Basic(self.credential("username")?, self.credential("password")?),
            Some("none") => SignIn::Nobody,
            Some(_) => return Err(format!("`configuration.{AUTH_TYPE}` must be `bearer`, `basic` or `none`")),
            None if self.credentials.contains_key("token") => SignIn::Bearer(self.credential("token")?),
            None if self.credentials.contains_key("username") => {
                SignIn::Basic(self.credential("username")?, self.credential("password")?)
            }
            None => SignIn::Nobody,
        };
        Ok(Plan::Ask(Request {
            field: HEALTH_CHECK_URL,
            url: url.to_owned(),
            headers: self.headers()?,
            sign_in,
            passes: &[200, 201, 202, 204],
        }))
    }

    /// Without a slash at its end.
    fn base_url(&self) -> Result<Option<&str>, String> {
        let Some(base) = self.text(BASE_URL)? else { return Ok(None) };
        if base.contains(['?', '#']) {
            return Err(format!("`configuration.{BASE_URL}` must have neither query nor fragment"));
        }
        Ok(Some(base.trim_end_matches('/')))
    }

    fn headers(&self) -> Result<Vec<(String, String)>, String> {
        let texts = || format!("`configuration.{HEADERS}` must be an object of texts");
        let members = match self.configuration.get(HEADERS) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Object(members)) => members,
            Some(_) => return Err(texts()),
        };
        if members.len() > HEADERS_MAX {
            return Err(format!("`configuration.{HEADERS}` has more than {HEADERS_MAX} members"));
        }
        let header = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        members.iter().map(header).collect::<Option<_>>().ok_or_else(texts)
    }

    fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.configuration.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => Err(format!("`configuration.{name}` is empty")),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`configuration.{name}` must be a string")),
        }
    }

    fn credential(&self, name: &str) -> Result<Secret, String> {
        match self.credentials.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Ok(Secret::new(text.clone())),
            Some(Value::Number(number)) => Ok(Secret::new(number.to_string())),
            None => Err(format!("`credentials` have no `{name}`")),
            Some(_) => Err(format!("`credentials.{name}` must be a text that is not empty")),
        }
    }
}

/// A credential that stands in a path: what could lead elsewhere is refused, not escaped.
fn segment<'a>(secret: &'a Secret, name: &str) -> Result<&'a str, String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let text = secret.expose_str().filter(|text| text.bytes().all(fine) && !text.bytes().all(|byte| byte == b'.'));
    text.ok_or_else(|| format!("`credentials.{name}` must consist of letters, digits and `-._~`"))
}

#[cfg(test)]
mod tests {
    use hookmill_actors::domain::{
        config::{Environment, IntegrationStatus, Meta},
        ids::IntegrationId,
    };
    use serde_json::json;

    use super::*;

    const PLANTED: &str = "planted-secret-4711";

    fn of(kind: IntegrationType, configuration: Value, credentials: Value) -> Plan {
        let map = |value: Value| value.as_object().cloned().expect("an object");
        let integration = Integration {
            id: IntegrationId(1),
            name: "shop".to_owned(),
            kind,
            provider: "none".to_owned(),
            description: None,
            environment: Environment::Production,
            status: IntegrationStatus::Active,
            configuration: map(configuration),
            credentials: None,
            meta: Meta::default(),
        };
        plan(&integration, &map(credentials))
    }

    fn asked(plan: Plan) -> Request {
        match plan {
            Plan::Ask(request) => request,
            other => panic!("nothing is asked: {other:?}"),
        }
    }

    #[test]
    fn each_type_asks_what_its_adapter_asked() {
        let key = || Secret::new(PLANTED);
        for (kind, credentials, url, sign_in) in [
            (
                IntegrationType::PaymentGateway,
                json!({"api_key": PLANTED}),
                "https://api.example/v1/account",
                SignIn::Bearer(key()),
            ),
            (
                IntegrationType::EmailProvider,
                json!({"api_key": PLANTED}),
                "https://api.example/v3/user/account",
                SignIn::Bearer(key()),
            ),
            (
                IntegrationType::SmsProvider,
                json!({"account_sid": "AC1", "auth_token": PLANTED}),
                "https://api.example/accounts/AC1",
                SignIn::Basic(Secret::new("AC1"), key()),
            ),
        ] {
            for base in ["https://api.example", "https://api.example/"] {
                let request = asked(of(kind, json!({"base_url": base, "provider": "x"}), credentials.clone()));
                assert_eq!((request.url.as_str(), &request.sign_in, request.passes), (url, &sign_in, &[200][..]));
            }
        }
        let custom = json!({"health_check_url": "https://x.example/health?a=1", "headers": {"X-Team": "billing"}});
        let request = asked(of(IntegrationType::Custom, custom, json!({"username": "u", "password": PLANTED})));
        assert_eq!(request.url, "https://x.example/health?a=1");
        assert_eq!(request.sign_in, SignIn::Basic(Secret::new("u"), key()));
        assert_eq!(request.headers, [("X-Team".to_owned(), "billing".to_owned())]);
        assert_eq!(request.passes, [200, 201, 202, 204]);
    }

    #[test]
    fn where_there_is_nothing_to_ask_that_is_said() {
        for kind in [IntegrationType::Analytics, IntegrationType::Crm, IntegrationType::Storage] {
            let Plan::Nothing(words) = of(kind, json!({}), json!({})) else { panic!("there is nothing to ask") };
            assert!(words.contains("health_check_url"), "{words}");
        }
        for (kind, missing) in [
            (IntegrationType::PaymentGateway, "base_url"),
            (IntegrationType::Custom, "health_check_url"),
            (IntegrationType::SmsProvider, "base_url"),
        ] {
            let Plan::Nothing(words) = of(kind, json!({}), json!({"api_key": PLANTED})) else { panic!("{missing}") };
            assert!(words.contains(missing), "{words}");
        }
        let own = json!({"health_check_url": "https://x.example"});
        assert!(matches!(of(IntegrationType::Crm, own, json!({})), Plan::Ask(_)), "of any type");
    }

    #[test]
    fn a_sign_in_that_was_asked_for_is_never_left_out() {
        let health = |auth_type: Value| json!({"health_check_url": "https://x.example", "auth_type": auth_type});
        for (configuration, credentials, says) in [
            (health(json!("bearer")), json!({}), "`token`"),
            (health(json!("BEARER")), json!({"username": "u", "password": PLANTED}), "`token`"),
            (health(json!("basic")), json!({"username": "u"}), "`password`"),
            (health(json!("digest")), json!({}), "`bearer`, `basic` or `none`"),
            (health(Value::Null), json!({"username": "u"}), "`password`"),
            (health(Value::Null), json!({"token": {"a": PLANTED}}), "`credentials.token`"),
        ] {
            let Plan::Fault(words) = of(IntegrationType::Custom, configuration, credentials) else { panic!("{says}") };
            assert!(words.contains(says) && !words.contains(PLANTED), "{words}");
        }
    }

    #[test]
    fn what_would_lead_elsewhere_is_refused() {
        let base = || json!({"base_url": "https://api.example"});
        for sid in ["../x", "a/b", "..", "a?b", "a b", ""] {
            let credentials = json!({"account_sid": sid, "auth_token": PLANTED});
            assert!(matches!(of(IntegrationType::SmsProvider, base(), credentials), Plan::Fault(_)), "{sid}");
        }
        for wrong in [json!("https://x.example/?token=a"), json!("https://x.example/#a"), json!(7), json!(" ")] {
            let plan = of(IntegrationType::PaymentGateway, json!({"base_url": wrong}), json!({"api_key": PLANTED}));
            let Plan::Fault(words) = plan else { panic!("{wrong}") };
            assert!(words.contains("base_url") && !words.contains("token=a"), "{words}");
        }
        for headers in [json!([]), json!({"a": 1})] {
            let configuration = json!({"health_check_url": "https://x.example", "headers": headers});
            assert!(matches!(of(IntegrationType::Custom, configuration, json!({})), Plan::Fault(_)));
        }
    }
}
