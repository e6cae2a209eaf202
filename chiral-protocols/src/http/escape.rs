//! [`Escaped`]: a stranger's text inside HTML or XML.

use std::fmt;

/// Writes text so that it is nothing but text, in elements and in quoted attributes, of HTML
/// as of XML 1.0. What neither may hold becomes U+FFFD.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\u{fffe}' | '\u{ffff}' => f.write_char('\u{fffd}')?,
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn markup_becomes_text() {
        let text = "<script>alert('1' & \"2\")</script>\0\u{1b}\u{85}\u{ffff}é";
        let expected = "&lt;script&gt;alert(&#39;1&#39; &amp; &quot;2&quot;)&lt;/script&gt;\
                        \u{fffd}\u{fffd}\u{fffd}\u{fffd}é";
        assert_eq!(Escaped(text).to_string(), expected);
    }

    proptest! {
        #[test]
        fn nothing_gets_out_of_its_quotes(text: String) {
            let escaped = Escaped(&text).to_string();
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            prop_assert!(!escaped.chars().any(char::is_control));
            let back = escaped
                .replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&quot;", "\"")
                .replace("&#39;", "'")
                .replace("&amp;", "&");
            let plain = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
            if text.chars().all(plain) {
                prop_assert_eq!(back, text);
            }
        }
    }
}
