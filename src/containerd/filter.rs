//! containerd's filter language (its `filters` package), of which one form is used: a field that equals a value.

use std::fmt::Write as _;

/// A filter that matches `field` with exactly `value`, whatever stands in it.
///
/// Every character that is not plainly harmless is written as an escape: quotes and backslashes would end the value,
/// a comma or an operator would be read as another condition, and NUL and U+FFFD are refused by the scanner as such.
pub(super) fn equals(field: &str, value: &str) -> String {
    let mut filter = String::with_capacity(field.len() + value.len() + 4);
    filter.push_str(field);
    filter.push_str("==\"");
    for letter in value.chars() {
        let is_harmless = letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-' | ':' | '/' | '@');
        if is_harmless {
            filter.push(letter);
        } else {
            // Writing to a string never fails.
            let _ = write!(filter, "\\U{:08x}", u32::from(letter));
        }
    }
    filter.push('"');
    filter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_stand_as_they_are() {
        let name = "127.0.0.1:5000/team/app_x:1.0-rc@sha256:00";
        assert_eq!(equals("name", name), format!("name==\"{name}\""));
    }

    #[test]
    fn no_name_can_end_its_quotes_or_add_a_condition() {
        assert_eq!(equals("name", "a\",name~=\"b"), r#"name=="a\U00000022\U0000002cname\U0000007e\U0000003d\U00000022b""#);
        assert_eq!(equals("name", "\\"), r#"name=="\U0000005c""#);
        assert_eq!(equals("name", "\n\0\u{fffd}é"), r#"name=="\U0000000a\U00000000\U0000fffd\U000000e9""#);
        assert_eq!(equals("name", ""), r#"name=="""#);
    }

    #[test]
    fn a_filter_has_two_quotes_whatever_the_name() {
        for letter in (0..=0x2ff).filter_map(char::from_u32) {
            let filter = equals("name", &letter.to_string());
            assert_eq!(filter.matches('"').count(), 2, "{letter:?}");
            assert!(filter.is_ascii() && !filter.contains([',', '~', '!', '|', '\n']), "{letter:?}");
        }
    }
}
