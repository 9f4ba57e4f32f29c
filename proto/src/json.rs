//! The JSON form of the messages: snake_case names, enums by name, whole numbers as numbers.
//!
//! Reading is strict like the wire form, and as lenient as protobuf's JSON mapping where that costs
//! nothing: lowerCamelCase names are read too, numbers may be strings, and `null` means absent.

use std::fmt;

use prost::{Message, Name};
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _,
    Value,
};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::{FieldError, POOL};

#[cfg(test)]
mod tests;

/// Longest JSON text of one message in bytes: four times the largest message on the wire.
pub const MAX_JSON_BYTES: usize = 256 * 1024;
/// Largest whole number that every JSON reader keeps exact (RFC 8785 section 3.2.2.3).
const MAX_EXACT: u64 = (1 << 53) - 1;
/// Most bytes of a user's own text in an error.
const MAX_QUOTED_BYTES: usize = 64;

/// Reads a message from JSON.
///
/// # Errors
/// [`FieldError`] with code `TOO_LARGE`, `MALFORMED_JSON` (with line and column), `UNKNOWN_FIELD`,
/// `DUPLICATE_FIELD`, `ONEOF_CONFLICT`, `WRONG_TYPE`, `OUT_OF_BOUNDS` or `UNKNOWN_ENUM_VALUE`.
///
/// # Panics
/// If `T` is no message of the contracts.
pub fn from_json<T: Message + Name + Default>(text: &str) -> Result<T, FieldError> {
    if text.len() > MAX_JSON_BYTES {
        let message = format!("has {} bytes, at most {MAX_JSON_BYTES} are allowed", text.len());
        return Err(FieldError::new("TOO_LARGE", message, "send fewer references in one request"));
    }
    let tree: Tree = serde_json::from_str(text).map_err(|error| {
        FieldError::new("MALFORMED_JSON", format!("is no JSON: {error}"), "give one JSON object")
    })?;
    read_message(tree, &descriptor::<T>())?.transcode_to().map_err(|error| {
        FieldError::new("MALFORMED_JSON", format!("cannot be encoded: {error}"), "")
    })
}

/// Writes a message as JSON, every field in it that has no notion of absence too.
///
/// Whole numbers from 2^53 on are written as strings, because most readers would round them.
///
/// # Panics
/// If `T` is no message of the contracts.
#[must_use]
pub fn to_json<T: Message + Name>(message: &T) -> serde_json::Value {
    let bytes = message.encode_to_vec();
    let message = DynamicMessage::decode(descriptor::<T>(), bytes.as_slice())
        .expect("what generated code encodes, its own descriptor decodes");
    write_message(&message)
}

fn descriptor<T: Name>() -> MessageDescriptor {
    POOL.get_message_by_name(&T::full_name())
        .expect("the contracts hold every message of this crate")
}

/// JSON as written, with repeated keys kept so that they can be refused by name.
enum Tree {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    /// A number with a fraction or an exponent, or beyond 64 bits.
    Fraction,
    Text(String),
    List(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Unsigned(_) | Self::Negative(_) => "a number",
            Self::Fraction => "a number that is not a whole one of 64 bits",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    fn refused(&self, wanted: &str) -> FieldError {
        let message = format!("is {}, not {wanted}", self.name());
        FieldError::new("WRONG_TYPE", message, format!("give {wanted}"))
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(u64::try_from(value).map_or(Tree::Negative(value), Tree::Unsigned))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Fraction)
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Tree::Object(object))
    }
}

fn read_message(tree: Tree, described: &MessageDescriptor) -> Result<DynamicMessage, FieldError> {
    let Tree::Object(entries) = tree else {
        return Err(tree.refused("an object"));
    };
    let mut message = DynamicMessage::new(described.clone());
    let mut seen: Vec<FieldDescriptor> = Vec::new();
    for (key, tree) in entries {
        let field = described
            .get_field_by_name(&key)
            .or_else(|| described.get_field_by_json_name(&key))
            .ok_or_else(|| unknown_key(&key, described))?;
        let fault = if seen.contains(&field) {
            Some(FieldError::new("DUPLICATE_FIELD", "is given twice", "give it once"))
        } else if matches!(tree, Tree::Null) {
            None
        } else {
            rival(&field, &message).or_else(|| {
                read_field(tree, &field).map(|value| message.set_field(&field, value)).err()
            })
        };
        if let Some(fault) = fault {
            return Err(fault.inside(field.name()));
        }
        seen.push(field);
    }
    Ok(message)
}

fn unknown_key(key: &str, described: &MessageDescriptor) -> FieldError {
    let names: Vec<_> = described.fields().map(|it| it.name().to_owned()).collect();
    let hint = format!("known here are {}", names.join(", "));
    FieldError::new("UNKNOWN_FIELD", "is no field of the contract", hint).inside(&quoted(key))
}

/// The error of a field beside which another member of its oneof was given.
fn rival(field: &FieldDescriptor, message: &DynamicMessage) -> Option<FieldError> {
    let oneof = field.containing_oneof()?;
    let rival = oneof.fields().find(|it| it != field && message.has_field(it))?;
    let what = format!("is given beside `{}`, of which it is an alternative", rival.name());
    Some(FieldError::new("ONEOF_CONFLICT", what, "give one of the two"))
}

fn read_field(tree: Tree, field: &FieldDescriptor) -> Result<Value, FieldError> {
    if !field.is_list() {
        return read_one(tree, field);
    }
    let Tree::List(elements) = tree else {
        return Err(tree.refused("a list"));
    };
    let elements = elements.into_iter().enumerate().map(|(at, element)| {
        read_one(element, field).map_err(|fault| fault.inside(&format!("[{at}]")))
    });
    elements.collect::<Result<_, _>>().map(Value::List)
}

fn read_one(tree: Tree, field: &FieldDescriptor) -> Result<Value, FieldError> {
    match (field.kind(), tree) {
        (Kind::Bool, Tree::Bool(value)) => Ok(Value::Bool(value)),
        (Kind::Bool, tree) => Err(tree.refused("true or false")),
        (Kind::String, Tree::Text(value)) => Ok(Value::String(value)),
        (Kind::String, tree) => Err(tree.refused("a string")),
        (Kind::Uint32 | Kind::Fixed32, tree) => number(tree, "0 to 4294967295").map(Value::U32),
        (Kind::Uint64 | Kind::Fixed64, tree) => number(tree, "0 to 2^64 - 1").map(Value::U64),
        (Kind::Int32 | Kind::Sint32 | Kind::Sfixed32, tree) => {
            number(tree, "-2147483648 to 2147483647").map(Value::I32)
        }
        (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64, tree) => {
            number(tree, "-2^63 to 2^63 - 1").map(Value::I64)
        }
        (Kind::Enum(described), tree) => enum_number(tree, &described).map(Value::EnumNumber),
        (Kind::Message(described), tree) => read_message(tree, &described).map(Value::Message),
        // INVARIANT: a test walks the contracts and finds none of these kinds.
        (Kind::Double | Kind::Float | Kind::Bytes, tree) => Err(tree.refused("nothing")),
    }
}

fn number<T>(tree: Tree, range: &str) -> Result<T, FieldError>
where
    T: TryFrom<u64> + TryFrom<i64> + std::str::FromStr,
{
    let wanted = "a whole number";
    // `from_str` alone would take a leading plus sign.
    let plain =
        |text: &str| text.strip_prefix('-').unwrap_or(text).bytes().all(|it| it.is_ascii_digit());
    let (value, shown) = match tree {
        Tree::Unsigned(value) => (T::try_from(value).ok(), value.to_string()),
        Tree::Negative(value) => (T::try_from(value).ok(), value.to_string()),
        Tree::Text(text) if !text.is_empty() && plain(&text) => (text.parse().ok(), quoted(&text)),
        other => return Err(other.refused(wanted)),
    };
    value.ok_or_else(|| {
        let message = format!("is {shown}, out of the range of its type");
        FieldError::new("OUT_OF_BOUNDS", message, format!("give {wanted} from {range}"))
    })
}

fn enum_number(tree: Tree, described: &EnumDescriptor) -> Result<i32, FieldError> {
    let Tree::Text(name) = tree else {
        return Err(tree.refused("a string, the name of the value"));
    };
    described.get_value_by_name(&name).map(|value| value.number()).ok_or_else(|| {
        let known = described.values().filter(|it| it.number() != 0);
        let known: Vec<_> = known.map(|it| it.name().to_owned()).collect();
        let message = format!("has the unknown value `{}`", quoted(&name));
        FieldError::new("UNKNOWN_ENUM_VALUE", message, format!("give one of {}", known.join(", ")))
    })
}

/// A user's text, made safe to print: short, and without control characters.
fn quoted(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_QUOTED_BYTES.min(text.len()));
    let (front, back) = text.split_at(end);
    let front: String = front.chars().map(|it| if it.is_control() { '?' } else { it }).collect();
    if back.is_empty() { front } else { format!("{front}...") }
}

fn write_message(message: &DynamicMessage) -> serde_json::Value {
    let fields = message.descriptor().fields().collect::<Vec<_>>();
    let shown = fields.iter().filter(|it| !it.supports_presence() || message.has_field(it));
    let shown = shown.map(|it| (it.name().to_owned(), write_value(&message.get_field(it), it)));
    serde_json::Value::Object(shown.collect())
}

fn write_value(value: &Value, field: &FieldDescriptor) -> serde_json::Value {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::I32(value) => (*value).into(),
        Value::I64(value) if value.unsigned_abs() <= MAX_EXACT => (*value).into(),
        Value::I64(value) => value.to_string().into(),
        Value::U32(value) => (*value).into(),
        Value::U64(value) if *value <= MAX_EXACT => (*value).into(),
        Value::U64(value) => value.to_string().into(),
        Value::String(value) => value.as_str().into(),
        Value::EnumNumber(number) => {
            match field.kind().as_enum().and_then(|it| it.get_value(*number)) {
                Some(named) => named.name().into(),
                // An answer of a newer server.
                None => (*number).into(),
            }
        }
        Value::Message(message) => write_message(message),
        Value::List(list) => list.iter().map(|it| write_value(it, field)).collect(),
        // INVARIANT: a test walks the contracts and finds none of these kinds.
        Value::F32(_) | Value::F64(_) | Value::Bytes(_) | Value::Map(_) => serde_json::Value::Null,
    }
}
