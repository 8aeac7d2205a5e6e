//! An event in words that are the same for every provider.

use serde::{Deserialize, Serialize};

/// What happened, without the provider's own form. Made by `Provider::canonicalize`, never stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanonicalEvent {
    /// `payment.succeeded`, `message.delivered`, `email.bounced`, ...
    pub name: String,
    /// The provider's id of the thing it happened to: a payment, a message; not of the event.
    pub reference: Option<String>,
    /// The money it is about.
    pub amount: Option<Money>,
    /// Whom it was for: a telephone number, an e-mail address.
    pub recipient: Option<String>,
    /// Why it failed, in the provider's own code or words.
    pub reason: Option<String>,
    /// When it happened by the provider's clock, milliseconds since 1970.
    pub occurred_at_ms: Option<u64>,
}

/// An amount of money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// In the currency's smallest unit: cents for EUR, yen for JPY.
    pub minor: i64,
    /// ISO 4217, upper case.
    pub currency: String,
}

impl CanonicalEvent {
    /// An event of which only the name is known.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}
