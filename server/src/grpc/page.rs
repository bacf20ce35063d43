//! Page sizes and page tokens. A token is opaque to clients.

use super::error::ApiError;
use super::fields::{Fields, is_printable};
use crate::engine::PageRequest;
use crate::limits::Limits;

/// Longest token that can be one of ours.
const TOKEN_BYTES: usize = 256;

pub(crate) fn parse(page_size: i32, page_token: &str, limits: &Limits) -> Result<PageRequest, ApiError> {
    let mut fields = Fields::default();
    fields.require("page_size", page_size >= 0, "must not be negative");
    let after = match page_token {
        "" => None,
        token => {
            let after = decode(token);
            fields.require("page_token", after.is_some(), "is not a token of this list");
            after
        }
    };
    fields.finish()?;
    let size = match page_size.unsigned_abs() {
        0 => limits.default_page_size,
        size => size,
    };
    Ok(PageRequest { size: size.min(limits.page_size), after })
}

pub(crate) fn token(next: Option<(i64, String)>) -> String {
    next.map(|(created_ms, id)| hex::encode(format!("{created_ms}:{id}"))).unwrap_or_default()
}

fn decode(token: &str) -> Option<(i64, String)> {
    if token.len() > TOKEN_BYTES {
        return None;
    }
    let text = String::from_utf8(hex::decode(token).ok()?).ok()?;
    let (created_ms, id) = text.split_once(':')?;
    is_printable(id).then_some((created_ms.parse().ok()?, id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_sizes_are_bounded() {
        let limits = Limits::default();
        let next = token(Some((7, "a-b".into())));
        let page = parse(5000, &next, &limits).unwrap();
        assert_eq!(page.after, Some((7, "a-b".into())));
        assert_eq!(page.size, limits.page_size);
        assert_eq!(parse(0, "", &limits).unwrap().size, limits.default_page_size);
        let small = Limits { page_size: 3, ..Limits::default() };
        assert_eq!((parse(3, "", &small).unwrap().size, parse(4, "", &small).unwrap().size, parse(0, "", &small).unwrap().size), (3, 3, 3));
        assert!(matches!(parse(-1, "zz", &limits), Err(ApiError::Invalid(v)) if v.len() == 2));
        let unstorable = token(Some((7, "a\0b".into())));
        assert!(matches!(parse(0, &unstorable, &limits), Err(ApiError::Invalid(v)) if v[0].field == "page_token"));
    }
}
