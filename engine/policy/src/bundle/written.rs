//! Values exactly as somebody wrote them: what JSON cannot hold is an error, never something else.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A JSON value in which no key stood twice and every number is finite. `serde_json` alone would
/// keep the last of two keys, and turn `.inf` into `null`.
#[derive(Debug)]
pub(super) struct Written(pub(super) Value);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).map(Value::Number);
        number.ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Written(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let Written(value) = map.next_value()?;
            if values.contains_key(&key) {
                return Err(A::Error::custom(format!("`{key}` stands there twice")));
            }
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value, String> {
        let read: Result<Written, _> = yaml_serde::from_str(text);
        read.map(|written| written.0).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_kept_and_nothing_is_made_of_them() {
        let value = read("{a: [1, -2, 1.5, x, null, true], b: {c: ~}}").expect("plain values");
        let expected = serde_json::json!({"a": [1, -2, 1.5, "x", null, true], "b": {"c": null}});
        assert_eq!(value, expected);
    }

    #[test]
    fn what_json_would_change_is_refused() {
        for (text, expected) in [
            ("{a: 1, b: 2, a: 3}", "`a` stands there twice"),
            ("{a: [.inf]}", "not finite"),
            ("{a: .nan}", "not finite"),
            ("{a: 36893488147419103232}", "a value that JSON can hold"),
            ("{a: !tag x}", ""),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(expected), "{text} gave: {error}");
        }
    }
}
