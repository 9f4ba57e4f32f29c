//! The names of all rules.

use serde::Serialize;

use super::Severity;

/// What diagnostics are known by. Names stay what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its name: lower case, words joined by hyphens.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it tells of, in one line.
    pub summary: &'static str,
}

const fn error(id: &'static str, summary: &'static str) -> Rule {
    Rule { id, severity: Severity::Error, summary }
}

const fn warning(id: &'static str, summary: &'static str) -> Rule {
    Rule { id, severity: Severity::Warning, summary }
}

/// All rules: first what a load or the bundle's own cases would refuse, then the lints; each by
/// name.
pub const RULES: &[Rule] = &[
    error("annotation", "a block `# METADATA` that cannot be read"),
    error("call", "a function that is not there, or that no policy may call"),
    error("case-file", "a file of cases that cannot be read, or names what is not there"),
    error("compile", "a policy that the interpreter refuses"),
    error("component", "a component that is no policy"),
    error("contract", "rules that are not those of the contract, or of another form"),
    error("deviation", "what the interpreter would answer otherwise than OPA"),
    error("duplicate-case", "two cases of one name in one file"),
    error("facts", "facts of cases that cannot be read"),
    error("file", "a file that no bundle may have"),
    error("import", "an import of what a policy does not see"),
    error("manifest", "a manifest that breaks a rule, or does not fit its files"),
    error("params", "params that break their schema, or contradict each other"),
    error("params-schema", "a schema of params that cannot be used"),
    error("syntax", "a text that is no Rego, or too deep"),
    error("type", "a comparison of which the answer is always the same"),
    error("unknown-code", "a case that expects a code that no rule gives"),
    error("unknown-path", "a field that the input or the params never have"),
    warning("allow", "a `placet:allow` that allows nothing, or says no reason"),
    warning("code-without-case", "a code that no case and no `test_` rule names"),
    warning("float-money", "fractions in what is claimed or compared: amounts are whole numbers"),
    warning("missing-metadata", "a policy or a rule that does not say what it is for"),
    warning("shadowed-name", "a variable that hides a rule, an import, a built-in or a document"),
    warning("unbounded-iteration", "a loop that does more than its author sees"),
    warning("undefined-deny", "a rule that is silent where something is absent"),
    warning("unknown-control", "a control that its framework does not have"),
    warning("unlisted-file", "a policy that the manifest does not name: nobody asks it"),
    warning("unreachable-rule", "a rule that never holds, or that nothing leads to"),
    warning("unused-import", "an import that nothing reads"),
];

pub(super) fn severity(id: &str) -> Severity {
    let rule = RULES.iter().find(|rule| rule.id == id);
    rule.map_or(Severity::Error, |rule| rule.severity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_stand_there_once() {
        for severity in [Severity::Error, Severity::Warning] {
            let ids: Vec<_> = RULES.iter().filter(|it| it.severity == severity).collect();
            assert!(ids.windows(2).all(|two| two[0].id < two[1].id), "{ids:?}");
        }
        assert!(RULES.iter().all(|rule| rule.summary.len() <= 80 && !rule.summary.ends_with('.')));
    }
}
