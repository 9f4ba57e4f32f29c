//! One pass over the wire bytes of a message that refuses what a protobuf decoder would forgive.
//!
//! Source of the wire format: <https://protobuf.dev/programming-guides/encoding/>.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind as Described, MessageDescriptor};

use crate::{FieldError, POOL};

#[cfg(test)]
mod tests;

/// Deepest nesting of messages: several times what the contracts have, far below what overflows a
/// stack.
const MAX_DEPTH: u8 = 16;
/// Most bytes of a varint: ten groups of seven bits hold 64.
const MAX_VARINT_BYTES: usize = 10;
/// Largest field number that a table can hold, so that look-up is by index.
const MAX_FIELD_NUMBER: u32 = 255;
/// Most fields of a message: which of them were seen is one word.
const MAX_FIELDS: usize = 64;

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(&POOL));

/// Decodes a message of the contracts, refusing everything that [`crate::StrictCodec`] refuses.
///
/// # Errors
/// [`FieldError`] with code `UNKNOWN_FIELD`, `WRONG_TYPE`, `DUPLICATE_FIELD`, `ONEOF_CONFLICT`,
/// `UNKNOWN_ENUM_VALUE`, `OUT_OF_BOUNDS`, `INVALID_UTF8` or `MALFORMED`. Paths do not say which
/// element of a list is at fault.
pub fn decode_strict<T: Message + Name + Default>(bytes: &[u8]) -> Result<T, FieldError> {
    let index = TABLE.find::<T>().ok_or_else(|| {
        let message = format!("is of a kind, {}, that the contracts do not have", T::NAME);
        FieldError::new("UNKNOWN_MESSAGE", message, "")
    })?;
    TABLE.scan(index, bytes, MAX_DEPTH)?;
    T::decode(bytes).map_err(|error| malformed(&format!("cannot be decoded: {error}")))
}

/// The scan of one kind of message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scan(usize);

impl Scan {
    /// Looks at one encoded message.
    pub(crate) fn run(self, bytes: &[u8]) -> Result<(), FieldError> {
        TABLE.scan(self.0, bytes, MAX_DEPTH)
    }
}

/// The scan of `T`, if some method of a service takes it.
pub(crate) fn request_scan<T: Name>() -> Option<Scan> {
    TABLE.find::<T>().filter(|index| TABLE.requests.contains(index)).map(Scan)
}

/// What every message of the contracts may hold, laid out for the scan.
#[derive(Debug)]
struct Table {
    messages: Vec<Layout>,
    /// Indices of the messages that methods take.
    requests: Vec<usize>,
}

#[derive(Debug)]
struct Layout {
    package: Box<str>,
    name: Box<str>,
    /// By field number.
    fields: Vec<Option<Field>>,
}

#[derive(Debug)]
struct Field {
    name: Box<str>,
    kind: Kind,
    repeated: bool,
    /// The field's own bit in the word of those seen.
    bit: u64,
    /// The bits of the other members of its oneof.
    rivals: u64,
}

#[derive(Debug)]
enum Kind {
    Bool,
    /// `int32`: negative values are sign-extended to 64 bits.
    Signed32,
    /// `uint32` and `sint32`.
    Unsigned32,
    Any64,
    Fixed32,
    Fixed64,
    Bytes,
    String,
    /// The known numbers, sorted.
    Enum(Box<[i32]>),
    /// Index into the table.
    Message(usize),
}

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

impl Kind {
    fn wire_type(&self) -> u64 {
        match self {
            Self::Bool | Self::Signed32 | Self::Unsigned32 | Self::Any64 | Self::Enum(_) => VARINT,
            Self::Fixed64 => FIXED64,
            Self::Bytes | Self::String | Self::Message(_) => LENGTH,
            Self::Fixed32 => FIXED32,
        }
    }
}

impl Table {
    fn new(pool: &DescriptorPool) -> Self {
        let all: Vec<_> = pool.all_messages().collect();
        let index = |wanted: &MessageDescriptor| {
            all.iter().position(|it| it == wanted).expect("a pool holds every message it refers to")
        };
        let methods: Vec<_> =
            pool.services().flat_map(|it| it.methods().collect::<Vec<_>>()).collect();
        let requests = methods.iter().map(|method| index(&method.input())).collect();
        Self { messages: all.iter().map(|it| Layout::new(it, &index)).collect(), requests }
    }

    fn find<T: Name>(&self) -> Option<usize> {
        let named = |it: &Layout| *it.package == *T::PACKAGE && *it.name == *T::NAME;
        self.messages.iter().position(named)
    }

    /// Looks at one message; `depth` messages may still nest in it.
    fn scan(&self, index: usize, bytes: &[u8], depth: u8) -> Result<(), FieldError> {
        let layout = self.messages.get(index).expect("indices come from this table");
        let mut rest = bytes;
        let mut seen = 0;
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            let (number, wire_type) = (key >> 3, key & 7);
            let Some(field) = layout.field(number) else {
                return Err(layout.unknown(number));
            };
            field
                .mark(&mut seen)
                .map_err(|rivals| layout.seen_before(field, rivals))
                .and_then(|()| self.value(field, wire_type, &mut rest, depth))
                .map_err(|fault| fault.inside(&field.name))?;
        }
        Ok(())
    }

    /// Looks at the value of one field, and steps over it.
    fn value(
        &self,
        field: &Field,
        wire_type: u64,
        rest: &mut &[u8],
        depth: u8,
    ) -> Result<(), FieldError> {
        let natural = field.kind.wire_type();
        if wire_type == natural {
            return self.one(&field.kind, rest, depth);
        }
        // Numbers of a list may come packed into one run of bytes.
        if wire_type == LENGTH && field.repeated {
            let mut packed = run(rest)?;
            while !packed.is_empty() {
                self.one(&field.kind, &mut packed, depth)?;
            }
            return Ok(());
        }
        if matches!(wire_type, 3 | 4) {
            return Err(malformed("is a group, a form that proto3 does not have"));
        }
        let message = format!("has wire type {wire_type}, the contract's is {natural}");
        Err(FieldError::new("WRONG_TYPE", message, "encode it with the published contract"))
    }

    fn one(&self, kind: &Kind, rest: &mut &[u8], depth: u8) -> Result<(), FieldError> {
        match kind {
            Kind::Fixed32 => fixed(rest, 4).map(drop),
            Kind::Fixed64 => fixed(rest, 8).map(drop),
            Kind::Bytes => run(rest).map(drop),
            Kind::String => match std::str::from_utf8(run(rest)?) {
                Ok(_) => Ok(()),
                Err(error) => {
                    let message = format!("is not UTF-8 from byte {} on", error.valid_up_to());
                    Err(FieldError::new("INVALID_UTF8", message, "send text as UTF-8"))
                }
            },
            Kind::Message(index) => {
                let bytes = run(rest)?;
                let depth = depth.checked_sub(1).ok_or_else(|| malformed("nests too deeply"))?;
                self.scan(*index, bytes, depth)
            }
            Kind::Any64 => varint(rest).map(drop),
            Kind::Bool => fits(varint(rest)?, |value| value <= 1),
            Kind::Unsigned32 => fits(varint(rest)?, |value| u32::try_from(value).is_ok()),
            Kind::Signed32 => fits(varint(rest)?, |value| signed(value).is_some()),
            Kind::Enum(known) => {
                let value = varint(rest)?;
                match signed(value).map(|number| known.binary_search(&number)) {
                    Some(Ok(_)) => Ok(()),
                    _ => Err(FieldError::new(
                        "UNKNOWN_ENUM_VALUE",
                        format!("has the unknown value {}", value.cast_signed()),
                        "use a value of the contract that this server speaks",
                    )),
                }
            }
        }
    }
}

impl Layout {
    fn new(message: &MessageDescriptor, index: &dyn Fn(&MessageDescriptor) -> usize) -> Self {
        let described: Vec<_> = message.fields().collect();
        assert!(described.len() <= MAX_FIELDS, "{}: too many fields", message.full_name());
        let mut fields = Vec::new();
        for (at, field) in described.iter().enumerate() {
            assert!(field.number() <= MAX_FIELD_NUMBER, "{}: number too large", field.full_name());
            let rival = |other: &FieldDescriptor| {
                other != field
                    && other.containing_oneof().is_some()
                    && other.containing_oneof() == field.containing_oneof()
            };
            let rivals = described.iter().enumerate().filter(|(_, other)| rival(other));
            let number = usize::try_from(field.number()).expect("bounded above");
            fields.resize_with(fields.len().max(number + 1), || None);
            fields[number] = Some(Field {
                name: field.name().into(),
                kind: kind(field, index),
                repeated: field.is_list() || field.is_map(),
                bit: 1 << at,
                rivals: rivals.map(|(at, _)| 1 << at).sum(),
            });
        }
        Self { package: message.package_name().into(), name: message.name().into(), fields }
    }

    fn field(&self, number: u64) -> Option<&Field> {
        self.fields.get(usize::try_from(number).ok()?)?.as_ref()
    }

    #[cold]
    fn unknown(&self, number: u64) -> FieldError {
        if number == 0 || number >= 1 << 29 {
            return malformed(&format!("has a field of the impossible number {number}"));
        }
        let message = format!("has a field of number {number}, which {} does not have", self.name);
        FieldError::new("UNKNOWN_FIELD", message, "leave the field out, or update the server")
    }

    #[cold]
    fn seen_before(&self, field: &Field, rivals: u64) -> FieldError {
        let rival = self.fields.iter().flatten().find(|other| other.bit & rivals != 0);
        match rival {
            Some(rival) if rival.bit != field.bit => FieldError::new(
                "ONEOF_CONFLICT",
                format!("is given beside `{}`, of which it is an alternative", rival.name),
                "give one of the two",
            ),
            _ => FieldError::new("DUPLICATE_FIELD", "is given twice", "give it once"),
        }
    }
}

impl Field {
    /// Notes that the field was seen; fails with the bits that exclude it.
    fn mark(&self, seen: &mut u64) -> Result<(), u64> {
        let excluding = if self.repeated { 0 } else { *seen & (self.bit | self.rivals) };
        *seen |= self.bit;
        if excluding == 0 { Ok(()) } else { Err(excluding) }
    }
}

fn kind(field: &FieldDescriptor, index: &dyn Fn(&MessageDescriptor) -> usize) -> Kind {
    match field.kind() {
        Described::Bool => Kind::Bool,
        Described::Int32 => Kind::Signed32,
        Described::Uint32 | Described::Sint32 => Kind::Unsigned32,
        Described::Int64 | Described::Uint64 | Described::Sint64 => Kind::Any64,
        Described::Fixed32 | Described::Sfixed32 | Described::Float => Kind::Fixed32,
        Described::Fixed64 | Described::Sfixed64 | Described::Double => Kind::Fixed64,
        Described::Bytes => Kind::Bytes,
        Described::String => Kind::String,
        Described::Message(message) => Kind::Message(index(&message)),
        Described::Enum(described) => {
            let mut known: Vec<_> = described.values().map(|it| it.number()).collect();
            known.sort_unstable();
            Kind::Enum(known.into())
        }
    }
}

/// The value of an `int32` or an enum, if it is one.
fn signed(value: u64) -> Option<i32> {
    i32::try_from(value.cast_signed()).ok()
}

fn fits(value: u64, rule: impl Fn(u64) -> bool) -> Result<(), FieldError> {
    if rule(value) {
        return Ok(());
    }
    // A decoder would cut the value to the width of the field: 2^32 + 1 GPUs would read as 1.
    let message = format!("holds {value}, more than its type can");
    Err(FieldError::new("OUT_OF_BOUNDS", message, "encode it with the published contract"))
}

/// Takes a varint in its shortest form off the front.
fn varint(rest: &mut &[u8]) -> Result<u64, FieldError> {
    let mut value = 0_u64;
    for (at, byte) in rest.iter().copied().enumerate().take(MAX_VARINT_BYTES) {
        // The tenth byte has room for the 64th bit alone.
        if at == MAX_VARINT_BYTES - 1 && byte > 1 {
            return Err(malformed("holds a number of more than 64 bits"));
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            if byte == 0 && at > 0 {
                return Err(malformed("holds a number that is not in its shortest form"));
            }
            *rest = rest.get(at + 1..).expect("the byte at this position was just read");
            return Ok(value);
        }
    }
    Err(malformed("ends inside a number"))
}

/// Takes a length and that many bytes off the front.
fn run<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], FieldError> {
    let length = varint(rest)?;
    usize::try_from(length).map_or_else(|_too_long| Err(cut_off()), |length| fixed(rest, length))
}

fn fixed<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], FieldError> {
    let (front, back) = rest.split_at_checked(length).ok_or_else(cut_off)?;
    *rest = back;
    Ok(front)
}

#[cold]
fn cut_off() -> FieldError {
    malformed("is cut off")
}

#[cold]
fn malformed(message: &str) -> FieldError {
    FieldError::new("MALFORMED", message, "encode it with a protobuf library")
}
