//! Strict base64: the standard alphabet, padded, no white space, no spare bits (`docs/notary-v1.md`, 3.5).

use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;
use alloc::string::String;
use alloc::vec::Vec;

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn only_the_canonical_spelling_is_read() {
        assert_eq!(decode("/+8="), Some(alloc::vec![0xff, 0xef]));
        for text in ["_-8=", "/+8", "/+9=", "/+8=\n", "/ +8=", "/+8=="] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }
}
