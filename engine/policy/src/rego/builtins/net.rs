//! Networks of addresses, written as CIDR blocks.

use std::net::IpAddr;

use ipnet::IpNet;
use regorus::Value;

use super::text::text;
use crate::rego::weigh::{Refused, at_most, count, work};

/// Most addresses that a block is expanded to.
const MAX_ADDRESSES: u64 = 10_000;

fn block(text: &str) -> Result<IpNet, Refused> {
    let block = text.parse::<IpNet>();
    block.map_err(|_invalid| Refused::Wrong(format!("`{}` is no CIDR block", start(text))))
}

/// A block, or one address as the block of it alone.
fn block_or_address(text: &str) -> Result<IpNet, Refused> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_not_one) => block(text),
    }
}

/// Enough of a text to know it by.
fn start(text: &str) -> String {
    text.chars().take(64).collect()
}

/// `net.cidr_contains`: a block holds all of another, or an address.
pub(super) fn contains(given: &[Value]) -> Result<Value, Refused> {
    let outer = block(text(given, 0, "the block")?)?;
    let inner = block_or_address(text(given, 1, "the block or address")?)?;
    Ok(Value::from(holds(outer, inner)))
}

fn holds(outer: IpNet, inner: IpNet) -> bool {
    outer.contains(&inner.network()) && outer.contains(&inner.broadcast())
}

/// `net.cidr_intersects`: two blocks have an address in common.
pub(super) fn intersects(given: &[Value]) -> Result<Value, Refused> {
    let one = block(text(given, 0, "the first block")?)?;
    let other = block(text(given, 1, "the second block")?)?;
    Ok(Value::from(one.contains(&other.network()) || other.contains(&one.network())))
}

/// `net.cidr_is_valid`.
pub(super) fn is_valid(given: &[Value]) -> Result<Value, Refused> {
    let valid = matches!(given.first(), Some(Value::String(text)) if block(text).is_ok());
    Ok(Value::from(valid))
}

/// `net.cidr_expand`: the set of all addresses of a block.
pub(super) fn expand(given: &[Value]) -> Result<Value, Refused> {
    let block = block(text(given, 0, "the block")?)?;
    let bits = block.max_prefix_len().saturating_sub(block.prefix_len());
    let addresses = 1_u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX);
    at_most(addresses, MAX_ADDRESSES, "addresses of the block")?;
    work(addresses.saturating_mul(16))?;
    let numbers = |first: u128| (0..u128::from(addresses)).map(move |at| first.saturating_add(at));
    let texts: std::collections::BTreeSet<Value> = match block.network() {
        IpAddr::V4(first) => {
            let first = u128::from(u32::from(first));
            let address = |number: u128| u32::try_from(number).map(std::net::Ipv4Addr::from);
            numbers(first).filter_map(|number| address(number).ok()).map(written).collect()
        }
        IpAddr::V6(first) => {
            numbers(u128::from(first)).map(std::net::Ipv6Addr::from).map(written).collect()
        }
    };
    Ok(Value::from(texts))
}

fn written(address: impl std::fmt::Display) -> Value {
    Value::from(address.to_string())
}

/// `net.cidr_merge`: the shortest list of blocks with the same addresses.
pub(super) fn merge(given: &[Value]) -> Result<Value, Refused> {
    let wrong = || Refused::Wrong("the blocks are neither a list nor a set of texts".to_owned());
    let items: Vec<&Value> = match given.first() {
        Some(Value::Array(items)) => items.iter().collect(),
        Some(Value::Set(items)) => items.iter().collect(),
        _ => return Err(wrong()),
    };
    let mut blocks = Vec::with_capacity(items.len());
    for item in items {
        let Value::String(text) = item else { return Err(wrong()) };
        blocks.push(block_or_address(text)?);
    }
    work(count(blocks.len()).saturating_mul(16))?;
    let merged = IpNet::aggregate(&blocks).into_iter().map(written);
    Ok(Value::from(merged.collect::<std::collections::BTreeSet<_>>()))
}

/// `net.cidr_contains_matches`: which of the first hold which of the second, by their places.
pub(super) fn contains_matches(given: &[Value]) -> Result<Value, Refused> {
    let outer = places(given.first(), block)?;
    let inner = places(given.get(1), block_or_address)?;
    work(count(outer.len()).saturating_mul(count(inner.len())))?;
    let mut matches = std::collections::BTreeSet::new();
    for (place, outer) in &outer {
        for (inside, inner) in &inner {
            if holds(*outer, *inner) {
                matches.insert(Value::from(vec![place.clone(), inside.clone()]));
                at_most(count(matches.len()), MAX_ADDRESSES, "matches of blocks")?;
            }
        }
    }
    Ok(Value::from(matches))
}

/// Blocks with what they are told by: itself, the index in a list, the element of a set, the key.
fn places(
    value: Option<&Value>,
    read: fn(&str) -> Result<IpNet, Refused>,
) -> Result<Vec<(Value, IpNet)>, Refused> {
    let wrong = || Refused::Wrong("an operand is no text, list, set or object of texts".to_owned());
    // An element is a text, or a list that begins with one.
    let one = |place: Value, item: &Value| -> Result<(Value, IpNet), Refused> {
        let first = if let Value::Array(items) = item { items.first() } else { None };
        let text = first.unwrap_or(item).as_string().ok();
        Ok((place, read(text.ok_or_else(wrong)?)?))
    };
    match value {
        Some(text @ Value::String(_)) => Ok(vec![one(text.clone(), text)?]),
        Some(Value::Array(items)) => {
            items.iter().enumerate().map(|(at, item)| one(Value::from(count(at)), item)).collect()
        }
        Some(Value::Set(items)) => items.iter().map(|item| one(item.clone(), item)).collect(),
        Some(Value::Object(fields)) => {
            fields.iter_sorted().map(|(key, item)| one(key.clone(), item)).collect()
        }
        _ => Err(wrong()),
    }
}
