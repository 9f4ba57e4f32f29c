//! What of the facts holds for a time only: who reads facts before they are active wants to know
//! what is over, what ends soon and what is still to come.

use placet_core::Id;

use super::Facts;

/// An attestation or a licence, and for how long it holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Validity {
    /// Whose it is, such as "tenant `acme`".
    pub holder: String,
    /// What it is, such as "attestation of SOC2".
    pub what: String,
    /// First second, since 1970-01-01 UTC.
    pub from: u64,
    /// First second after it, since 1970-01-01 UTC.
    pub until: u64,
}

impl Facts {
    /// Every attestation and every licence, by holder and in the order of time.
    #[must_use]
    pub fn validities(&self) -> Vec<Validity> {
        let one = |kind: &str, id: &Id, what: String, (from, until): (u64, u64)| Validity {
            holder: format!("{kind} `{id}`"),
            what,
            from,
            until,
        };
        let mut all = Vec::new();
        for cluster in self.clusters.values() {
            for held in &cluster.attestations {
                let what = format!("attestation of {}", held.framework);
                all.push(one("cluster", &cluster.id, what, (held.valid_from, held.valid_until)));
            }
        }
        for tenant in self.tenants.values() {
            for held in &tenant.attestations {
                let what = format!("attestation of {}", held.framework);
                all.push(one("tenant", &tenant.id, what, (held.valid_from, held.valid_until)));
            }
            for held in &tenant.licences {
                let what = format!("licence for model `{}`", held.model);
                all.push(one("tenant", &tenant.id, what, (held.valid_from, held.valid_until)));
            }
        }
        all.sort();
        all
    }
}
