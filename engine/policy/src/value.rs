//! Typed records as documents of the Rego interpreter, without JSON text in between.

use placet_core::{Id, IsolationLevel, ModelUse, PriorityClass};
use regorus::Value;

/// Something that a policy can read.
pub(crate) trait ToValue {
    /// The same as a document.
    fn to_value(&self) -> Value;

    /// What a record holds in its place; an absent optional field is left out.
    fn slot(&self) -> Option<Value> {
        Some(self.to_value())
    }
}

impl ToValue for bool {
    fn to_value(&self) -> Value {
        Value::from(*self)
    }
}

impl ToValue for u32 {
    fn to_value(&self) -> Value {
        Value::from(*self)
    }
}

impl ToValue for u64 {
    fn to_value(&self) -> Value {
        Value::from(*self)
    }
}

impl ToValue for String {
    fn to_value(&self) -> Value {
        Value::from(self.as_str())
    }
}

impl ToValue for Id {
    fn to_value(&self) -> Value {
        Value::from(self.as_str())
    }
}

impl<T: ToValue> ToValue for Vec<T> {
    fn to_value(&self) -> Value {
        Value::from(self.iter().map(ToValue::to_value).collect::<Vec<_>>())
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, ToValue::to_value)
    }

    fn slot(&self) -> Option<Value> {
        self.as_ref().map(ToValue::to_value)
    }
}

/// Writes an enum as its name. The list is checked for completeness by the compiler, its names by a
/// test.
macro_rules! named {
    ($type:ty { $($variant:ident = $name:literal),* $(,)? }) => {
        impl $crate::value::ToValue for $type {
            fn to_value(&self) -> regorus::Value {
                thread_local! {
                    static NAMES: Vec<regorus::Value> = vec![$(regorus::Value::from($name)),*];
                }
                let name = match self { $(Self::$variant => $name),* };
                let position = [$($name),*].iter().position(|other| *other == name);
                let shared = position.and_then(|at| NAMES.with(|names| names.get(at).cloned()));
                shared.unwrap_or_else(|| regorus::Value::from(name))
            }
        }
    };
}
pub(crate) use named;

named!(PriorityClass {
    InternalResearch = "INTERNAL_RESEARCH",
    ExternalCommercial = "EXTERNAL_COMMERCIAL",
});

named!(ModelUse {
    Training = "TRAINING",
    FineTuning = "FINE_TUNING",
    Inference = "INFERENCE",
    Evaluation = "EVALUATION",
});

named!(IsolationLevel {
    Shared = "SHARED",
    Partitioned = "PARTITIONED",
    Passthrough = "PASSTHROUGH",
    Dedicated = "DEDICATED",
    Confidential = "CONFIDENTIAL",
});

/// Defines a record of the input: one struct, read and written strictly, and known to Rego by the
/// same names. The keys are made once per thread: a clone is then a count, and no two threads count
/// on the same memory.
macro_rules! record {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $crate::value::ToValue for $name {
            fn to_value(&self) -> regorus::Value {
                thread_local! {
                    static KEYS: Vec<regorus::Value> =
                        vec![$(regorus::Value::from(stringify!($field))),*];
                }
                let slots = [$($crate::value::ToValue::slot(&self.$field)),*];
                KEYS.with(|keys| {
                    let fields = keys.iter().zip(slots);
                    let present = fields.filter_map(|(key, slot)| Some((key.clone(), slot?)));
                    regorus::Value::from(present.collect::<regorus::value::Object>())
                })
            }
        }
    };
}
pub(crate) use record;
