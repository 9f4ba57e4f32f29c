//! One policy's answer, checked: the only door from what a policy said to what the engine believes.
//!
//! Both languages hand their answers over in raw form; one bound, one name or one text that breaks
//! a rule makes the whole answer unreadable, and an unreadable answer is `INDETERMINATE`, never an
//! empty one.

use std::collections::BTreeMap;

use placet_core::{
    AccountPath, Claim, Code, Cost, Id, MAX_AMOUNT, MAX_DURATION_SECONDS, Obligation,
    PreemptionRule, PriorityClass, SlaTerms,
};

/// Most denials, and most warnings, of one answer: more would tell a reader nothing.
pub(crate) const MAX_REASONS: usize = 32;
/// Most obligations of one answer.
pub(crate) const MAX_OBLIGATIONS: usize = 32;
/// Most parameters of one obligation.
pub(crate) const MAX_PARAMS: usize = 16;
/// Most claims of one answer: each is a lookup in the ledger.
pub(crate) const MAX_CLAIMS: usize = 32;
/// Most params that a policy calls wrong at once: who mends them is told the first.
pub(crate) const MAX_WRONG_PARAMS: usize = 32;
/// Longest message and hint in bytes, as the contract says.
pub(crate) const MAX_TEXT_BYTES: usize = 1_024;
/// Longest path of a field, and longest name and value of an obligation's parameter, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 256;
/// Most bytes of text in one answer: several answers must fit one token of 65,535 bytes in base64.
pub(crate) const MAX_ANSWER_BYTES: usize = 8_192;
/// Most victims that a rule may allow: each is an eviction order in the same commit.
pub(crate) const MAX_VICTIMS: u32 = 1_000;
/// Most tenants that a rule may protect by name: they stand in every decision that may displace.
pub(crate) const MAX_PROTECTED: usize = 256;
/// Longest error of an `INDETERMINATE` verdict in bytes; the rest is cut.
const MAX_ERROR_BYTES: usize = 512;

/// A param that its own policy calls wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WrongParam {
    /// Where it is, such as `terms[0].grace_seconds`: 1 to 256 bytes.
    pub(crate) path: String,
    /// What is wrong with it, as the rest of a sentence: 1 to 1,024 bytes on one line.
    pub(crate) message: String,
}

/// What a policy said, with what it cost to say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) finding: Finding,
    pub(crate) cost: Cost,
}

/// What a policy said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It has an opinion: no denial means permit.
    Decided(Decided),
    /// It has none.
    NotApplicable,
    /// It could not decide, or could not be understood: one line saying why, the same in every run.
    Indeterminate(String),
}

impl Answer {
    /// Checks a raw answer; one that breaks a rule becomes `INDETERMINATE`.
    pub(crate) fn decided(raw: RawDecided, cost: Cost) -> Self {
        let finding = match raw.check() {
            Ok(decided) => Finding::Decided(decided),
            Err(error) => Finding::Indeterminate(one_line(&error)),
        };
        Self { finding, cost }
    }

    /// The policy could not decide. The text must be the same in every run; it is cut to one
    /// bounded line.
    pub(crate) fn indeterminate(error: &str, cost: Cost) -> Self {
        Self { finding: Finding::Indeterminate(one_line(error)), cost }
    }

    /// The policy has no opinion.
    pub(crate) fn not_applicable(cost: Cost) -> Self {
        Self { finding: Finding::NotApplicable, cost }
    }
}

/// A checked answer, sorted and without repetitions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Decided {
    pub(crate) denials: Vec<Denial>,
    pub(crate) warnings: Vec<Caution>,
    pub(crate) obligations: Vec<Obligation>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) preemption: Option<PreemptionRule>,
    pub(crate) terms: Option<SlaTerms>,
}

/// A denial before the policy's name is added to make it a `Reason`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Denial {
    pub(crate) code: Code,
    pub(crate) field: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) message: String,
    pub(crate) retry: bool,
}

/// A warning before the policy's name is added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Caution {
    pub(crate) code: Code,
    pub(crate) message: String,
}

/// An answer as a policy gave it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawDecided {
    pub(crate) denials: Vec<RawDenial>,
    pub(crate) warnings: Vec<RawWarning>,
    pub(crate) obligations: Vec<RawObligation>,
    pub(crate) claims: Vec<RawClaim>,
    pub(crate) preemption: Option<RawRule>,
    pub(crate) terms: Option<SlaTerms>,
}

/// A rule of preemption as a policy gave it.
#[derive(Debug, Clone)]
pub(crate) struct RawRule {
    pub(crate) cool_down_seconds: u32,
    pub(crate) grace_seconds: u32,
    pub(crate) max_victims: u32,
    pub(crate) max_victims_per_tenant: Option<u32>,
    pub(crate) min_runtime_seconds: u32,
    pub(crate) protected_tenants: Vec<String>,
    pub(crate) victim_classes: Vec<PriorityClass>,
}

/// A denial as a policy gave it.
#[derive(Debug, Clone)]
pub(crate) struct RawDenial {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) field: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) retry: bool,
}

/// A warning as a policy gave it.
#[derive(Debug, Clone)]
pub(crate) struct RawWarning {
    pub(crate) code: String,
    pub(crate) message: String,
}

/// An obligation as a policy gave it.
#[derive(Debug, Clone)]
pub(crate) struct RawObligation {
    pub(crate) id: String,
    pub(crate) params: Vec<(String, String)>,
}

/// A claim as a policy gave it.
#[derive(Debug, Clone)]
pub(crate) struct RawClaim {
    pub(crate) account: String,
    pub(crate) amount: u64,
    pub(crate) limit: Option<u64>,
    pub(crate) code: Option<String>,
}

impl RawDecided {
    /// Checks every name, text, number and count.
    fn check(self) -> Result<Decided, String> {
        at_most(self.denials.len(), MAX_REASONS, "denials")?;
        at_most(self.warnings.len(), MAX_REASONS, "warnings")?;
        at_most(self.obligations.len(), MAX_OBLIGATIONS, "obligations")?;
        at_most(self.claims.len(), MAX_CLAIMS, "claims")?;
        at_most(self.text_bytes(), MAX_ANSWER_BYTES, "bytes of text in the answer")?;
        let mut decided = Decided {
            denials: collect(self.denials, RawDenial::check)?,
            warnings: collect(self.warnings, RawWarning::check)?,
            obligations: collect(self.obligations, RawObligation::check)?,
            claims: collect(self.claims, RawClaim::check)?,
            preemption: self.preemption.map(RawRule::check).transpose()?,
            terms: self.terms.map(check_terms).transpose()?,
        };
        decided.denials.sort();
        decided.denials.dedup();
        decided.warnings.sort();
        decided.warnings.dedup();
        decided.obligations.sort();
        decided.obligations.dedup();
        if let Some((one, _)) = pairs(&decided.obligations).find(|(a, b)| a.id == b.id) {
            return Err(format!("obligation `{}` is given twice with different params", one.id));
        }
        decided.claims.sort_by(|a, b| a.account.cmp(&b.account));
        if let Some((one, _)) = pairs(&decided.claims).find(|(a, b)| a.account == b.account) {
            return Err(format!("account `{}` is claimed twice", one.account));
        }
        Ok(decided)
    }

    fn text_bytes(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let denials = self.denials.iter().map(|denial| {
            denial.code.len()
                + denial.message.len()
                + optional(&denial.field)
                + optional(&denial.hint)
        });
        let warnings = self.warnings.iter().map(|w| w.code.len() + w.message.len());
        let obligations = self.obligations.iter().map(|obligation| {
            let params = obligation.params.iter().map(|(name, value)| name.len() + value.len());
            obligation.id.len() + params.sum::<usize>()
        });
        let claims = self.claims.iter().map(|claim| claim.account.len() + optional(&claim.code));
        let protected = self.preemption.iter().flat_map(|rule| &rule.protected_tenants);
        let protected = protected.map(String::len);
        denials.chain(warnings).chain(obligations).chain(claims).chain(protected).sum()
    }
}

fn pairs<T>(items: &[T]) -> impl Iterator<Item = (&T, &T)> {
    items.iter().zip(items.iter().skip(1))
}

fn collect<T, U>(raw: Vec<T>, check: fn(T) -> Result<U, String>) -> Result<Vec<U>, String> {
    raw.into_iter().map(check).collect()
}

impl RawDenial {
    fn check(self) -> Result<Denial, String> {
        let code = code(self.code, "denial")?;
        check_text(&self.message, MAX_TEXT_BYTES, || format!("message of denial `{code}`"))?;
        if let Some(hint) = &self.hint {
            check_text(hint, MAX_TEXT_BYTES, || format!("hint of denial `{code}`"))?;
        }
        if let Some(field) = &self.field {
            check_text(field, MAX_NAME_BYTES, || format!("field of denial `{code}`"))?;
        }
        let Self { message, field, hint, retry, .. } = self;
        Ok(Denial { code, field, hint, message, retry })
    }
}

impl RawWarning {
    fn check(self) -> Result<Caution, String> {
        let code = code(self.code, "warning")?;
        check_text(&self.message, MAX_TEXT_BYTES, || format!("message of warning `{code}`"))?;
        Ok(Caution { code, message: self.message })
    }
}

impl RawObligation {
    fn check(self) -> Result<Obligation, String> {
        let id = Id::new(self.id).map_err(|error| format!("id of an obligation {error}"))?;
        at_most(self.params.len(), MAX_PARAMS, "params of an obligation")?;
        let mut params = BTreeMap::new();
        for (name, value) in self.params {
            check_text(&name, MAX_NAME_BYTES, || format!("param's name of obligation `{id}`"))?;
            check_text(&value, MAX_NAME_BYTES, || format!("param `{name}` of obligation `{id}`"))?;
            if params.contains_key(&name) {
                return Err(format!("param `{name}` of obligation `{id}` is given twice"));
            }
            params.insert(name, value);
        }
        Ok(Obligation { id, params })
    }
}

impl RawClaim {
    fn check(self) -> Result<Claim, String> {
        let account = AccountPath::new(self.account)
            .map_err(|error| format!("account of a claim {error}"))?;
        if !(1..=MAX_AMOUNT).contains(&self.amount) {
            return Err(format!("amount of the claim on `{account}` is not 1 to 2^53 - 1"));
        }
        if self.limit.is_some_and(|limit| limit > MAX_AMOUNT) {
            return Err(format!("limit of the claim on `{account}` is not 0 to 2^53 - 1"));
        }
        let code = self.code.map(|text| code(text, "claim")).transpose()?;
        Ok(Claim { account, amount: self.amount, code, limit: self.limit })
    }
}

impl RawRule {
    fn check(self) -> Result<PreemptionRule, String> {
        let Self { mut victim_classes, cool_down_seconds, grace_seconds, .. } = self;
        let (max_victims, min_runtime_seconds) = (self.max_victims, self.min_runtime_seconds);
        victim_classes.sort();
        let twice = pairs(&victim_classes).any(|(a, b)| a == b);
        if victim_classes.is_empty() || twice {
            let what = "victim_classes of preemption are not one or more classes, each once";
            return Err(what.into());
        }
        let of_tenant = self.max_victims_per_tenant;
        for (name, most) in
            [("max_victims", Some(max_victims)), ("max_victims_per_tenant", of_tenant)]
        {
            if most.is_some_and(|most| !(1..=MAX_VICTIMS).contains(&most)) {
                return Err(format!("{name} of preemption is not 1 to {MAX_VICTIMS}"));
            }
        }
        in_range("cool_down_seconds of preemption", cool_down_seconds)?;
        in_range("grace_seconds of preemption", grace_seconds)?;
        in_range("min_runtime_seconds of preemption", min_runtime_seconds)?;
        at_most(self.protected_tenants.len(), MAX_PROTECTED, "protected_tenants of preemption")?;
        let tenant = |text: String| {
            Id::new(text).map_err(|error| format!("one of protected_tenants of preemption {error}"))
        };
        let tenants = self.protected_tenants.into_iter().map(tenant);
        let mut protected_tenants = tenants.collect::<Result<Vec<_>, _>>()?;
        protected_tenants.sort();
        if let Some((one, _)) = pairs(&protected_tenants).find(|(a, b)| a == b) {
            return Err(format!("protected_tenants of preemption has `{one}` twice"));
        }
        Ok(PreemptionRule {
            cool_down_seconds,
            grace_seconds,
            max_victims,
            max_victims_per_tenant: of_tenant,
            min_runtime_seconds,
            protected_tenants,
            victim_classes,
        })
    }
}

fn check_terms(terms: SlaTerms) -> Result<SlaTerms, String> {
    in_range("min_runtime_seconds of terms", terms.min_runtime_seconds)?;
    in_range("notice_seconds of terms", terms.notice_seconds)?;
    Ok(terms)
}

fn in_range(name: &str, seconds: u32) -> Result<(), String> {
    if u64::from(seconds) > MAX_DURATION_SECONDS {
        return Err(format!("{name} is not 0 to {MAX_DURATION_SECONDS}"));
    }
    Ok(())
}

fn code(text: String, of: &str) -> Result<Code, String> {
    Code::new(text).map_err(|error| format!("code of a {of} {error}"))
}

fn at_most(count: usize, max: usize, what: &str) -> Result<(), String> {
    if count > max { Err(format!("{count} {what}, at most {max} are allowed")) } else { Ok(()) }
}

/// Texts reach terminals and logs: one line, without control characters.
fn check_text(text: &str, max: usize, what: impl Fn() -> String) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{} is empty", what()));
    }
    if text.len() > max {
        let bytes = text.len();
        return Err(format!("{} has {bytes} bytes, at most {max} are allowed", what()));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{} has a control character", what()));
    }
    Ok(())
}

/// Makes one bounded line of a text.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_ERROR_BYTES));
    for word in text.split(|c: char| c.is_control() || c == ' ').filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > MAX_ERROR_BYTES {
            let end = line.floor_char_boundary(MAX_ERROR_BYTES);
            line.truncate(end);
            break;
        }
    }
    if line.is_empty() { "failed without saying why".into() } else { line }
}
