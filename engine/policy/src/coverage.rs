//! Which rules and lines of the Rego policies of a bundle its cases and `test_` rules reach.
//!
//! The count is taken in a pass of its own, over policies with marks written into their text: what
//! is tested, and what it costs, is what is served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use placet_core::Id;
use serde::Serialize;

use crate::bundle::{Bundle, Entry, Language};

/// What was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// By path.
    pub files: Vec<FileCoverage>,
    /// Policies without Rego, which nothing is known of, by name.
    pub unmeasured: Vec<Id>,
}

/// What was reached of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileCoverage {
    /// Path in the bundle.
    pub file: String,
    /// Names of the policies that it is the source, or the twin, of.
    pub policies: Vec<Id>,
    /// Definitions, in the order of the text.
    pub rules: Vec<RuleCoverage>,
    /// Lines from 1 on which something was evaluated.
    pub lines_covered: BTreeSet<u32>,
    /// Lines from 1 on which something could be evaluated, and never was.
    pub lines_missed: BTreeSet<u32>,
}

/// One definition of a rule: a head with its body, a branch `else`, or a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleCoverage {
    /// Name of the rule.
    pub rule: String,
    /// Line from 1 on which the definition begins.
    pub line: u32,
    /// What it is.
    pub part: Part,
    /// Whether it ever gave a value; of a default, whether it ever stood in for all others.
    pub covered: bool,
}

/// What a definition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A head with its body, if it has one.
    Body,
    /// A branch `else`.
    Else,
    /// What holds where nothing else does.
    Default,
}

impl FileCoverage {
    /// How many definitions gave a value, and of how many.
    #[must_use]
    pub fn rules_covered(&self) -> (usize, usize) {
        (self.rules.iter().filter(|rule| rule.covered).count(), self.rules.len())
    }

    /// Whether at least so many percent, 0 to 100, of the definitions gave a value.
    #[must_use]
    pub fn reaches(&self, percent: u8) -> bool {
        let (covered, all) = self.rules_covered();
        covered.saturating_mul(100) >= all.saturating_mul(usize::from(percent))
    }
}

/// Keeps what is reached while cases and tests run; a clone keeps the same.
#[derive(Debug, Clone)]
pub struct Recorder {
    files: BTreeMap<String, (Vec<Id>, Arc<Record>)>,
    unmeasured: Vec<Id>,
}

impl Recorder {
    /// For the policies of a bundle; nothing is reached yet.
    #[must_use]
    pub fn new(bundle: &Bundle) -> Self {
        let mut recorder = Self { files: BTreeMap::new(), unmeasured: Vec::new() };
        for entry in &bundle.manifest().policies {
            let source = measured(entry);
            if Language::of(source) == Some(Language::Rego) {
                recorder.files.entry(source.clone()).or_default().0.push(entry.name.clone());
            } else {
                recorder.unmeasured.push(entry.name.clone());
            }
        }
        recorder.unmeasured.sort();
        recorder
    }

    /// What was reached up to now.
    #[must_use]
    pub fn report(&self) -> Coverage {
        let files = self.files.iter().map(|(file, (policies, record))| {
            let mut policies = policies.clone();
            policies.sort();
            record.report(file, policies)
        });
        Coverage { files: files.collect(), unmeasured: self.unmeasured.clone() }
    }

    pub(crate) fn of(&self, file: &str) -> Option<&Arc<Record>> {
        self.files.get(file).map(|(_, record)| record)
    }
}

/// The source of a policy that is measured: Rego, if it or its twin is.
pub(crate) fn measured(entry: &Entry) -> &String {
    let is_rego = |source: &&String| Language::of(source) == Some(Language::Rego);
    [Some(&entry.source), entry.twin.as_ref()]
        .into_iter()
        .flatten()
        .find(is_rego)
        .unwrap_or(&entry.source)
}

/// A definition, as the text has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) rule: String,
    pub(crate) line: u32,
    pub(crate) part: Part,
}

/// What was reached of a file, by all interpreters that evaluate it.
#[derive(Debug, Default)]
pub(crate) struct Record(Mutex<Reached>);

#[derive(Debug, Default)]
struct Reached {
    definitions: Vec<Definition>,
    /// By position in `definitions`, in the evaluation under way.
    now: BTreeSet<usize>,
    /// The same in all evaluations.
    ever: BTreeSet<usize>,
    covered: BTreeSet<u32>,
    lines: BTreeSet<u32>,
}

impl Record {
    fn with<T>(&self, act: impl FnOnce(&mut Reached) -> T) -> T {
        // What a thread left behind that panicked is still what was reached.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets what there is to be reached; the same for every interpreter of the file.
    pub(crate) fn define(&self, definitions: Vec<Definition>) {
        self.with(|reached| reached.definitions = definitions);
    }

    /// A definition gave a value.
    pub(crate) fn mark(&self, position: usize) {
        self.with(|reached| reached.now.insert(position));
    }

    /// An evaluation ended, in which something was evaluated on the lines `covered`, and nothing on
    /// the lines `missed`.
    pub(crate) fn end(&self, covered: &BTreeSet<u32>, missed: &BTreeSet<u32>) {
        self.with(|reached| {
            let Reached { definitions, now, ever, covered: all, lines } = reached;
            let gave = |rule: &str| {
                let of_now = now.iter().filter_map(|at| definitions.get(*at));
                of_now.into_iter().any(|other| other.rule == rule)
            };
            let stood_in = definitions.iter().enumerate().filter(|(_, definition)| {
                definition.part == Part::Default
                    && covered.contains(&definition.line)
                    && !gave(&definition.rule)
            });
            ever.extend(stood_in.map(|(position, _)| position));
            ever.append(now);
            all.extend(covered);
            lines.extend(covered.union(missed));
        });
    }

    fn report(&self, file: &str, policies: Vec<Id>) -> FileCoverage {
        self.with(|reached| {
            let rules = reached.definitions.iter().enumerate().map(|(position, definition)| {
                let Definition { rule, line, part } = definition.clone();
                RuleCoverage { rule, line, part, covered: reached.ever.contains(&position) }
            });
            FileCoverage {
                file: file.to_owned(),
                policies,
                rules: rules.collect(),
                lines_covered: reached.covered.clone(),
                lines_missed: reached.lines.difference(&reached.covered).copied().collect(),
            }
        })
    }
}
