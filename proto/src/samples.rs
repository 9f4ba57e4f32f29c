//! Any valid message of the contracts, made from its descriptor.

use proptest::prelude::*;
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::POOL;

/// Any message of type `T`; every field may be absent, every list empty.
pub(crate) fn any_message<T>() -> impl Strategy<Value = T>
where
    T: Message + Name + Default + std::fmt::Debug,
{
    let described = POOL.get_message_by_name(&T::full_name()).expect("a message of the contracts");
    message(&described).prop_map(|it| it.transcode_to().expect("a message decodes as itself"))
}

fn message(described: &MessageDescriptor) -> BoxedStrategy<DynamicMessage> {
    let empty = DynamicMessage::new(described.clone());
    let fields: Vec<_> = described.fields().map(|it| (Just(it.clone()), field(&it))).collect();
    fields
        .prop_map(move |fields| {
            let mut message = empty.clone();
            for (field, value) in fields {
                if let Some(value) = value {
                    message.set_field(&field, value);
                }
            }
            message
        })
        .boxed()
}

fn field(field: &FieldDescriptor) -> BoxedStrategy<Option<Value>> {
    let one = one(field.kind());
    let value = if field.is_list() {
        prop::collection::vec(one, 0..4).prop_map(Value::List).boxed()
    } else {
        one
    };
    prop::option::of(value).boxed()
}

fn one(kind: Kind) -> BoxedStrategy<Value> {
    match kind {
        Kind::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Kind::Int32 => any::<i32>().prop_map(Value::I32).boxed(),
        Kind::Uint32 => any::<u32>().prop_map(Value::U32).boxed(),
        Kind::Uint64 => any::<u64>().prop_map(Value::U64).boxed(),
        Kind::String => ".{0,12}".prop_map(Value::String).boxed(),
        Kind::Enum(it) => {
            let known: Vec<_> = it.values().map(|value| value.number()).collect();
            prop::sample::select(known).prop_map(Value::EnumNumber).boxed()
        }
        Kind::Message(it) => message(&it).prop_map(Value::Message).boxed(),
        other => panic!("the contracts have no {other:?} yet"),
    }
}
