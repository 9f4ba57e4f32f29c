//! The names that this server gives: of decisions, and of the reservations that they make.

use placet_core::{Digest, Id};

/// How the name of a decision begins.
const DECISION: &str = "dec-";
/// How the name of a reservation begins.
const RESERVATION: &str = "rsv-";
/// Hexadecimal digits of a digest in the names that we give: 128 bits, so that no two are ever
/// equal by chance.
const NAME_DIGITS: usize = 32;

/// Name of the decision on a request: the same whenever it is asked, another in every store.
pub(crate) fn decision_id(store: &str, caller: &Id, request_id: &Id) -> Id {
    name("placet decision", DECISION, store, caller, request_id)
}

/// Name of the reservation that a request may get.
pub(crate) fn reservation_id(store: &str, caller: &Id, request_id: &Id) -> Id {
    name("placet decision", RESERVATION, store, caller, request_id)
}

/// Name of the reservation of a question without consequences: never that of a real one.
pub(crate) fn probe_id(store: &str, caller: &Id, request_id: &Id) -> Id {
    name("placet probe", RESERVATION, store, caller, request_id)
}

/// Name of the decision that is meant by its own name or by that of its reservation, which has the
/// same digits; `None` if it is neither.
pub(crate) fn decision_meant(text: &str) -> Option<Id> {
    let digits = text.strip_prefix(DECISION).or_else(|| text.strip_prefix(RESERVATION))?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let are_ours = digits.len() == NAME_DIGITS && digits.bytes().all(is_digit);
    are_ours.then(|| Id::new(format!("{DECISION}{digits}")).ok()).flatten()
}

fn name(domain: &str, prefix: &str, store: &str, caller: &Id, request_id: &Id) -> Id {
    // The parts hold no NUL, so that no two lists of parts have the same text.
    let text = [domain, store, caller.as_str(), request_id.as_str()].join("\0");
    let mut digits = Digest::of(text.as_bytes()).hex();
    digits.truncate(NAME_DIGITS);
    Id::new(format!("{prefix}{digits}")).expect("a prefix and digits follow the rule of names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_meant_by_its_name_or_that_of_its_reservation() {
        let id = |text: &str| Id::new(text).unwrap();
        let (caller, request) = (id("scheduler"), id("r-1"));
        let own = decision_id("store", &caller, &request);
        let held = reservation_id("store", &caller, &request);
        for text in [&own, &held] {
            assert_eq!(decision_meant(text.as_str()), Some(own.clone()));
        }
        let longer = format!("{own}0");
        for bad in ["", "dec-", "r-1", "dec-2107B8E7922912419A51BF7E78B3BBD7", longer.as_str()] {
            assert_eq!(decision_meant(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_store_gives_its_own_names() {
        let id = |text: &str| Id::new(text).unwrap();
        let (caller, request) = (id("scheduler"), id("r-1"));
        let names = [
            decision_id("a", &caller, &request),
            decision_id("b", &caller, &request),
            decision_id("a", &request, &caller),
            probe_id("a", &caller, &request),
            reservation_id("a", &caller, &request),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(names.iter().skip(at + 1).all(|other| other != name), "{names:?}");
        }
    }
}
