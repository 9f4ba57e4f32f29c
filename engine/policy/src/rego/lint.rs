//! All that is wrong or doubtful in the text of a policy in Rego, for those who write it.
//!
//! What a load refuses is found by the checks of a load, and told with the rule that it breaks. The
//! rest are lints: what loads, and hardly says what its author means. They look at the syntax tree
//! and at what the schemas say of the input and the params, and rather stay silent than guess.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a lint looks for a few kinds of expression; the others say nothing to it"
)]

mod amounts;
mod annotated;
mod context;
mod loops;
mod names;
mod undefined;
mod unreachable;

use std::collections::BTreeSet;

use placet_core::SubjectKind;
use regorus::unstable::Module;
use serde_json::Value as Json;

use super::check::{self, refs, types::Types};
use super::{RegoPolicy, annotations, contradictions, params, parse};
use crate::answer::WrongParam;
use crate::document::{certain, nearest};
use crate::error::Fault;
use crate::input::Input;
use crate::metadata::PolicyMetadata;
use context::Context;

/// A policy's text, and what the manifest says of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'s> {
    /// Path of the file in the bundle.
    pub(crate) file: &'s str,
    pub(crate) text: &'s str,
    /// What the manifest says; none if it cannot be read.
    pub(crate) entry: Option<Entry<'s>>,
}

/// What the manifest says of a policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'s> {
    /// The params as canonical JSON.
    pub(crate) params: &'s str,
    /// The schema that they keep to.
    pub(crate) schema: Option<&'s Json>,
    /// Kinds of subject that the policy is asked about; empty for all.
    pub(crate) kinds: &'s [SubjectKind],
    /// Ticks of one evaluation.
    pub(crate) ticks: u64,
}

/// What was found in a policy's text.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// What a load refuses.
    pub(crate) faults: Vec<Fault>,
    /// What the lints say.
    pub(crate) findings: Vec<Finding>,
    /// What its denials and warnings are called; none if the text cannot be read.
    pub(crate) codes: Option<Codes>,
    /// What its annotations say, if they can be read.
    pub(crate) metadata: Option<PolicyMetadata>,
    /// Which of its params the policy calls wrong, or why it cannot say.
    pub(crate) wrong_params: Option<Result<Vec<WrongParam>, String>>,
}

/// What a lint says of a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The rule of [`crate::lint::RULES`].
    pub(crate) rule: &'static str,
    /// First byte that it is about, and the one after the last.
    pub(crate) bytes: (u32, u32),
    pub(crate) message: String,
    pub(crate) hint: String,
    /// Bytes to replace, and by what, where nothing but what was meant can come of it.
    pub(crate) change: Option<((u32, u32), String)>,
}

impl Finding {
    fn new(
        rule: &'static str,
        bytes: (u32, u32),
        message: String,
        hint: impl Into<String>,
    ) -> Self {
        Self { rule, bytes, message, hint: hint.into(), change: None }
    }
}

/// Codes that a policy's text names.
#[derive(Debug, Default)]
pub(crate) struct Codes {
    /// Each with its place: those of denials and warnings, which cases can expect.
    pub(crate) told: Vec<(String, (u32, u32))>,
    /// Whether it may give codes that are not written out.
    pub(crate) open: bool,
}

/// Looks at a policy.
pub(crate) fn look(subject: Subject<'_>) -> Look {
    let Subject { file, text, entry } = subject;
    let mut look = Look::default();
    let parsed = match parse(file, text) {
        Ok(parsed) => parsed,
        Err(fault) => {
            look.faults.push(fault.of_rule("syntax"));
            return look;
        }
    };
    let module = &parsed.module;
    let schema = Input::json_schema().to_value();
    let known = match entry {
        Some(entry) => check::Params::new(&params(entry.params), entry.schema),
        None => check::Params::unknown(),
    };
    let mut types = Types::new(module, file, &schema, &known);
    look.faults = check::survey(module, file, &mut types);
    match annotations::read(module, text, file) {
        Ok(metadata) => look.metadata = Some(metadata),
        Err(fault) => look.faults.push(fault.of_rule("annotation")),
    }
    look.faults
        .extend(contradictions::declared(module, file).err().map(|it| it.of_rule("contract")));
    if let (Some(entry), true) = (entry, look.faults.is_empty()) {
        let values = params(entry.params);
        match RegoPolicy::compile(text, file, &values, entry.schema, entry.ticks) {
            Ok(policy) => look.wrong_params = Some(policy.wrong_params()),
            Err(fault) => look.faults.push(unbound(fault, module).of_rule("compile")),
        }
    }
    let kinds = entry.map(|entry| entry.kinds);
    let context = Context::new(module, types, look.metadata.as_ref(), kinds);
    let found = &mut look.findings;
    undefined::find(&context, found);
    unreachable::find(&context, found);
    annotated::find(&context, found);
    names::find(&context, text, found);
    amounts::find(&context, found);
    loops::find(&context, found);
    look.codes = Some(annotated::codes(&context));
    look
}

/// A fault about a name that nothing binds, with what is near.
fn unbound(fault: Fault, module: &Module) -> Fault {
    let begin = "use of undefined variable `";
    let rest = fault.message.strip_prefix(begin).and_then(|rest| rest.split_once('`'));
    let Some((name, _)) = rest.filter(|_| fault.hint.is_none()) else { return fault };
    let rules: BTreeSet<_> =
        module.policy.iter().filter_map(|rule| refs::root(refs::defined(rule))).collect();
    let known = || rules.iter().map(String::as_str);
    let meant = certain(name, known()).map(str::to_owned);
    let hint = match nearest(name, known()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "define a rule of that name, or bind it in the body".to_owned(),
    };
    let fault = fault.hint(hint);
    match meant {
        Some(meant) => fault.meant(meant),
        None => fault,
    }
}

/// Looks at a file of `test_` rules: whether it can be read, and the texts that it names.
///
/// # Errors
/// [`Fault`] if it is no Rego.
pub(crate) fn texts(file: &str, text: &str) -> Result<Vec<String>, Fault> {
    let parsed = parse(file, text).map_err(|fault| fault.of_rule("syntax"))?;
    Ok(context::texts(&parsed.module))
}
