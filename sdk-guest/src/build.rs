//! Ways to build an answer that cannot forget a field.

use crate::{
    Answer, Claim, Decided, Denial, Input, Obligation, PreemptionRule, PriorityClass, SlaTerms,
    Warning, Workload,
};

impl Input {
    /// What is asked for, with the name of its field: `lease` or `job`.
    ///
    /// The engine always sets exactly one of them; `None` if it set neither, which a policy must
    /// not take for consent.
    #[must_use]
    pub fn subject(&self) -> Option<(&'static str, &Workload)> {
        match (&self.lease, &self.job) {
            (Some(lease), None) => Some(("lease", lease)),
            (None, Some(job)) => Some(("job", job)),
            _ => None,
        }
    }
}

impl Answer {
    /// The policy could not decide: the verdict is Indeterminate, and the request is denied.
    ///
    /// `error` is one line that says why; it must be the same whenever the input is.
    #[must_use]
    pub fn failed(error: impl Into<String>) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Decided> for Answer {
    fn from(decided: Decided) -> Self {
        Self::Decided(decided)
    }
}

impl Decided {
    /// Nothing denied yet, nothing asked: a permit, unless something is added.
    #[must_use]
    pub fn permit() -> Self {
        Self {
            denials: Vec::new(),
            warnings: Vec::new(),
            obligations: Vec::new(),
            claims: Vec::new(),
            preemption: None,
            terms: None,
        }
    }

    /// Refuses the request. At most 32 denials are read.
    pub fn deny(&mut self, denial: Denial) -> &mut Self {
        self.denials.push(denial);
        self
    }

    /// Tells a person something, though the request may pass. At most 32 warnings are read.
    pub fn warn(&mut self, code: impl Into<String>, message: impl Into<String>) -> &mut Self {
        self.warnings.push(Warning { code: code.into(), message: message.into() });
        self
    }

    /// Lays a duty on the enforcement point, which fulfils it or refuses. At most 32 obligations
    /// are read.
    pub fn oblige(&mut self, obligation: Obligation) -> &mut Self {
        self.obligations.push(obligation);
        self
    }

    /// Takes quota if the request is admitted. At most 32 claims are read, one for each account.
    pub fn claim(&mut self, claim: Claim) -> &mut Self {
        self.claims.push(claim);
        self
    }

    /// Lets the request displace others.
    pub fn preempt(&mut self, rule: PreemptionRule) -> &mut Self {
        self.preemption = Some(rule);
        self
    }

    /// Promises the request what it gets should it be displaced.
    pub fn promise(&mut self, terms: SlaTerms) -> &mut Self {
        self.terms = Some(terms);
        self
    }
}

impl PreemptionRule {
    /// At most `max_victims` reservations of these classes, each after `grace_seconds` of notice
    /// and `min_runtime_seconds` of run time.
    #[must_use]
    pub fn new(
        victim_classes: Vec<PriorityClass>,
        grace_seconds: u32,
        min_runtime_seconds: u32,
        max_victims: u32,
    ) -> Self {
        Self {
            victim_classes,
            grace_seconds,
            min_runtime_seconds,
            max_victims,
            protected_tenants: Vec::new(),
            cool_down_seconds: 0,
            max_victims_per_tenant: None,
        }
    }

    /// Spares a tenant. At most 256 are read, each once.
    #[must_use]
    pub fn protect(mut self, tenant: impl Into<String>) -> Self {
        self.protected_tenants.push(tenant.into());
        self
    }

    /// Spares who lost work by an eviction less than so many seconds before.
    #[must_use]
    pub fn cool_down(mut self, seconds: u32) -> Self {
        self.cool_down_seconds = seconds;
        self
    }

    /// Displaces at most so many reservations of one tenant.
    #[must_use]
    pub fn of_one_tenant(mut self, most: u32) -> Self {
        self.max_victims_per_tenant = Some(most);
        self
    }
}

impl Denial {
    /// A denial that a retry would meet again.
    ///
    /// `code` is stable, `[A-Z][A-Z0-9_]{0,63}`; `message` is for a person, 1 to 1,024 bytes on one
    /// line.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), field: None, hint: None, retry: false }
    }

    /// Names the offending input field, such as `lease.isolation_level`.
    #[must_use]
    pub fn field(mut self, path: impl Into<String>) -> Self {
        self.field = Some(path.into());
        self
    }

    /// Says what would help, up to 1,024 bytes.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that the same request may be admitted later.
    #[must_use]
    pub fn retry(mut self) -> Self {
        self.retry = true;
        self
    }
}

impl Obligation {
    /// A duty without parameters.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), params: Vec::new() }
    }

    /// Adds a parameter. Each name once; name and value are 1 to 256 bytes; at most 16 are read.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.params.push((name.into(), value.into()));
        self
    }
}

impl Claim {
    /// `amount`, in the account's unit and 1 to 2^53 - 1, of `account`, such as `tenant/acme/gpu`.
    #[must_use]
    pub fn new(account: impl Into<String>, amount: u64) -> Self {
        Self { account: account.into(), amount, limit: None, code: None }
    }

    /// Refuses if the account's use would pass `limit`, which may only tighten the account's own.
    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Code of the denial if the claim is refused, instead of `QUOTA_EXCEEDED`.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_what_is_said() {
        let mut decided = Decided::permit();
        decided
            .deny(Denial::new("NO", "not today").field("lease.gpu_count").hint("ask for 4").retry())
            .warn("LATE", "the window closes soon")
            .oblige(Obligation::new("network.partition").param("tenant", "acme"))
            .claim(Claim::new("tenant/acme/gpu", 4_000).limit(8_000).code("TENANT_GPUS"))
            .preempt(
                PreemptionRule::new(vec![PriorityClass::ExternalCommercial], 60, 0, 4)
                    .protect("harbor")
                    .cool_down(3_600)
                    .of_one_tenant(1),
            )
            .promise(SlaTerms { min_runtime_seconds: 600, notice_seconds: 30 });
        let Answer::Decided(said) = Answer::from(decided) else { panic!("a decision was built") };
        let [denial] = said.denials.as_slice() else { panic!("one denial was added") };
        assert_eq!(denial.field.as_deref(), Some("lease.gpu_count"));
        assert!(denial.retry, "and only because it was asked for");
        assert!(!Denial::new("NO", "never").retry);
        assert_eq!(said.obligations[0].params, [("tenant".to_owned(), "acme".to_owned())]);
        assert_eq!(said.claims[0].limit, Some(8_000));
        assert_eq!(said.warnings.len(), 1);
        let rule = said.preemption.as_ref().expect("a rule was given");
        assert_eq!((rule.cool_down_seconds, rule.max_victims_per_tenant), (3_600, Some(1)));
        assert_eq!(rule.protected_tenants, ["harbor"]);
        assert_eq!(said.terms.map(|terms| terms.notice_seconds), Some(30));
    }
}
