//! How long work may run: a function from what is asked to an answer.
//!
//! A policy has no clock, no randomness and no I/O: whatever it needs stands in the input. One that
//! panics or fails is Indeterminate, and denies.

use std::collections::BTreeMap;

use placet_guest::{Answer, Decided, Denial, Input};
use serde::Deserialize;

placet_guest::policy!(evaluate);

/// The params, as the schema beside the cases describes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Longest work by priority class, in seconds.
    max_duration_seconds: BTreeMap<String, u64>,
}

impl Params {
    /// Seconds for a class. A class that is not listed gets 0: what is left out refuses.
    fn maximum(&self, class: &str) -> u64 {
        self.max_duration_seconds.get(class).copied().unwrap_or(0)
    }
}

fn evaluate(input: Input, params: &str) -> Answer {
    let params: Params = match serde_json::from_str(params) {
        Ok(params) => params,
        Err(error) => return Answer::failed(format!("the params cannot be read: {error}")),
    };
    let Some((kind, work)) = input.subject() else {
        return Answer::failed("the input has neither a lease nor a job");
    };
    let class = input.priority_class.name();
    let (asked, maximum) = (work.duration_seconds, params.maximum(class));
    let mut decided = Decided::permit();
    if asked > maximum {
        let message = format!("{asked} s are above {maximum} s, the maximum of class {class}");
        decided.deny(
            Denial::new("DURATION_ABOVE_MAXIMUM", message)
                .field(format!("{kind}.duration_seconds"))
                .hint("ask for less, and again at its end"),
        );
    }
    decided.into()
}

#[cfg(test)]
mod tests {
    use super::Params;

    /// Plain `cargo test` runs this, without a component.
    #[test]
    fn a_class_that_is_not_listed_may_not_run() {
        let params = r#"{"max_duration_seconds": {"EXTERNAL_COMMERCIAL": 100}}"#;
        let params: Params = serde_json::from_str(params).expect("they keep to the schema");
        assert_eq!(params.maximum("EXTERNAL_COMMERCIAL"), 100);
        assert_eq!(params.maximum("INTERNAL_RESEARCH"), 0);
    }
}
