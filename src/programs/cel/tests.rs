use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::programs::testing::{subject, with_headers};

const BODY: &str = r#"{"type":"invoice.paid","livemode":true,"total":1250.5,"count":-3,"big":18446744073709551615,
    "note":null,"customer":{"id":"cus_1","tags":["vip","eu"]},"items":[{"sku":"a","qty":1},{"sku":"b","qty":5}]}"#;

fn filter(text: &str, subject: &Subject) -> Result<bool, String> {
    let selector = CelSelector::new(Some(text), None).map_err(|error| error.to_string())?;
    match selector.select(subject) {
        Ok(Selected::No) => Ok(false),
        Ok(Selected::Yes { key: None }) => Ok(true),
        Ok(Selected::Yes { key }) => panic!("a key from nowhere: {key:?}"),
        Err(ProgramFault(fault)) => Err(fault),
    }
}

fn key(text: &str, subject: &Subject) -> Result<String, String> {
    let selector = CelSelector::new(None, Some(text)).map_err(|error| error.to_string())?;
    match selector.select(subject) {
        Ok(Selected::Yes { key: Some(key) }) => Ok(key.into()),
        Ok(other) => panic!("no key: {other:?}"),
        Err(ProgramFault(fault)) => Err(fault),
    }
}

fn refused(text: &str) -> SettingsError {
    match CelSelector::new(Some(text), None) {
        Ok(_) => panic!("`{text}` is let through"),
        Err(error) => error,
    }
}

#[test]
fn filters_see_the_whole_event() {
    let event = with_headers(&[("X-Shop", "ashgrove"), ("x-two", "1"), ("X-Two", "2")], BODY.as_bytes());
    for (text, want) in [
        ("true", true),
        ("event.type == 'payment.succeeded'", true),
        ("event.type.startsWith('payment.') && event.provider_id == 'evt_1'", true),
        ("event.received_at == '2026-01-01T00:00:00Z' && event.endpoint_id == 3", true),
        ("event.integration.id == 7 && event.integration.name == 'shop'", true),
        ("event.size > 100 && event.peer == '192.0.2.1' && event.query.contains('a=1')", true),
        ("headers['x-shop'] == 'ashgrove' && headers[\"x-two\"] == '1, 2'", true),
        ("'x-none' in headers", false),
        ("query.a == '2' && query['b'] == 'ä'", true),
        ("has(query.c)", false),
        ("body.type == 'invoice.paid' && body.livemode", true),
        ("body.total > 1250 && body.total < 1250.6 && body.count < 0", true),
        ("body.big == 18446744073709551615u", true),
        ("body.note == null", true),
        ("has(body.customer.id) && !has(body.customer.name)", true),
        ("body.customer.tags == ['vip', 'eu'] && 'vip' in body.customer.tags", true),
        ("'customer' in body", true),
        ("body.items.exists(i, i.sku == 'b' && i.qty > 4)", true),
        ("body.items.all(i, i.qty > 1)", false),
        ("body.items.filter(i, i.qty > 1).size() == 1", true),
        ("body.items.map(i, i.sku) == ['a', 'b']", true),
        ("body.items.exists_one(i, i.sku.matches('^[b-z]$'))", true),
        ("body.items.exists(i, body.customer.tags.exists(t, t == i.sku))", false),
        ("body.items[1].sku + 'x' == 'bx'", true),
        ("size(body.items) == 2 && size(body) == 8", true),
        ("type(body.count) == int && string(body.count) == '-3' && int('4') == 4", true),
        ("body.customer[event.type == '' ? 'x' : 'id'] == 'cus_1'", true),
        ("matches(body.customer.id, 'cus_\\\\d+')", true),
        ("false && body.absent", false),
    ] {
        assert_eq!(filter(text, &event), Ok(want), "{text}");
    }
}

#[test]
fn a_body_is_json_a_form_or_null() {
    let form = with_headers(&[("content-type", "application/x-www-form-urlencoded; charset=utf-8")], b"a=1&b=x+y");
    assert_eq!(filter("body.a == '1' && body['b'] == 'x y' && body.size() == 2", &form), Ok(true));
    for other in ["", "plain", "{cut", "{} {}", "<a/>"] {
        assert_eq!(filter("body == null", &subject(other.as_bytes())), Ok(true), "{other}");
    }
    assert_eq!(filter("body.a == 1", &subject("\u{feff}{\"a\":1}".as_bytes())), Ok(true));
    assert_eq!(filter("body == 'text'", &subject(b"\"text\"")), Ok(true));
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(filter("body.b == 1 || true", &subject(deep.as_bytes())), Ok(true), "what is passed over may be deep");
    assert!(filter("body.a == 1", &subject(deep.as_bytes())).is_err_and(|fault| fault.contains("64 levels")));
}

#[test]
fn keys_are_texts() {
    let event = subject(BODY.as_bytes());
    assert_eq!(key("body.customer.id", &event).as_deref(), Ok("cus_1"));
    assert_eq!(key("body.count", &event).as_deref(), Ok("-3"));
    assert_eq!(key("body.livemode", &event).as_deref(), Ok("true"));
    assert_eq!(key("string(event.endpoint_id) + '/' + event.type", &event).as_deref(), Ok("3/payment.succeeded"));
    assert!(key("body.total", &event).is_err_and(|fault| fault.contains("double")));
    assert!(key("body.note", &event).is_err_and(|fault| fault.contains("null_type")));
    let long = json!({ "id": "x".repeat(KEY_BYTES_MAX + 1) }).to_string();
    assert!(key("body.id", &subject(long.as_bytes())).is_err_and(|fault| fault.contains("257 bytes")));
}

#[test]
fn an_event_that_is_not_selected_needs_no_key() {
    let selector = CelSelector::new(Some("body.a == 1"), Some("body.b")).expect("it compiles");
    assert_eq!(selector.select(&subject(br#"{"a":2}"#)), Ok(Selected::No));
    assert_eq!(selector.select(&subject(br#"{"a":1,"b":"k"}"#)), Ok(Selected::Yes { key: Some("k".into()) }));
    assert!(selector.select(&subject(br#"{"a":1}"#)).is_err_and(|fault| fault.0.contains("the order key failed")));
}

#[test]
fn a_filter_that_can_give_no_truth_value_is_refused() {
    for text in ["1 + 1", "'a'", "[true]", "{'a': true}", "size(body.items)", "-body.n", "string(body.a)", "null"] {
        assert!(refused(text).problem.contains("must give true or false"), "{text}");
    }
    let key = CelSelector::new(None, Some("string(body.n) + 'x'"));
    assert!(key.is_ok(), "an order key may be of another type");
}

#[test]
fn what_fails_on_an_event_says_what_would_be_right_and_no_value() {
    let event = subject(br#"{"secret":"planted-4711","n":1,"list":["planted-4711"]}"#);
    for (text, words) in [
        ("body.absent == 1", "has(body.absent)"),
        ("body.secret > 5", "`>` cannot be applied to string and int"),
        ("body.secret.x == 5", "member of string"),
        ("body.secret", "gives string; it must give true or false"),
        ("body.n / 0 == 1", "divides by zero"),
        ("body.n + 9223372036854775807 == 1", "too large"),
        ("body.list[4] == 'x'", "outside of its list"),
        ("body.secret + 1 == 'x'", "cannot be applied"),
        ("int(body.secret) == 1", "cannot convert"),
        ("body.n.startsWith('x')", "cannot be applied to int and string"),
        ("body.n.matches('x')", "cannot be applied to int and string"),
        ("body.n.exists(x, x)", "iterable"),
        ("body.secret == 'planted-4711' && body.list", "cannot be applied"),
    ] {
        let fault = filter(text, &event).expect_err(text);
        assert!(fault.contains(words), "{text}: {fault}");
        assert!(!fault.contains("planted"), "{text}: {fault}");
    }
    assert!(filter("body.a == 1", &subject(b"no JSON")).is_err_and(|fault| fault.contains("body != null")));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, words) in [
        ("", "is empty"),
        ("body.a ==", "line 1, column 10: it ends too early"),
        ("true &&\n  ) == 1", "line 2, column 3"),
        ("body.a == 1 &&\n foo == 2", "line 2, column 2: `foo` is not known; known are `event`"),
        ("bodi.a == 1", "known are `event`, `headers`, `query`, `body`"),
        ("event.tpye == 'a'", "`event` has no `tpye`; it has `id`, `type`"),
        ("event.integration.nam == 'a'", "it has `id` and `name`"),
        ("event.type.x == 'a'", "`event.type` has no members"),
        ("body.a.lower() == 'a'", "there is no function `lower`; there are `size`"),
        ("has(body)", "invalid argument to has() macro"),
        ("body.a.matches('(')", "unclosed group"),
        ("body.a.matches('(a{1000}){1000}')", "too large"),
        ("body.a.matches(body.b)", "written out here"),
        ("body.a.matches()", "takes a text and a pattern"),
        ("body.all(event, true)", "has a meaning already"),
        ("body.map(x, 1, 2, 3) == []", "wrong number of arguments"),
        ("body.all(a, a.all(b, b.all(c, c)))", "more than 2 deep"),
        ("Thing{a: 1} == body", "use a map"),
    ] {
        let fault = refused(text);
        assert_eq!(fault.field, "selection.filter");
        assert!(fault.problem.contains(words), "{text}: {fault}");
    }
    assert!(CelSelector::new(None, Some("x")).err().is_some_and(|fault| fault.field == "order.key"));
}

#[test]
fn an_expression_has_bounds() {
    assert!(refused(&format!("'{}' == ''", "x".repeat(EXPRESSION_BYTES_MAX))).problem.contains("4096"));
    assert!(refused(&format!("{}1{}", "(".repeat(40), ")".repeat(40))).problem.contains("nested"));
    let chains = [
        ["1 + ".repeat(900), "1 == 1".to_owned()].concat(),
        ["!".repeat(3_000), "true".to_owned()].concat(),
        ["- ".repeat(1_500), "1 == 1".to_owned()].concat(),
        ["true ? true : ".repeat(280), "true".to_owned()].concat(),
        ["body".to_owned(), ".a".repeat(1_500)].concat(),
        ["body".to_owned(), "[0]".repeat(1_300)].concat(),
        ["body".to_owned(), ".map(x, x)".repeat(300)].concat(),
        ["[".to_owned(), "1,".repeat(1_900), "1] == []".to_owned()].concat(),
    ];
    for text in chains {
        let began = Instant::now();
        let outcome = CelSelector::new(Some(&text), None).map(|_| ()).map_err(|fault| fault.problem);
        let shown: String = text.chars().take(20).collect();
        assert!(began.elapsed() < Duration::from_secs(20), "{shown}: {:?}", began.elapsed());
        if let Err(problem) = outcome {
            assert!(problem.contains("nested") || problem.contains("parts"), "{shown}: {problem}");
        }
    }
}

/// Bodies of the largest size that is accepted, and expressions that would work on them for hours.
#[test]
fn an_evaluation_has_an_end() {
    let numbers = json!({ "a": vec![1; 300_000] }).to_string();
    let texts = json!({ "a": vec!["x".repeat(1_000); 1_000], "t": "a".repeat(500_000) }).to_string();
    let objects = json!({ "a": vec![json!({"b": [1, 2, 3]}); 50_000] }).to_string();
    for text in [
        "body.a.all(x, body.a.all(y, y != 'q'))",
        "body.a.map(x, body.a).size() == 0",
        "body.a.map(x, [body.a, body.a, body.a]).size() == 0",
        "body.a.exists(x, body.a == [x])",
        "body.a.exists(x, 'zz' in body.a)",
        "body.a.exists(x, size(body.a.map(y, [x, y])) == 0)",
        "body.a.filter(x, body.t.contains('zzz') || body.t.matches('(a*)*b')).size() == 1",
        "body.a.map(x, body.t + body.t + body.t + body.t).size() == 7",
        "body.a.map(x, {'k': body}).size() == 7",
        "(body.a + body.a + body.a + body.a).all(x, x == body)",
        "body.a.map(x, string(x) + string(x)) == body.a.map(x, [x])",
    ] {
        for body in [&numbers, &texts, &objects] {
            let event = subject(body.as_bytes());
            let selector = CelSelector::new(Some(text), None).expect(text);
            let began = Instant::now();
            let _ = selector.select(&event);
            // Far more than is needed, as tests are not optimized and the machine may be busy.
            assert!(began.elapsed() < Duration::from_secs(5), "{text}: {:?}", began.elapsed());
        }
    }
    let event = subject(numbers.as_bytes());
    let fault = filter("body.a.all(x, body.a.all(y, y == 1))", &event).expect_err("it is too much");
    assert!(fault.contains("too much work"), "{fault}");
    let absorbed = filter("body.a.all(x, body.a.all(y, y == 1)) || true", &event);
    assert!(absorbed.is_err_and(|fault| fault.contains("too much work")), "what was cut short decides nothing");
}

#[test]
fn only_what_is_looked_at_is_made() {
    let compiled = |text| CelSelector::new(Some(text), None).expect(text).wants;
    let wants = compiled("body.data.object.amount > 5 && has(body.type) && body['x'].all(i, i.y == headers['a'])");
    for path in [&["data", "object", "amount"][..], &["type"], &["x", "y"]] {
        assert_eq!(path.iter().fold(&wants.body, |part, name| part.member(name)), &wanted::Wanted::All, "{path:?}");
    }
    assert!(!wants.body.member("data").member("id").any() && !wants.event.any() && !wants.query.any());
    assert_eq!(compiled("body == null").body, wanted::Wanted::All);
    assert_eq!(compiled("body[event.type] == 1").body, wanted::Wanted::All);
}

fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("body".to_owned()),
        Just("body.a".to_owned()),
        Just("event.type".to_owned()),
        Just("headers".to_owned()),
        Just("1".to_owned()),
        Just("'a'".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just("x".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (
                inner.clone(),
                prop_oneof![Just("+"), Just("=="), Just("<"), Just("&&"), Just("||"), Just("in"), Just("/")],
                inner.clone()
            )
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (
                inner.clone(),
                prop_oneof![Just("all"), Just("exists"), Just("map"), Just("filter"), Just("exists_one")],
                inner.clone()
            )
                .prop_map(|(a, name, b)| format!("{a}.{name}(x, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            inner.clone().prop_map(|a| format!("size({a})")),
            inner.prop_map(|a| format!("string({a})")),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_compiles_or_is_refused(text in ".{0,60}") {
        let _ = CelSelector::new(Some(&text), Some(&text));
    }

    /// What is rewritten gives what the crate gives on the whole body without a budget.
    #[test]
    fn rewriting_changes_no_result(text in expressions()) {
        let event = with_headers(&[("a", "b")], br#"{"a":[1,2,{"b":"a"}],"b":"c"}"#);
        let Ok(selector) = CelSelector::new(Some(&text), None) else { return Ok(()) };
        let mut context = Context::with_env(ENVIRONMENT.clone());
        let mut wants = Wants::default();
        for name in wanted::VARIABLES {
            wants.of(name).expect("it exists").want(&[]);
        }
        values::declare(&mut context, &wants, &event).expect("the body is shallow");
        let plain = cel::parser::Parser::new().parse(&text).expect("it compiled");
        let want = Value::resolve_val(&plain, &context)
            .ok()
            .and_then(|value| value.downcast_ref::<CelBool>().map(|it| *it.inner()));
        let got = selector.select(&event).ok().map(|selected| selected != Selected::No);
        prop_assert_eq!(got, want, "{}", text);
    }

    #[test]
    fn any_body_is_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = filter("body.a.exists(x, x == 1) || body == null", &subject(&body));
    }
}
