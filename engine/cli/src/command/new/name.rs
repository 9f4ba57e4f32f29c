//! Names of what is made, and what they become in file names, YAML, Rego and Cargo.

use placet_core::{Id, NameError};

use crate::exit::Failure;

/// What Rego keeps for itself: no segment of a package's path can be called so.
const REGO_WORDS: [&str; 18] = [
    "as", "contains", "data", "default", "else", "every", "false", "if", "import", "in", "input",
    "not", "null", "package", "set", "some", "true", "with",
];
/// What YAML 1.1 or 1.2 takes for something else than a text.
const YAML_WORDS: [&str; 9] = ["false", "n", "no", "null", "off", "on", "true", "y", "yes"];
/// The name of the engine itself, which no policy has.
const ENGINE: &str = "placet";

/// A name that keeps to the rules of ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(Id);

impl Name {
    /// Checks a name from the command line; `what` it names is told with an error.
    ///
    /// # Errors
    /// A usage failure with the rule, or with a name that would do.
    pub(super) fn parse(text: &str, what: &str) -> Result<Self, Failure> {
        if text == ENGINE {
            return Err(Failure::usage(format!("`{ENGINE}` is the name of the engine itself"))
                .hint("choose another"));
        }
        Id::new(text).map(Self).map_err(|error| {
            let failure = Failure::usage(format!("the name `{text}` of the {what} {error}"));
            let mended = mended(text);
            match (error, mended) {
                (NameError::Character { .. }, _) if text.contains('/') => {
                    failure.hint("give a name, not a path; --in or --bundle says where")
                }
                (NameError::Character { .. }, Some(mended)) => {
                    failure.hint(format!("write `{mended}`"))
                }
                _ => failure.hint("give a short name, such as `maintenance`"),
            }
        })
    }

    /// A name of our own.
    pub(super) fn known(text: &'static str) -> Self {
        Self(Id::new(text).expect("a name in our own source keeps to the rules"))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The last segment of the path of its Rego package: letters, digits and underscores.
    pub(super) fn package(&self) -> String {
        let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let package: String = self.as_str().chars().map(word).collect();
        if package.starts_with(|c: char| c.is_ascii_digit()) {
            return format!("policy_{package}");
        }
        if REGO_WORDS.contains(&package.as_str()) { format!("{package}_policy") } else { package }
    }

    /// What follows `placet-policy-` in the name of its crate.
    pub(super) fn package_of_cargo(&self) -> String {
        let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        self.as_str().chars().map(word).collect()
    }

    /// A text in YAML that begins with the name: in quotes where YAML would read something else.
    pub(super) fn yaml(&self, rest: &str) -> String {
        let text = self.as_str();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(plain)
            && !YAML_WORDS.contains(&text.to_ascii_lowercase().as_str());
        if is_plain { format!("{text}{rest}") } else { format!("\"{text}{rest}\"") }
    }
}

/// A wrong name with what is not allowed in it replaced or left out; none if nothing is left.
fn mended(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '@' | '-');
    let mended: String = text.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let mended = mended.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    Id::new(mended).ok().filter(|id| id.as_str() != ENGINE).map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text, "policy").unwrap()
    }

    #[test]
    fn names_become_packages_that_rego_reads() {
        for (text, package) in [
            ("maintenance", "maintenance"),
            ("eu-only", "eu_only"),
            ("a.b:c@d", "a_b_c_d"),
            ("24h", "policy_24h"),
            ("default", "default_policy"),
        ] {
            assert_eq!(name(text).package(), package);
        }
        assert_eq!(name("EU.only").package_of_cargo(), "eu-only");
    }

    #[test]
    fn yaml_reads_the_name_as_a_text() {
        for text in ["maintenance", "a.b", "x_1"] {
            assert_eq!(name(text).yaml("/x"), format!("{text}/x"));
        }
        for text in ["12", "1e3", "0x1f", "No", "null", "a:", "a@b"] {
            assert_eq!(name(text).yaml(""), format!("\"{text}\""));
        }
    }

    #[test]
    fn a_wrong_name_is_answered_with_one_that_would_do() {
        for (text, hint) in [
            ("two words", "write `two-words`"),
            ("-x-", "write `x`"),
            ("a/b", "give a name, not a path; --in or --bundle says where"),
            ("", "give a short name, such as `maintenance`"),
            ("!!", "give a short name, such as `maintenance`"),
            ("placet", "choose another"),
        ] {
            let failure = Name::parse(text, "policy").unwrap_err();
            assert!(failure.message().ends_with(&format!("\nhint: {hint}")), "{failure:?}");
            assert_eq!(failure.exit().code(), 64);
        }
    }
}
