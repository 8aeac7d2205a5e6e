//! Stripe's events in common words. Amounts are integers in the currency's smallest unit already
//! (<https://docs.stripe.com/currencies#zero-decimal>), times are Unix seconds.

use hookmill_actors::domain::canonical::{CanonicalEvent, Money};
use serde::Deserialize;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    r#type: &'a str,
    created: Option<u64>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Object,
}

/// The members of payment intents, charges, invoices, checkout sessions and refunds that are needed; each of these
/// has some of them.
#[derive(Deserialize)]
struct Object {
    id: Option<String>,
    currency: Option<String>,
    amount: Option<i64>,
    amount_received: Option<i64>,
    amount_refunded: Option<i64>,
    amount_paid: Option<i64>,
    amount_due: Option<i64>,
    amount_total: Option<i64>,
    status: Option<String>,
    payment_status: Option<String>,
    receipt_email: Option<String>,
    customer_email: Option<String>,
    failure_code: Option<String>,
    last_payment_error: Option<PaymentError>,
}

#[derive(Deserialize)]
struct PaymentError {
    code: Option<String>,
    decline_code: Option<String>,
}

/// `None` for a type without common words, and for a body that is not in Stripe's form.
pub(super) fn of(body: &[u8]) -> Option<CanonicalEvent> {
    let Envelope { r#type, created, data: Data { object } } = serde_json::from_slice(body).ok()?;
    let (name, minor) = match r#type {
        "payment_intent.succeeded" => ("payment.succeeded", object.amount_received.or(object.amount)),
        "charge.succeeded" => ("payment.succeeded", object.amount),
        "invoice.paid" => ("payment.succeeded", object.amount_paid),
        "checkout.session.completed" if object.payment_status.as_deref() == Some("paid") => {
            ("payment.succeeded", object.amount_total)
        }
        "checkout.session.async_payment_succeeded" => ("payment.succeeded", object.amount_total),
        "payment_intent.payment_failed" | "charge.failed" => ("payment.failed", object.amount),
        "checkout.session.async_payment_failed" => ("payment.failed", object.amount_total),
        "invoice.payment_failed" => ("payment.failed", object.amount_due),
        "charge.refunded" => ("refund.succeeded", object.amount_refunded),
        "refund.created" | "refund.updated" | "charge.refund.updated"
            if object.status.as_deref() == Some("succeeded") =>
        {
            ("refund.succeeded", object.amount)
        }
        _ => return None,
    };
    let reason = object.failure_code.or_else(|| {
        let PaymentError { code, decline_code } = object.last_payment_error?;
        decline_code.or(code)
    });
    Some(CanonicalEvent {
        name: name.to_owned(),
        reference: object.id,
        amount: minor
            .zip(object.currency)
            .map(|(minor, currency)| Money { minor, currency: currency.to_ascii_uppercase() }),
        recipient: object.receipt_email.or(object.customer_email),
        reason,
        occurred_at_ms: created.and_then(|seconds| seconds.checked_mul(1_000)),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn made(kind: &str, object: &Value) -> Option<CanonicalEvent> {
        of(json!({ "type": kind, "created": 7, "data": { "object": object } }).to_string().as_bytes())
    }

    fn money(minor: i64) -> Money {
        Money { minor, currency: "JPY".to_owned() }
    }

    #[test]
    fn each_type_takes_its_own_amount() {
        let object = json!({
            "id": "x_1", "currency": "jpy", "status": "succeeded", "payment_status": "paid",
            "amount": 1, "amount_received": 2, "amount_refunded": 3, "amount_paid": 4, "amount_due": 5, "amount_total": 6,
        });
        for (kind, name, minor) in [
            ("payment_intent.succeeded", "payment.succeeded", 2),
            ("charge.succeeded", "payment.succeeded", 1),
            ("invoice.paid", "payment.succeeded", 4),
            ("checkout.session.completed", "payment.succeeded", 6),
            ("payment_intent.payment_failed", "payment.failed", 1),
            ("invoice.payment_failed", "payment.failed", 5),
            ("charge.refunded", "refund.succeeded", 3),
            ("refund.updated", "refund.succeeded", 1),
        ] {
            let event = made(kind, &object).expect(kind);
            assert_eq!((event.name.as_str(), event.amount), (name, Some(money(minor))), "{kind}");
            assert_eq!((event.reference.as_deref(), event.occurred_at_ms), (Some("x_1"), Some(7_000)));
        }
    }

    #[test]
    fn a_failure_has_its_reason() {
        let object = json!({"last_payment_error": {"code": "card_declined", "decline_code": "insufficient_funds"}});
        let event = made("payment_intent.payment_failed", &object).expect("it has a name");
        assert_eq!(event.reason.as_deref(), Some("insufficient_funds"));
        assert_eq!(event.amount, None, "without a currency there is no money");
    }

    #[test]
    fn what_is_not_settled_or_not_known_has_no_common_words() {
        assert_eq!(made("refund.updated", &json!({"status": "pending"})), None);
        assert_eq!(made("checkout.session.completed", &json!({"payment_status": "unpaid"})), None);
        assert_eq!(made("customer.created", &json!({"id": "cus_1"})), None);
        assert_eq!(of(b"{\"type\":\"charge.failed\"}"), None);
        assert_eq!(of(b"nonsense"), None);
    }
}
