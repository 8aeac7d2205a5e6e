//! The HTTP client of the command line: one connector, TLS by rustls.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

/// As every request calls itself.
pub(in crate::cli) const USER_AGENT: &str = concat!("hookmill/", env!("CARGO_PKG_VERSION"));

pub(in crate::cli) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that trusts the authorities of that PEM alone, or else the common ones.
pub(in crate::cli) fn client(authorities: Option<&str>) -> anyhow::Result<HttpClient> {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS cannot be set up")?;
    let tls = match authorities {
        None => tls.with_webpki_roots(),
        Some(pem) => tls.with_root_certificates(roots(pem)?),
    };
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth()).https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

fn roots(pem: &str) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.ok().context("the authorities are no PEM of certificates")?;
        roots.add(certificate).context("one of the authorities is none")?;
    }
    anyhow::ensure!(!roots.is_empty(), "the file of authorities holds no certificate in PEM");
    Ok(roots)
}
