//! Names: of requests, tenants, clusters and the rest, and of accounts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest [`Id`], in bytes: fits a file name and an index entry, and any UUID or ARN-like name.
pub const MAX_ID_BYTES: usize = 128;
/// Longest [`AccountPath`], in bytes.
pub const MAX_ACCOUNT_PATH_BYTES: usize = 512;
/// Most segments of an [`AccountPath`].
pub const MAX_ACCOUNT_SEGMENTS: usize = 8;

/// Why a string is no [`Id`], [`AccountPath`] or [`Code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It has no characters.
    #[error("is empty")]
    Empty,
    /// It has more bytes than allowed.
    #[error("has {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes that it has.
        bytes: usize,
        /// Bytes that it may have.
        max: usize,
    },
    /// A character is not allowed, there or at all.
    #[error("has a character at byte {at} that is not allowed; allowed are {allowed}")]
    Character {
        /// Byte position of the first such character, from 0.
        at: usize,
        /// The rule in words.
        allowed: &'static str,
    },
}

const ID_RULE: &str = "A-Z a-z 0-9 . _ : @ -, the first a letter or a digit";

fn check_id(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(NameError::TooLong { bytes: text.len(), max: MAX_ID_BYTES });
    }
    let allowed = |at: usize, byte: u8| {
        byte.is_ascii_alphanumeric() || (at > 0 && matches!(byte, b'.' | b'_' | b':' | b'@' | b'-'))
    };
    match text.bytes().enumerate().find(|(at, byte)| !allowed(*at, *byte)) {
        Some((at, _)) => Err(NameError::Character { at, allowed: ID_RULE }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes a name after checking it.
            ///
            /// # Errors
            /// [`NameError`] says which rule it breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        // Order and equality of names are those of their texts, so that either finds the other.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $name::schema()
            }
        }
    };
}

name!(
    /// Name of a request, tenant, cluster, dataset, model, policy or reservation.
    ///
    /// 1 to 128 characters of `A-Z a-z 0-9 . _ : @ -`, the first a letter or a digit.
    ///
    /// # Example
    /// ```
    /// use placet_core::Id;
    /// assert_eq!(Id::new("acme-eu")?.as_str(), "acme-eu");
    /// assert!(Id::new("-acme").is_err());
    /// # Ok::<(), placet_core::NameError>(())
    /// ```
    Id,
    check_id
);

impl Id {
    fn schema() -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES,
            "pattern": "^[A-Za-z0-9][A-Za-z0-9._:@-]*$"
        })
    }
}

fn check_account(text: &str) -> Result<(), NameError> {
    if text.len() > MAX_ACCOUNT_PATH_BYTES {
        return Err(NameError::TooLong { bytes: text.len(), max: MAX_ACCOUNT_PATH_BYTES });
    }
    if text.split('/').count() > MAX_ACCOUNT_SEGMENTS {
        return Err(NameError::Character {
            at: text.rfind('/').unwrap_or(0),
            allowed: "at most 8 segments",
        });
    }
    let mut start = 0;
    for segment in text.split('/') {
        check_id(segment).map_err(|error| match error {
            NameError::Character { at, allowed } => {
                NameError::Character { at: start + at, allowed }
            }
            other @ (NameError::Empty | NameError::TooLong { .. }) => other,
        })?;
        start += segment.len() + 1;
    }
    Ok(())
}

name!(
    /// Path of a quota account, such as `tenant/acme/gpu`: 1 to 8 [`Id`]s joined by `/`, at most
    /// 512 bytes.
    AccountPath,
    check_account
);

impl AccountPath {
    fn schema() -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "minLength": 1, "maxLength": MAX_ACCOUNT_PATH_BYTES,
            "pattern": "^[A-Za-z0-9][A-Za-z0-9._:@-]*(/[A-Za-z0-9][A-Za-z0-9._:@-]*){0,7}$"
        })
    }
}

const MAX_CODE_BYTES: usize = 64;

fn check_code(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_CODE_BYTES {
        return Err(NameError::TooLong { bytes: text.len(), max: MAX_CODE_BYTES });
    }
    let allowed = |at: usize, byte: u8| {
        byte.is_ascii_uppercase() || (at > 0 && (byte.is_ascii_digit() || byte == b'_'))
    };
    match text.bytes().enumerate().find(|(at, byte)| !allowed(*at, *byte)) {
        Some((at, _)) => Err(NameError::Character { at, allowed: "A-Z 0-9 _, the first a letter" }),
        None => Ok(()),
    }
}

name!(
    /// Stable code of a denial or a warning, such as `QUOTA_EXCEEDED`: `[A-Z][A-Z0-9_]{0,63}`.
    Code,
    check_code
);

impl Code {
    fn schema() -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[A-Z][A-Z0-9_]{0,63}$" })
    }

    /// A code written in our own source.
    ///
    /// # Panics
    /// If it is no code: a mistake in the source, which every test that reaches the line would
    /// show.
    #[must_use]
    pub fn known(text: &'static str) -> Self {
        Self::new(text).expect("a code in our own source follows the rule of codes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_that_would_confuse_a_reader_are_refused() {
        for bad in ["", "-a", "a b", "a/b", "a\u{0}", "\u{e4}", "a\n", ".."] {
            assert!(Id::new(bad).is_err(), "{bad:?}");
        }
        assert!(Id::new("x".repeat(MAX_ID_BYTES)).is_ok());
        assert!(Id::new("x".repeat(MAX_ID_BYTES + 1)).is_err());
    }

    #[test]
    fn account_paths_are_ids_joined_by_slashes() {
        assert!(AccountPath::new("tenant/acme/gpu-seconds/2026-11").is_ok());
        for bad in ["", "/", "a//b", "a/", "/a", "1/2/3/4/5/6/7/8/9"] {
            assert!(AccountPath::new(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_survives_json(text in ".{0,140}") {
            if let Ok(id) = Id::new(text.clone()) {
                let json = serde_json::to_string(&id).expect("an id is a JSON string");
                prop_assert_eq!(&json, &format!("\"{text}\""), "no escapes are ever needed");
                prop_assert_eq!(serde_json::from_str::<Id>(&json).expect("reads back"), id);
            }
        }
    }
}
