//! What a provisioner checks before it starts anything.

use std::collections::BTreeMap;
use std::fmt;

use placet_core::{Decision, Effect, IsolationLevel, ReservationGrant};

/// Duties that this provisioner can fulfil, with the values that it can give each parameter.
///
/// `None` takes any value. A parameter that is not listed is one that this provisioner does not
/// understand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities(BTreeMap<String, BTreeMap<String, Option<Vec<String>>>>);

impl Capabilities {
    /// What this example can do: build the isolation levels up to whole hosts, give each tenant a
    /// network partition, choose its neighbours, pace and bound its traffic, encrypt, write audit
    /// records.
    #[must_use]
    pub fn of_this_example() -> Self {
        let values = |values: &[&str]| Some(values.iter().map(|&text| text.to_owned()).collect());
        Self::default()
            .with(
                "isolation",
                [
                    ("level", values(&["SHARED", "PARTITIONED", "PASSTHROUGH", "DEDICATED"])),
                    (
                        "mode",
                        values(&["time-slice", "mig", "sr-iov", "pci-passthrough", "whole-host"]),
                    ),
                ],
            )
            .with(
                "network.partition",
                [("kind", values(&["pkey", "vlan", "vxlan"])), ("tenant", None)],
            )
            .with("placement.co-residents", [("tenants", None)])
            .with("audit.level", [("level", values(&["metadata", "full"]))])
            .with("network.congestion-control", [("profile", None)])
            .with("residency.egress", [("allow", None)])
            .with(
                "encryption",
                [
                    ("at_rest", values(&["operator-keys", "tenant-keys"])),
                    ("in_transit", values(&["tls", "mutual-tls"])),
                ],
            )
    }

    /// Adds a duty.
    #[must_use]
    pub fn with<const N: usize>(
        mut self,
        id: &str,
        params: [(&str, Option<Vec<String>>); N],
    ) -> Self {
        let params = params.into_iter().map(|(name, values)| (name.to_owned(), values));
        self.0.insert(id.to_owned(), params.collect());
        self
    }

    fn refusal(&self, id: &str, params: &BTreeMap<String, String>) -> Option<Refusal> {
        let Some(known) = self.0.get(id) else {
            return Some(Refusal::UnknownObligation { id: id.to_owned() });
        };
        params.iter().find_map(|(name, value)| {
            let possible = match known.get(name) {
                Some(None) => true,
                Some(Some(values)) => values.contains(value),
                None => false,
            };
            let [id, name, value] = [id, name, value].map(str::to_owned);
            (!possible).then_some(Refusal::Parameter { id, name, value })
        })
    }
}

/// The work that the provisioner was asked to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Where.
    pub cluster_id: String,
    /// GPUs.
    pub gpu_count: u32,
    /// Share of each GPU in thousandths.
    pub gpu_milli: u32,
    /// Which model.
    pub gpu_model: String,
    /// How far it is kept apart.
    pub isolation_level: IsolationLevel,
}

/// Why nothing starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The decision denies.
    Denied {
        /// Its codes.
        codes: Vec<String>,
    },
    /// The reservation is over, or its confirm deadline has passed.
    Late,
    /// The work is not what was granted.
    Mismatch {
        /// Which property.
        what: &'static str,
        /// As asked.
        asked: String,
        /// As granted.
        granted: String,
    },
    /// A duty that this provisioner does not know.
    UnknownObligation {
        /// Its id.
        id: String,
    },
    /// A duty that it knows, with a parameter that it cannot fulfil.
    Parameter {
        /// Id of the duty.
        id: String,
        /// Name of the parameter.
        name: String,
        /// Its value.
        value: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { codes } => write!(f, "the decision denies: {}", codes.join(", ")),
            Self::Late => f.write_str("the reservation is over or can no longer be confirmed"),
            Self::Mismatch { what, asked, granted } => {
                write!(f, "{what}: asked to start `{asked}`, granted is `{granted}`")
            }
            Self::UnknownObligation { id } => write!(f, "obligation `{id}` is unknown here"),
            Self::Parameter { id, name, value } => {
                write!(f, "obligation `{id}` wants `{name}` = `{value}`, which cannot be done here")
            }
        }
    }
}

/// Checks a verified decision against the work before it. Gives the reservation to confirm.
///
/// # Errors
/// Every [`Refusal`] that holds, so that an operator sees all of them at once.
pub fn check<'a>(
    decision: &'a Decision,
    asked: &Asked,
    capabilities: &Capabilities,
    now: u64,
) -> Result<&'a ReservationGrant, Vec<Refusal>> {
    let Some(reservation) =
        decision.reservation.as_ref().filter(|_| decision.effect == Effect::Permit)
    else {
        let codes = decision.reasons.iter().map(|reason| reason.code.to_string()).collect();
        return Err(vec![Refusal::Denied { codes }]);
    };
    let mut refusals = mismatches(decision, asked);
    if now >= reservation.confirm_by || now >= reservation.end {
        refusals.push(Refusal::Late);
    }
    for obligation in &decision.obligations {
        refusals.extend(capabilities.refusal(obligation.id.as_str(), &obligation.params));
    }
    if refusals.is_empty() { Ok(reservation) } else { Err(refusals) }
}

fn mismatches(decision: &Decision, asked: &Asked) -> Vec<Refusal> {
    let granted = &decision.workload;
    let level = |level: IsolationLevel| format!("{level:?}").to_uppercase();
    let properties = [
        ("cluster", asked.cluster_id.clone(), granted.cluster_id.to_string()),
        ("GPU model", asked.gpu_model.clone(), granted.gpu_model.to_string()),
        ("GPUs", asked.gpu_count.to_string(), granted.gpu_count.to_string()),
        ("share of a GPU", asked.gpu_milli.to_string(), granted.gpu_milli.to_string()),
        ("isolation", level(asked.isolation_level), level(granted.isolation_level)),
    ];
    let unequal = properties.into_iter().filter(|(_, asked, granted)| asked != granted);
    unequal.map(|(what, asked, granted)| Refusal::Mismatch { what, asked, granted }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The decision of the published vector: 8 whole H100 in c-042, with a network partition.
    fn decision() -> Decision {
        let vector = include_str!("../../engine/core/tests/vectors/token.json");
        let vector: serde_json::Value = serde_json::from_str(vector).expect("JSON");
        let claims = vector["claims"].as_str().expect("a text");
        serde_json::from_str(claims).expect("the claims of a decision")
    }

    fn asked() -> Asked {
        Asked {
            cluster_id: "c-042".to_owned(),
            gpu_count: 8,
            gpu_milli: 1_000,
            gpu_model: "H100".to_owned(),
            isolation_level: IsolationLevel::Passthrough,
        }
    }

    fn verdict(decision: &Decision, asked: &Asked, now: u64) -> Result<(), Vec<String>> {
        let capabilities = Capabilities::of_this_example();
        check(decision, asked, &capabilities, now)
            .map(|_| ())
            .map_err(|refusals| refusals.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_was_granted_starts() {
        let decision = decision();
        assert_eq!(verdict(&decision, &asked(), decision.iat), Ok(()));
    }

    #[test]
    fn every_difference_is_refused() {
        let decision = decision();
        let asked = Asked {
            cluster_id: "c-043".to_owned(),
            gpu_count: 16,
            gpu_milli: 500,
            gpu_model: "H200".to_owned(),
            isolation_level: IsolationLevel::Shared,
        };
        let refusals = verdict(&decision, &asked, decision.iat).expect_err("refused");
        assert_eq!(refusals.len(), 5, "{refusals:#?}");
        assert_eq!(refusals[4], "isolation: asked to start `SHARED`, granted is `PASSTHROUGH`");
    }

    #[test]
    fn a_duty_that_cannot_be_fulfilled_refuses() {
        let mut decision = decision();
        decision.obligations[0].id = placet_core::Id::new("memory.scrub").expect("an id");
        let refusals = verdict(&decision, &asked(), decision.iat).expect_err("unknown");
        assert_eq!(refusals, ["obligation `memory.scrub` is unknown here"]);

        let mut decision = self::decision();
        decision.obligations[0].params.insert("vlan".to_owned(), "7".to_owned());
        let refusals = verdict(&decision, &asked(), decision.iat).expect_err("unknown parameter");
        assert_eq!(refusals.len(), 1, "{refusals:?}");
    }

    #[test]
    fn denials_and_late_decisions_refuse() {
        let mut decision = decision();
        let deadline = decision.reservation.as_ref().expect("a permit").confirm_by;
        assert!(verdict(&decision, &asked(), deadline).is_err());
        decision.effect = Effect::Deny;
        let refusals = verdict(&decision, &asked(), decision.iat).expect_err("a denial");
        assert_eq!(refusals.len(), 1, "{refusals:?}");
    }
}
