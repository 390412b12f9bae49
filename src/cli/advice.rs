//! What to do about a refusal, from the page that says it of each code.

const PAGE: &str = include_str!("../../docs/reasons.md");

/// The last cell of the row of `code` in `docs/reasons.md`.
pub(super) fn advice(code: &str) -> Option<&'static str> {
    let row = PAGE.lines().find_map(|line| line.strip_prefix("| `")?.strip_prefix(code)?.strip_prefix("` | "))?;
    row.trim_end_matches('|').rsplit(" | ").next().map(str::trim).filter(|advice| !advice.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_advice_and_what_is_no_code_has_none() {
        assert_eq!(advice("CS-TAG-NOT-SIGNED"), Some("Sign the tag."));
        assert!(advice("CS-SIGNING-POLICY").is_some_and(|advice| advice.starts_with("Have a member of each missing team sign")));
        let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `CS-")?.split_once('`'));
        let mut codes = 0;
        for (code, _) in rows {
            assert!(advice(&format!("CS-{code}")).is_some_and(|advice| advice.len() > 8), "{code}");
            codes += 1;
        }
        assert!(codes > 50, "the rows were not found");
        assert_eq!((advice(&"CS-JSON"[..6]), advice("")), (None, None));
    }
}
