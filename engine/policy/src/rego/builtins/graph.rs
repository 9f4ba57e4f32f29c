//! Paths through a graph, as many as there may be.

use regorus::Value;
use regorus::value::Object;

use super::super::weigh::{MAX_DEPTH, Refused, at_most, count, work};

/// Most steps of all paths together: a graph of twenty nodes can have a million paths.
const MAX_STEPS: u64 = 10_000;

/// `graph.reachable_paths`: every way from the first nodes to where it ends, or meets itself.
pub(super) fn reachable_paths(given: &[Value]) -> Result<Value, Refused> {
    let Some(Value::Object(graph)) = given.first() else {
        return Err(Refused::Wrong("the graph is not an object".to_owned()));
    };
    let mut paths = Paths { graph, path: Vec::new(), found: Vec::new(), steps: 0 };
    for node in nodes(given.get(1), "the first nodes are neither a list nor a set")? {
        paths.visit(node)?;
    }
    Ok(Value::from(paths.found.into_iter().collect::<std::collections::BTreeSet<_>>()))
}

fn nodes<'a>(value: Option<&'a Value>, wrong: &str) -> Result<Vec<&'a Value>, Refused> {
    match value {
        Some(Value::Array(items)) => Ok(items.iter().collect()),
        Some(Value::Set(items)) => Ok(items.iter().collect()),
        _ => Err(Refused::Wrong(wrong.to_owned())),
    }
}

struct Paths<'a> {
    graph: &'a Object,
    path: Vec<Value>,
    found: Vec<Value>,
    steps: u64,
}

impl Paths<'_> {
    fn keep(&mut self) -> Result<(), Refused> {
        if !self.path.is_empty() {
            self.pay(count(self.path.len()))?;
            self.found.push(Value::from(self.path.clone()));
        }
        Ok(())
    }

    fn pay(&mut self, steps: u64) -> Result<(), Refused> {
        self.steps = self.steps.saturating_add(steps);
        work(steps)?;
        at_most(self.steps, MAX_STEPS, "steps of all paths")
    }

    fn visit(&mut self, node: &Value) -> Result<(), Refused> {
        self.pay(count(self.path.len()).saturating_add(1))?;
        at_most(count(self.path.len()), count(MAX_DEPTH), "steps of a path")?;
        let Some(neighbours) = self.graph.get(node) else { return self.keep() };
        if self.path.contains(node) {
            return self.keep();
        }
        self.path.push(node.clone());
        let neighbours = if *neighbours == Value::Null {
            Vec::new()
        } else {
            nodes(Some(neighbours), "the neighbours of a node are neither a list nor a set")?
        };
        for neighbour in &neighbours {
            self.visit(neighbour)?;
        }
        if neighbours.is_empty() {
            self.keep()?;
        }
        self.path.pop();
        Ok(())
    }
}
