//! One `GET` to a third party, within the egress rules: how connection tests ask. Redirects are not followed, nothing of
//! the reply is read beyond its head, and nothing of it is told but its status. Lookups and connections are its own, so
//! that a thousand dead hosts hold up no delivery.

use std::{sync::Arc, time::Duration};

use hookmill_actors::domain::secret::Secret;
use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, USER_AGENT},
};
use tokio::time::timeout;

use super::{
    egress::{
        Egress,
        connector::{CONNECTING, Connecting, Connector},
    },
    header_rules,
    http::{
        client::{HttpClient, Route, client, common_tls},
        failure,
        settings::basic,
    },
    url::{self, Scheme, Server},
};

const SCHEMES: [Scheme; 2] = [("http", 80), ("https", 443)];
const PRODUCT: &str = concat!("hookmill/", env!("CARGO_PKG_VERSION"));
/// To reach the other side and shake hands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is asked.
pub struct Asking<'a> {
    /// The member that names the server, for the words.
    pub field: &'a str,
    /// Where to: absolute, `http` or `https`.
    pub url: &'a str,
    /// The operator's own headers.
    pub headers: &'a [(String, String)],
    /// `authorization`, where it signs in.
    pub authorization: Option<&'a Secret>,
    /// For all of it.
    pub timeout: Duration,
}

/// Asks third parties. Clones share their connections.
#[derive(Clone)]
pub struct Prober {
    client: HttpClient,
    egress: Arc<Egress>,
}

impl Prober {
    pub(super) fn new(egress: Arc<Egress>) -> Self {
        let route = Route::new(Connector::new(egress.clone()), None);
        Self { client: client(route, common_tls()), egress }
    }

    /// The status that came, or in words that hold no secret why none did.
    pub async fn ask(&self, asking: &Asking<'_>) -> Result<u16, String> {
        let request = self.request(asking)?;
        let exchange = CONNECTING.scope(Connecting::within(CONNECT_TIMEOUT), self.client.request(request));
        match timeout(asking.timeout, exchange).await {
            Ok(Ok(response)) => Ok(response.status().as_u16()),
            Ok(Err(error)) => Err(failure::of(&error).1),
            Err(_) => Err(format!("no answer within {} ms", asking.timeout.as_millis())),
        }
    }

    fn request(&self, asking: &Asking<'_>) -> Result<Request<Full<bytes::Bytes>>, String> {
        let member = |error: hookmill_actors::ports::provider::SettingsError| {
            format!("`configuration.{}` {}", error.field, error.problem)
        };
        let uri = url::parse(asking.field, asking.url, &SCHEMES).map_err(member)?;
        Server::of(&uri, &SCHEMES).check(asking.field, &self.egress).map_err(member)?;
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(PRODUCT));
        for (given, value) in asking.headers {
            let shown: String = given.chars().filter(|char| !char.is_control()).take(64).collect();
            let (name, value) = header_rules::added(given, value)
                .map_err(|problem| format!("`configuration.headers`: the header `{shown}` {problem}"))?;
            if header_rules::is_secret(&name) {
                return Err(format!(
                    "`configuration.headers`: the header `{shown}` looks like a secret, which configuration shows; \
                     put it into `credentials`"
                ));
            }
            headers.insert(name, value);
        }
        if let Some(secret) = asking.authorization {
            let mut value = HeaderValue::from_bytes(secret.expose())
                .map_err(|_| "`credentials` hold a character that no header may hold".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// The value of `authorization` for a bearer token.
pub fn bearer(token: &Secret) -> Secret {
    Secret::new([b"Bearer ", token.expose()].concat())
}

/// The value of `authorization` for a name and a password (RFC 7617).
pub fn basic_authorization(user: &Secret, password: &Secret) -> Secret {
    Secret::new(basic(user, password))
}

/// A status in words, with what a redirect means here.
pub fn status_words(status: u16) -> String {
    let known = StatusCode::from_u16(status).ok();
    let reason = known.and_then(|status| status.canonical_reason()).map_or_else(String::new, |text| format!(" {text}"));
    let redirect =
        if known.is_some_and(|status| status.is_redirection()) { "; redirects are not followed" } else { "" };
    format!("it answered {status}{reason}{redirect}")
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::{super::OwnAddresses, *};

    fn prober(allow: &[&str]) -> Prober {
        let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
        Prober::new(Arc::new(Egress::new(allow, OwnAddresses::default())))
    }

    fn asking<'a>(url: &'a str, authorization: Option<&'a Secret>, headers: &'a [(String, String)]) -> Asking<'a> {
        Asking { field: "base_url", url, headers, authorization, timeout: Duration::from_secs(5) }
    }

    /// Answers one request with these bytes; gives what it was asked.
    async fn peer(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/account", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let length = stream.read(&mut buffer).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        });
        (url, asked)
    }

    #[tokio::test]
    async fn it_signs_in_and_tells_the_status_and_nothing_else() {
        let (url, asked) =
            peer("HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 6\r\n\r\nplante").await;
        let token = bearer(&Secret::new("hush"));
        let headers = [("X-Team".to_owned(), "billing".to_owned())];
        assert_eq!(prober(&["127.0.0.0/8"]).ask(&asking(&url, Some(&token), &headers)).await, Ok(302));
        let asked = asked.await.unwrap().to_ascii_lowercase();
        assert!(asked.starts_with("get /v1/account http/1.1\r\n"), "{asked}");
        for line in ["authorization: bearer hush\r\n", "x-team: billing\r\n"] {
            assert!(asked.contains(line), "{asked}");
        }
        assert_eq!(status_words(302), "it answered 302 Found; redirects are not followed");
        assert_eq!(status_words(799), "it answered 799");
    }

    #[tokio::test]
    async fn inside_addresses_are_not_asked_and_no_words_hold_a_secret() {
        let strict = prober(&[]);
        for url in ["http://127.0.0.1:9/", "http://169.254.169.254/latest?token=hush", "http://localhost:9/"] {
            let words = strict.ask(&asking(url, None, &[])).await.unwrap_err();
            assert!(words.contains("egress.allow") && !words.contains("hush"), "{words}");
        }
        for url in ["ftp://x.example", "https://u:hush@x.example", "https://", "x"] {
            let words = strict.ask(&asking(url, None, &[])).await.unwrap_err();
            assert!(words.starts_with("`configuration.base_url` ") && !words.contains("hush"), "{words}");
        }
        for (name, value) in [("Host", "x"), ("x-api-key", "hush"), ("a b", "hush")] {
            let headers = [(name.to_owned(), value.to_owned())];
            let words = strict.ask(&asking("https://x.example", None, &headers)).await.unwrap_err();
            assert!(words.contains("configuration.headers") && !words.contains("hush"), "{words}");
        }
        let broken = Secret::new("Bearer hush\r\nx: y");
        let words = strict.ask(&asking("https://x.example", Some(&broken), &[])).await.unwrap_err();
        assert!(words.contains("credentials") && !words.contains("hush"), "{words}");
    }
}
