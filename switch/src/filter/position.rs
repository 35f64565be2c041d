//! Where an expression goes wrong: libpcap says what, but not where.
//!
//! The expression is taken token by token. A beginning is *viable* when it compiles, or when something could follow that makes
//! it compile. The first token with which it is not viable any more is where the error is; when all of it is viable, something
//! is missing at its end.

/// What may be missing behind a viable beginning.
const ENDINGS: [&str; 12] = [
    "",
    " ip",
    " 1",
    " 198.18.0.1",
    " port 1",
    " 02:00:00:00:00:01",
    " 198.18.0.0/15",
    " 1-2",
    " = 1",
    "0] = 1",
    "] = 1",
    " proto 1",
];
/// Tokens looked at: each costs up to a dozen compilations.
const TOKENS_MAX: usize = 256;

/// The place of the error, in bytes; `compiles` says whether a text is an expression. `None`: too long to be looked for, or it
/// is not a matter of place.
pub(super) fn of_error(expression: &str, compiles: impl Fn(&str) -> bool) -> Option<usize> {
    let tokens = tokens(expression);
    if tokens.len() > TOKENS_MAX {
        return None;
    }
    let viable = |text: &str| {
        let open = |left, right| text.matches(left).count().saturating_sub(text.matches(right).count());
        let (brackets, parentheses) = ("]".repeat(open('[', ']')), ")".repeat(open('(', ')')));
        ENDINGS.iter().any(|ending| {
            let inner = format!("{text}{ending}");
            let close = if inner.matches('[').count() > inner.matches(']').count() { brackets.as_str() } else { "" };
            compiles(&format!("{inner}{close}{parentheses}")) || compiles(&format!("{inner}{close} = 1{parentheses}"))
        })
    };
    // Beginnings that are viable come first, the others after them: the border is found by halving.
    let border = tokens.partition_point(|(_, end)| expression.get(..*end).is_some_and(viable));
    Some(tokens.get(border).map_or(expression.trim_end().len(), |(start, _)| *start))
}

/// Words and signs, as (start, end) in bytes.
fn tokens(expression: &str) -> Vec<(usize, usize)> {
    let is_word = |c: char| c.is_alphanumeric() || "._:/-%\\".contains(c) || !c.is_ascii();
    let mut tokens: Vec<(usize, usize)> = Vec::new();
    let mut in_word = false;
    for (at, c) in expression.char_indices() {
        let end = at + c.len_utf8();
        if c.is_whitespace() {
            in_word = false;
        } else if is_word(c) {
            match tokens.last_mut().filter(|_| in_word) {
                Some(last) => last.1 = end,
                None => tokens.push((at, end)),
            }
            in_word = true;
        } else {
            tokens.push((at, end));
            in_word = false;
        }
    }
    tokens
}
