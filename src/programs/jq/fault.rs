//! What is told of a program that failed: jaq's own words without the values that they repeat, and of the program's
//! message, `error("...")`, what the program's text holds literally. So nothing of a body comes into an error, which
//! dead letters keep and logs show, whatever a program puts into its message.

use jaq_core::load::{
    Lexer,
    lex::{StrPart, Tok, Token},
};
use jaq_json::Val;

use crate::programs::excerpt;

type Error = jaq_core::Error<Val>;

/// Of a message that a program makes, no more is looked at.
const MESSAGE_CHARS_MAX: usize = 1_000;
/// Shorter pieces of a program's strings say nothing, and would be found everywhere.
const LITERAL_CHARS_MIN: usize = 2;

/// Why the program failed, for people.
pub(super) fn told(error: &Error, program: &str) -> String {
    let text = error.to_string();
    let value = error.clone().into_val().to_string();
    // What a program throws is a value; what jaq says is a text that is no value yet.
    let words = if text == value { own_words(&message(&value), program) } else { without_values(&text) };
    format!("the program failed: {}", excerpt(&words))
}

/// The characters of a string; JSON of anything else.
fn message(value: &str) -> String {
    let text = serde_json::from_str::<String>(value).unwrap_or_else(|_| value.to_owned());
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

/// The message with what does not stand in the program left out.
fn own_words(message: &str, program: &str) -> String {
    let mut literals = Vec::new();
    collect(&Lexer::new(program).lex().unwrap_or_default(), &mut literals);
    let mut kept = String::new();
    let mut rest = message;
    while let Some(next) = rest.chars().next() {
        let longest = literals.iter().filter(|literal| rest.starts_with(**literal)).max_by_key(|literal| literal.len());
        match longest {
            Some(literal) => {
                kept.push_str(literal);
                rest = &rest[literal.len()..];
            }
            None => {
                if !kept.ends_with('…') {
                    kept.push('…');
                }
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    kept
}

/// The pieces of all strings in a program, without what stands in between by `\(...)` or an escape.
fn collect<'a>(tokens: &[Token<&'a str>], literals: &mut Vec<&'a str>) {
    for Token(_, token) in tokens {
        match token {
            Tok::Block(tokens) => collect(tokens, literals),
            Tok::Str(parts) => {
                for part in parts {
                    match part {
                        StrPart::Str(text) if text.chars().count() >= LITERAL_CHARS_MIN => literals.push(text),
                        StrPart::Term(token) => collect(std::slice::from_ref(token), literals),
                        StrPart::Str(_) | StrPart::Char(_) => {}
                    }
                }
            }
            Tok::Word | Tok::Var | Tok::Fmt | Tok::Num | Tok::Sym => {}
        }
    }
}

/// Leaves out what is quoted or bracketed: jaq's words repeat values of the body.
fn without_values(text: &str) -> String {
    let mut kept = String::new();
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for char in text.chars() {
        if quoted {
            (quoted, escaped) = (escaped || char != '"', !escaped && char == '\\');
            continue;
        }
        match char {
            '"' => quoted = true,
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            char if depth == 0 => {
                kept.push(char);
                continue;
            }
            _ => continue,
        }
        if depth <= 1 && !kept.ends_with('…') && char != '}' && char != ']' {
            kept.push('…');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_without_values() {
        for (text, want) in [
            (r#"cannot index {"a":["}"]} with "b\"c" here"#, "cannot index … with … here"),
            ("no order", "no order"),
            ("cannot use [1,[2]] as number", "cannot use … as number"),
        ] {
            assert_eq!(without_values(text), want);
        }
    }

    #[test]
    fn only_words_of_the_program_are_kept() {
        let program = r#"if .n > 5 then error("too many: \(.n) of \("at most " + "5")") else "ok" end"#;
        for (message, kept) in
            [("too many: 4711 of at most 5", "too many: … of at most …"), ("planted-4711", "…"), ("ok", "ok"), ("", "")]
        {
            assert_eq!(own_words(message, program), kept);
        }
        assert_eq!(own_words("a", "\"unfinished"), "…");
    }
}
