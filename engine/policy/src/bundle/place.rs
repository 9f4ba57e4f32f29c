//! Places in documents that people write: where a value stands, by its path.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A step from a value to one inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    At(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(at: usize) -> Self {
        Self::At(at)
    }
}

/// A path as people write it, such as `params.seats.acme` or `required[2]`.
pub(crate) struct Shown<'a>(pub(crate) &'a [Step]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::At(at) => write!(f, "[{at}]")?,
            }
        }
        Ok(())
    }
}

/// The steps of a path that is written as [`Shown`] does, with keys that are plain names.
pub(crate) fn steps(path: &str) -> Vec<Step> {
    let parts = path.split(['.', '[']).filter(|part| !part.is_empty());
    let steps = parts.map(|part| match part.strip_suffix(']').map(str::parse) {
        Some(Ok(at)) => Step::At(at),
        Some(Err(_)) | None => Step::Key(part.to_owned()),
    });
    steps.collect()
}

/// Line and column, from 1, of the value at a path of a YAML or JSON document; of the last value on
/// the way that is there if the path leads nowhere.
pub(crate) fn locate(text: &str, path: &[Step]) -> Option<(u32, u32)> {
    // The seeker always fails, and the reader of YAML says where.
    let error = Seek(path).deserialize(yaml_serde::Deserializer::from_str(text)).err()?;
    let place = error.location()?;
    Some((u32::try_from(place.line()).ok()?, u32::try_from(place.column()).ok()?))
}

/// Goes to the value at a path and fails there.
struct Seek<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    // A scalar is never expected, so that reading one fails at its place.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a way on")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let here = || Err(serde::de::Error::custom("here"));
        let Some((Step::Key(wanted), rest)) = self.0.split_first() else { return here() };
        while let Some(key) = map.next_key::<String>()? {
            if key == *wanted {
                return map.next_value_seed(Seek(rest));
            }
            map.next_value::<IgnoredAny>()?;
        }
        here()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let here = || Err(serde::de::Error::custom("here"));
        let Some((Step::At(wanted), rest)) = self.0.split_first() else { return here() };
        for _ in 0..*wanted {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return here();
            }
        }
        match list.next_element_seed(Seek(rest))? {
            Some(()) | None => here(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a: 1\nb:\n  - {c: [x,\n     y]}\n  - name: z # here\n    d: {e: no}\n";

    fn line(path: &[Step]) -> Option<u32> {
        locate(TEXT, path).map(|(line, _)| line)
    }

    #[test]
    fn values_are_found_in_block_and_flow() {
        assert_eq!(line(&["a".into()]), Some(1));
        assert_eq!(line(&["b".into(), 0.into(), "c".into(), 1.into()]), Some(4));
        let path = ["b".into(), 1.into(), "d".into(), "e".into()];
        assert_eq!(locate(TEXT, &path), Some((6, 12)));
        assert_eq!(Shown(&path).to_string(), "b[1].d.e");
        assert_eq!(steps("b[1].d.e"), path);
    }

    #[test]
    fn a_path_that_leads_nowhere_ends_at_the_last_value_on_the_way() {
        assert_eq!(line(&["b".into(), 1.into(), "x".into()]), Some(5));
        assert_eq!(line(&["b".into(), 7.into()]), Some(3));
        assert_eq!(line(&["a".into(), "b".into()]), Some(1));
    }

    #[test]
    fn json_is_found_too() {
        let json = "{\n\t\"a\": {\n\t\t\"b\": [1, 2]\n\t}\n}\n";
        assert_eq!(locate(json, &["a".into(), "b".into(), 1.into()]).map(|(l, _)| l), Some(3));
    }
}
