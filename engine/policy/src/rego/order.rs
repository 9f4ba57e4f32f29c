//! Sets and objects side by side.
//!
//! Values have an order, by which sets and objects are gone through and lists are sorted. In OPA's
//! order objects come before sets, in the interpreter's after them; everything else is alike. So
//! wherever a comparison would meet both, there is an error instead of another order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use regorus::Value;

use super::weigh::{MAX_DEPTH, Refused};

/// Most places that are told apart in the values of one class: beyond that a level counts as one
/// place, which refuses more than it must.
const MAX_PLACES: usize = 1_024;

/// Levels of a value, as bits.
type Levels = u128;

const _: () = assert!(MAX_DEPTH < 128, "each level has its bit");

thread_local! {
    /// Values that the evaluation on this thread compares with one another, by class.
    static CLASSES: RefCell<BTreeMap<Box<str>, Mixture>> = const { RefCell::new(BTreeMap::new()) };
}

/// On which levels there are sets, and on which objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    sets: Levels,
    objects: Levels,
}

impl Kinds {
    /// Of a value that is on a level, without its parts.
    pub(super) fn of(value: &Value, level: usize) -> Self {
        let bit = u32::try_from(level).ok().and_then(|level| 1_u128.checked_shl(level));
        let bit = bit.unwrap_or_default();
        match value {
            Value::Set(_) => Self { sets: bit, objects: 0 },
            Value::Object(_) => Self { sets: 0, objects: bit },
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Undefined => Self::default(),
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self { sets: self.sets | other.sets, objects: self.objects | other.objects }
    }

    /// Whether a level has both.
    pub(super) fn mixed(self) -> bool {
        self.sets & self.objects != 0
    }
}

/// What stands where in values that are compared with one another.
#[derive(Debug, Default)]
struct Mixture {
    kinds: Kinds,
    /// By the hash of a place, whether sets are there; if not, objects are.
    places: BTreeMap<u64, bool>,
    mixed: bool,
}

impl Mixture {
    /// Two objects are compared key by key and, where those are equal, value by value; two lists
    /// index by index; of two sets any elements may meet.
    fn add(&mut self, value: &Value, place: u64, level: usize) {
        self.kinds = self.kinds.and(Kinds::of(value, level));
        let below = level.saturating_add(1);
        match value {
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.add(item, inside(place, "item", &at.to_le_bytes()), below);
                }
            }
            Value::Set(items) => {
                self.stands(place, true);
                for item in items.iter() {
                    self.add(item, inside(place, "element", &[]), below);
                }
            }
            Value::Object(fields) => {
                self.stands(place, false);
                for (key, value) in fields.iter_sorted() {
                    self.add(key, inside(place, "key", &[]), below);
                    let field = if let Value::String(name) = key { name.as_bytes() } else { &[] };
                    self.add(value, inside(place, "value", field), below);
                }
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Undefined => {}
        }
    }

    fn stands(&mut self, place: u64, set: bool) {
        if let Some(before) = self.places.get(&place) {
            self.mixed |= *before != set;
        } else if self.places.len() < MAX_PLACES {
            self.places.insert(place, set);
        }
    }

    fn check(&self) -> Result<(), Refused> {
        let full = self.places.len() == MAX_PLACES;
        if self.mixed || full && self.kinds.mixed() {
            let message = "sets and objects that are compared are in another order in OPA";
            return Err(Refused::Wrong(message.to_owned()));
        }
        Ok(())
    }
}

fn inside(place: u64, step: &str, which: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (place, step, which).hash(&mut hasher);
    hasher.finish()
}

/// Refuses values that are compared with one another and have a set where another has an object.
pub(super) fn alike<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<(), Refused> {
    let mut mixture = Mixture::default();
    for value in values {
        mixture.add(value, 0, 0);
    }
    mixture.check()
}

/// The same over all calls for one class since the start of an evaluation.
pub(super) fn join(class: &str, value: &Value) -> Result<(), Refused> {
    CLASSES.with_borrow_mut(|classes| {
        if !classes.contains_key(class) {
            classes.insert(class.into(), Mixture::default());
        }
        let Some(mixture) = classes.get_mut(class) else { return Ok(()) };
        mixture.add(value, 0, 0);
        mixture.check()
    })
}

/// Forgets one class.
pub(super) fn forget(class: &str) {
    CLASSES.with_borrow_mut(|classes| classes.remove(class));
}

/// Forgets all: another evaluation starts.
pub(super) fn start() {
    CLASSES.with_borrow_mut(BTreeMap::clear);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value {
        Value::from_json_str(json).expect("it is JSON")
    }

    fn set<const N: usize>(items: [Value; N]) -> Value {
        Value::from(std::collections::BTreeSet::from(items))
    }

    #[test]
    fn a_set_where_another_has_an_object_is_refused() {
        let one = || set([value("1")]);
        let field = |name: &str, field: Value| {
            let mut object = Value::new_object();
            object.as_object_mut().expect("it is one").insert(Value::from(name), field);
            object
        };
        let object = || value("{\"a\": 1}");
        for (left, right, refused) in [
            (one(), object(), true),
            (one(), value("[1]"), false),
            (Value::from(vec![one()]), Value::from(vec![object()]), true),
            (Value::from(vec![one(), object()]), Value::from(vec![one(), object()]), false),
            (Value::from(vec![one()]), Value::from(vec![value("1"), object()]), false),
            (field("a", one()), field("a", object()), true),
            (field("a", one()), field("b", object()), false),
            (set([one()]), set([object()]), true),
            (one(), field("a", one()), true),
        ] {
            assert_eq!(alike([&left, &right]).is_err(), refused, "{left} {right}");
            start();
            assert!(join("x", &left).is_ok() && join("y", &right).is_ok());
            assert_eq!(join("x", &right).is_err(), refused, "{left} {right}");
            forget("x");
            assert!(join("x", &right).is_ok());
        }
    }

    #[test]
    fn with_many_places_a_level_is_one() {
        let fields = (0..MAX_PLACES).map(|at| format!("\"{at}\": {{}}")).collect::<Vec<_>>();
        let many = value(&format!("{{{}}}", fields.join(", ")));
        assert!(alike([&many]).is_ok());
        let mut other = Value::new_object();
        other.as_object_mut().expect("it is one").insert(Value::from("x"), Value::new_set());
        assert!(alike([&many, &other]).is_err());
    }
}
