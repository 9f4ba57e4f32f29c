//! Params that are refused after loading, at their place in the manifest.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::check::Checked;
use super::place::{Shown, Step, locate};
use super::{Bundle, Entry, MANIFEST, params};
use crate::answer::WrongParam;
use crate::document;
use crate::error::Fault;

impl Bundle {
    /// Checks params against their schema: those of an entry of the manifest, or others in their
    /// place.
    ///
    /// # Errors
    /// [`Fault`] with the place in the manifest.
    pub(crate) fn check_params(&self, entry: &Entry) -> Result<(), Fault> {
        let text = document::text(self.file(MANIFEST), MANIFEST)?;
        let checked = Checked { text, files: &self.files };
        params::check_entry(self.position(entry), entry, &checked, &mut BTreeMap::new())
    }

    fn position(&self, entry: &Entry) -> usize {
        let named = |other: &Entry| other.name == entry.name;
        self.manifest().policies.iter().position(named).unwrap_or(usize::MAX)
    }

    /// Refuses a policy's params at the first place that it calls wrong.
    ///
    /// # Errors
    /// [`Fault`] with the place in the manifest, if there is anything wrong or nothing could be
    /// said.
    pub(crate) fn refuse_params(
        &self,
        entry: &Entry,
        wrong: Result<Vec<WrongParam>, String>,
    ) -> Result<(), Fault> {
        let (policy, position) = (&entry.name, self.position(entry));
        let text = document::text(self.file(MANIFEST), MANIFEST)?;
        let whole = || vec![Step::from("policies"), position.into(), "params".into()];
        let at = |path: &[Step], message: String| {
            let fault = Fault::new(MANIFEST, message);
            match locate(text, path) {
                Some((line, column)) => fault.at(line, Some(column)),
                None => fault,
            }
        };
        let wrong = wrong.map_err(|error| {
            let message = format!("`params_wrong` of policy `{policy}` {error}");
            let hint = "mend the params, or the function in the policy";
            at(&whole(), message).hint(hint)
        })?;
        let mut faults: Vec<_> = wrong
            .iter()
            .map(|wrong| {
                let mut path = whole();
                path.extend(steps(&wrong.path, &entry.params));
                let shown = Shown(path.get(2..).unwrap_or_default());
                at(&path, format!("`{shown}` of policy `{policy}` {}", wrong.message))
            })
            .collect();
        faults.sort_by_key(|fault| (fault.line, fault.column));
        let more = faults.len().saturating_sub(1);
        let Some(first) = faults.into_iter().next() else { return Ok(()) };
        Err(first.hint(match more {
            0 => "mend one of the params that contradict each other".to_owned(),
            _ => {
                format!("mend one of the params that contradict each other; {more} more are wrong")
            }
        }))
    }
}

/// The steps of a path as people write it, such as `terms[0].grace_seconds`. A name may have dots
/// in it: the longest that is there counts.
fn steps(path: &str, params: &Map<String, Value>) -> Vec<Step> {
    let root = Value::Object(params.clone());
    let (mut here, mut rest, mut steps) = (Some(&root), path, Vec::new());
    while !rest.is_empty() {
        if let Some((index, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let Ok(index) = index.parse::<usize>() else { break };
            here = here.and_then(|value| value.get(index));
            (rest, steps) = (after.trim_start_matches('.'), with(steps, index.into()));
            continue;
        }
        let name = name(rest, here);
        here = here.and_then(|value| value.get(name));
        let after = rest.strip_prefix(name).unwrap_or_default();
        (rest, steps) = (after.trim_start_matches('.'), with(steps, name.into()));
        if name.is_empty() {
            break;
        }
    }
    steps
}

fn with(mut steps: Vec<Step>, step: Step) -> Vec<Step> {
    steps.push(step);
    steps
}

/// The name that a path begins with.
fn name<'a>(path: &'a str, here: Option<&Value>) -> &'a str {
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
    let known = here.and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name);
    let known = known.filter(|name| path.strip_prefix(name.as_str()).is_some_and(ends));
    match known.map(String::len).max() {
        Some(length) => path.get(..length).unwrap_or(path),
        None => path.split(['.', '[']).next().unwrap_or(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_names_with_dots_too() {
        let params = json!({"a": [{"b.c": {"d": 1}, "b": 2}], "e": {"x[0]": 1}});
        let shown = |path: &str| {
            let steps = steps(path, params.as_object().expect("an object"));
            (steps.len(), Shown(&steps).to_string())
        };
        assert_eq!(shown("a[0].b.c.d"), (4, "a[0].b.c.d".to_owned()));
        assert_eq!(shown("a[0].b"), (3, "a[0].b".to_owned()));
        assert_eq!(shown("e.x[0]"), (2, "e.x[0]".to_owned()));
        assert_eq!(shown("nothing.there[7]"), (3, "nothing.there[7]".to_owned()));
        assert_eq!(shown("a[x]").0, 1);
        assert_eq!(shown(".").0, 1);
        assert_eq!(shown("").0, 0);
    }
}
