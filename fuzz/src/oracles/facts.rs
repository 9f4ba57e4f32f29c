//! Facts from any bytes.

use placet_core::{AccountPath, AdmissionRequest, Id, MAX_AMOUNT, Subject};
use placet_policy::{Facts, Input, resolve};
use serde_json::Value;

use super::work::{accept, bounded};
use super::world;

/// Requests that are made of the names in the facts.
const MAX_REQUESTS: usize = 4;

/// Bytes as facts: refused with a reason, or the same facts whichever way they are written down,
/// with limits below 2^53, and every request that names only what they know resolved to an input
/// that can be read again.
///
/// # Panics
/// If the bytes show a bug.
pub fn facts(bytes: &[u8]) {
    let facts = match bounded("reading", || Facts::from_bytes("facts.yaml", bytes)) {
        Ok(facts) => facts,
        Err(error) => return world::check_refusal(&error),
    };
    accept();
    let value: Value = yaml_serde::from_slice(bytes).expect("facts are a YAML document");
    let json = value.to_string();
    let again = Facts::from_bytes("facts.json", json.as_bytes()).expect("the same facts as JSON");
    assert_eq!(again.digest(), facts.digest(), "as JSON they are other facts");
    assert_eq!(again.revision(), facts.revision());
    check_limits(&facts, &value);
    if let Err(reasons) = resolve(&facts, &world::request(), world::TIME, &[7; 32]) {
        assert!(!reasons.is_empty(), "a denial has reasons");
    }
    for request in requests(&value) {
        let (input, _) = resolve(&facts, &request, world::TIME, &[7; 32])
            .expect("the request names nothing that the facts do not know");
        let read: Input = serde_json::from_slice(&input.canonical()).expect("it can be read");
        assert_eq!(read, input);
    }
}

/// The accounts that the file names have the limits that it gives them, and others have none.
fn check_limits(facts: &Facts, value: &Value) {
    for quota in list(value, "quotas") {
        let segments = text(quota, "account").split('/');
        let segments = segments.map(|one| if one == "{month}" { "2026-11" } else { one });
        let path = segments.collect::<Vec<_>>().join("/");
        let account = AccountPath::new(path).expect("the facts were accepted with this account");
        let limit = facts.limit(&account).expect("an account of the facts has a limit");
        assert!(limit.limit <= MAX_AMOUNT, "{account}: {limit:?}");
    }
    for cluster in list(value, "clusters") {
        let path = format!("cluster/{}/fabric-gbps", text(cluster, "id"));
        let account = AccountPath::new(path).expect("a cluster's name makes an account");
        let limit = facts.limit(&account).expect("every cluster has this account");
        assert!(limit.limit <= MAX_AMOUNT, "{account}: {limit:?}");
    }
    let nobody = AccountPath::new("nobody/has/this").expect("a path");
    let named = list(value, "quotas").any(|quota| text(quota, "account") == nobody.as_str());
    assert_eq!(facts.limit(&nobody).is_some(), named);
}

/// One for each of the first tenants and clusters, with the first datasets and models.
fn requests(value: &Value) -> impl Iterator<Item = AdmissionRequest> {
    let pairs = list(value, "tenants").zip(list(value, "clusters").cycle());
    pairs.take(MAX_REQUESTS).filter_map(|(tenant, cluster)| {
        let mut request = world::request();
        let (Subject::Lease(workload) | Subject::Job(workload)) = &mut request.subject;
        workload.cluster_id = id(cluster, "id");
        workload.gpu_models = list(cluster, "gpus").take(8).map(|gpu| id(gpu, "model")).collect();
        let ids = |of| list(value, of).take(8).map(|one| id(one, "id")).collect();
        workload.dataset_ids = ids("datasets");
        workload.model_ids = ids("models");
        request.tenant_id = id(tenant, "id");
        let some = !request.subject.workload().gpu_models.is_empty();
        some.then_some(request)
    })
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + Clone {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).expect("the facts were accepted with a text here")
}

fn id(value: &Value, name: &str) -> Id {
    Id::new(text(value, name)).expect("the facts were accepted with an id here")
}
