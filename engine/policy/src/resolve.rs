//! From the ids of a request to one self-contained input document, with the active facts.

use placet_core::{AdmissionRequest, Code, Digest, Id, Reason, Subject};

use crate::document::nearest;
use crate::facts::Facts;
use crate::input::{self, Input};

/// A personal field that the input holds only a commitment to. The value and its salt are kept
/// apart, and can be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// Path of the field in the request, such as `principal.subject`.
    pub path: String,
    /// What the value was hashed with.
    pub salt: [u8; 32],
    /// The value.
    pub value: String,
}

/// Path of the one personal field of a request.
const SUBJECT: &str = "principal.subject";

/// Builds the input of a request decided at `time`, in seconds since 1970-01-01 UTC, with the first
/// acceptable GPU model. Work starts when it is asked to, else at `time`. `salt` is random and new
/// for each request: it hides the personal fields (SHA-256 of salt, path, a zero byte and value).
///
/// # Errors
/// The reasons of a denial: every name that the facts do not know, and a start that cannot be. They
/// tell the nearest name only of clusters and GPU models, which every tenant may know.
pub fn resolve(
    facts: &Facts,
    request: &AdmissionRequest,
    time: u64,
    salt: &[u8; 32],
) -> Result<(Input, Vec<Commitment>), Vec<Reason>> {
    let mut reasons = Vec::new();
    let asked = request.subject.workload();
    let kind = request.subject.kind().as_str();
    let start = request.start_at(time).unwrap_or_else(|reason| {
        reasons.push(*reason);
        time
    });
    let tenant = facts.tenant(&request.tenant_id);
    if tenant.is_none() {
        let hint = "use an id of a tenant that is on board";
        let what = format!("tenant `{}`", request.tenant_id);
        reasons.push(reason("UNKNOWN_TENANT", &what, "tenant_id".into(), Some(hint.into())));
    }
    let cluster = facts.cluster(&asked.cluster_id);
    reasons.extend(unknown_places(facts, cluster, asked, kind));
    let datasets = look_up(
        &asked.dataset_ids,
        |id| facts.dataset(id).cloned(),
        |i, id| {
            let field = format!("{kind}.dataset_ids[{i}]");
            reasons.push(reason("UNKNOWN_DATASET", &format!("dataset `{id}`"), field, None));
        },
    );
    let models = look_up(
        &asked.model_ids,
        |id| facts.model(id).cloned(),
        |i, id| {
            let field = format!("{kind}.model_ids[{i}]");
            reasons.push(reason("UNKNOWN_MODEL", &format!("model `{id}`"), field, None));
        },
    );
    let (Some(tenant), Some(cluster)) = (tenant, cluster) else {
        return Err(sorted(reasons));
    };
    let gpu_models: Vec<Id> =
        asked.gpu_models.iter().filter(|model| has(cluster, model)).cloned().collect();
    let Some(gpu_model) = gpu_models.first().cloned().filter(|_| reasons.is_empty()) else {
        return Err(sorted(reasons));
    };
    let (principal, commitments) = commit(request, salt);
    let workload = workload(request, start, gpu_model, gpu_models);
    let (lease, job) = match &request.subject {
        Subject::Lease(_) => (Some(workload), None),
        Subject::Job(_) => (None, Some(workload)),
    };
    let (day, month) = calendar(start);
    let input = Input {
        cluster: cluster.clone(),
        day,
        datasets,
        job,
        lease,
        models,
        month,
        principal,
        priority_class: request.priority_class,
        tenant: tenant.clone(),
        time,
    };
    Ok((input, commitments))
}

fn has(cluster: &input::Cluster, model: &Id) -> bool {
    cluster.gpus.iter().any(|pool| pool.model == *model)
}

/// Reasons for an unknown cluster, or for a known one that has none of the acceptable GPU models.
/// Those that it lacks while it has others are passed over: they are wishes, not conditions.
fn unknown_places(
    facts: &Facts,
    cluster: Option<&input::Cluster>,
    asked: &placet_core::Workload,
    kind: &str,
) -> Vec<Reason> {
    let Some(cluster) = cluster else {
        let what = format!("cluster `{}`", asked.cluster_id);
        let hint = did_you_mean(&asked.cluster_id, facts.cluster_ids());
        return vec![reason("UNKNOWN_CLUSTER", &what, format!("{kind}.cluster_id"), hint)];
    };
    if asked.gpu_models.iter().any(|model| has(cluster, model)) {
        return Vec::new();
    }
    let missing = asked.gpu_models.iter().enumerate().map(|(i, model)| {
        let what = format!("GPU model `{model}` in cluster `{}`", cluster.id);
        let field = format!("{kind}.gpu_models[{i}]");
        let known = cluster.gpus.iter().map(|pool| pool.model.as_str());
        reason("UNKNOWN_GPU_MODEL", &what, field, did_you_mean(model, known))
    });
    missing.collect()
}

fn look_up<T>(
    ids: &[Id],
    find: impl Fn(&Id) -> Option<T>,
    mut missing: impl FnMut(usize, &Id),
) -> Vec<T> {
    let mut found = Vec::with_capacity(ids.len());
    for (i, id) in ids.iter().enumerate() {
        match find(id) {
            Some(one) => found.push(one),
            None => missing(i, id),
        }
    }
    found
}

fn sorted(mut reasons: Vec<Reason>) -> Vec<Reason> {
    reasons.sort();
    reasons
}

fn reason(code: &'static str, what: &str, field: String, hint: Option<String>) -> Reason {
    Reason {
        counterfactual: None,
        code: Code::known(code),
        field: Some(field),
        hint,
        message: format!("there is no {what}"),
        policy: Id::new("placet").expect("the engine's name follows the rule of names"),
        retry: false,
    }
}

fn did_you_mean<'a>(wrong: &Id, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(wrong.as_str(), known).map(|near| format!("did you mean `{near}`?"))
}

fn workload(
    request: &AdmissionRequest,
    start: u64,
    gpu_model: Id,
    gpu_models: Vec<Id>,
) -> input::Workload {
    let asked = request.subject.workload();
    let extends = request.extends.as_ref().map(|extends| input::Extends {
        end: extends.end,
        reservation_id: extends.reservation_id.clone(),
        start: extends.start,
    });
    input::Workload {
        checkpoint_jurisdictions: asked.checkpoint_jurisdictions.clone(),
        duration_seconds: asked.duration_seconds,
        fabric_gbps: asked.fabric_gbps,
        gpu_count: asked.gpu_count,
        gpu_milli: asked.gpu_milli,
        gpu_model,
        gpu_models,
        gpu_seconds: asked.gpu_seconds(),
        isolation_level: asked.isolation_level,
        may_preempt: asked.may_preempt,
        milli_gpus: asked.milli_gpus(),
        start,
        extends,
        lease_id: asked.lease_id.clone(),
        egress_bytes: asked.egress_bytes,
        egress_jurisdictions: asked.egress_jurisdictions.clone(),
        model_use: asked.model_use,
        storage_io_bytes: asked.storage_io_bytes,
    }
}

fn commit(
    request: &AdmissionRequest,
    salt: &[u8; 32],
) -> (Option<input::Principal>, Vec<Commitment>) {
    let Some(principal) = &request.principal else { return (None, Vec::new()) };
    let parts = [salt.as_slice(), SUBJECT.as_bytes(), &[0], principal.subject.as_bytes()];
    let committed = input::Principal {
        groups: principal.groups.clone(),
        issuer: principal.issuer.clone(),
        subject_commitment: Digest::of_parts(&parts).hex(),
    };
    let path = SUBJECT.to_owned();
    (Some(committed), vec![Commitment { path, salt: *salt, value: principal.subject.clone() }])
}

/// Calendar day and month of a time, as YYYY-MM-DD and YYYY-MM in UTC: the proleptic Gregorian
/// calendar (ISO 8601), counted in eras of 400 years from March on, so that the leap day is the
/// last of its year.
fn calendar(time: u64) -> (String, String) {
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let day = time / 86_400 + EPOCH;
    let (era, day_of_era) = (day / DAYS_PER_ERA, day % DAYS_PER_ERA);
    // Every 4th year has a leap day, but not every 100th, but every 400th.
    let leap_days = day_of_era / 1_460 + day_of_era / 146_096 - day_of_era / 36_524;
    let year_of_era = (day_of_era - leap_days) / 365;
    let start = year_of_era * 365 + year_of_era / 4 - year_of_era / 100;
    // Five months from March on have 153 days together, and again from August on.
    let from_march = day_of_era - start;
    let month_from_march = (5 * from_march + 2) / 153;
    let day = from_march - (153 * month_from_march + 2) / 5 + 1;
    let (month, next_year) =
        if month_from_march < 10 { (month_from_march + 3, 0) } else { (month_from_march - 9, 1) };
    let month = format!("{:04}-{month:02}", era * 400 + year_of_era + next_year);
    (format!("{month}-{day:02}"), month)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::facts::tests::facts;
    use placet_core::{
        IsolationLevel, MAX_LEAD_SECONDS as LEAD, ModelUse, Principal, PriorityClass, Workload,
    };
    use proptest::prelude::*;

    fn id(text: &str) -> Id {
        Id::new(text).expect("an id")
    }

    /// A request that the small facts know everything of.
    pub(crate) fn request() -> AdmissionRequest {
        AdmissionRequest {
            extends: None,
            gang: None,
            principal: Some(Principal {
                groups: vec![id("ml")],
                issuer: "https://idp.example".into(),
                subject: "ada".into(),
            }),
            priority_class: PriorityClass::ExternalCommercial,
            request_id: id("r-1"),
            subject: Subject::Lease(Workload {
                checkpoint_jurisdictions: vec![id("DE")],
                cluster_id: id("c-1"),
                dataset_ids: vec![id("logs")],
                duration_seconds: 3_601,
                egress_bytes: 7,
                egress_jurisdictions: vec![id("SE")],
                fabric_gbps: 10,
                gpu_count: 3,
                gpu_milli: 500,
                gpu_models: vec![id("H100"), id("A100")],
                isolation_level: IsolationLevel::Dedicated,
                lease_id: None,
                may_preempt: false,
                model_ids: vec![id("llm")],
                model_use: Some(ModelUse::Inference),
                start: None,
                storage_io_bytes: 9,
            }),
            tenant_id: id("acme"),
            waivers: Vec::new(),
        }
    }

    #[test]
    fn names_become_facts_and_amounts_are_worked_out() {
        let (input, commitments) =
            resolve(&facts(), &request(), 1_795_000_000, &[7; 32]).expect("all is known");
        let lease = input.lease.as_ref().expect("a lease was asked for");
        assert_eq!((lease.milli_gpus, lease.gpu_seconds), (1_500, 5_402));
        assert_eq!(lease.gpu_model, id("H100"));
        assert_eq!((input.cluster.id.as_str(), input.month.as_str()), ("c-1", "2026-11"));
        assert_eq!(input.models[0].owner, id("lab"));
        let principal = input.principal.as_ref().expect("a principal was named");
        let mut bytes = vec![7; 32];
        bytes.extend_from_slice(b"principal.subject\0ada");
        assert_eq!(principal.subject_commitment, Digest::of(&bytes).hex());
        assert_eq!(commitments[0].value, "ada");
        let text = String::from_utf8(input.canonical()).expect("JSON is UTF-8");
        assert!(!text.contains("ada"), "the subject itself is not in the input: {text}");
    }

    #[test]
    fn every_unknown_name_is_a_reason() {
        let mut request = request();
        request.tenant_id = id("acne");
        let Subject::Lease(lease) = &mut request.subject else { panic!("it is a lease") };
        lease.gpu_models = vec![id("H10")];
        lease.dataset_ids.push(id("log"));
        lease.model_ids = vec![id("lm")];
        let reasons = resolve(&facts(), &request, 0, &[0; 32]).expect_err("names are unknown");
        let told: Vec<_> = reasons
            .iter()
            .map(|r| (r.code.as_str(), r.field.as_deref().unwrap_or(""), r.hint.is_some()))
            .collect();
        assert_eq!(
            told,
            [
                ("UNKNOWN_DATASET", "lease.dataset_ids[1]", false),
                ("UNKNOWN_GPU_MODEL", "lease.gpu_models[0]", true),
                ("UNKNOWN_MODEL", "lease.model_ids[0]", false),
                ("UNKNOWN_TENANT", "tenant_id", true),
            ]
        );
        assert!(reasons.iter().all(|r| !r.hint.as_deref().unwrap_or("").contains("acme")));
        assert!(reasons.iter().all(|reason| !reason.retry));
    }

    #[test]
    fn an_unknown_cluster_is_told_with_the_nearest_one() {
        let mut request = request();
        let Subject::Lease(lease) = &mut request.subject else { panic!("it is a lease") };
        lease.cluster_id = id("c-2");
        let reasons = resolve(&facts(), &request, 0, &[0; 32]).expect_err("it is unknown");
        assert_eq!(reasons[0].field.as_deref(), Some("lease.cluster_id"));
        assert_eq!(reasons[0].hint.as_deref(), Some("did you mean `c-1`?"));
    }

    fn starting(start: Option<u64>, time: u64) -> Result<Input, Vec<Reason>> {
        let mut request = request();
        let Subject::Lease(lease) = &mut request.subject else { panic!("it is a lease") };
        lease.start = start;
        resolve(&facts(), &request, time, &[0; 32]).map(|(input, _)| input)
    }

    proptest! {
        #[test]
        fn the_start_is_what_was_asked(time in 0..253_402_300_799_u64, lead in 0..=LEAD) {
            let asked = starting(Some(time + lead), time).expect("all is known");
            prop_assert_eq!(asked.lease.expect("a lease was asked for").start, time + lead);
            let (day, month) = calendar(time + lead);
            prop_assert_eq!((asked.time, asked.day, asked.month), (time, day, month));
            let now = starting(None, time).expect("all is known");
            prop_assert_eq!(now.lease.expect("a lease was asked for").start, time);
            prop_assert_eq!((now.day, now.month), calendar(time));
        }

        #[test]
        fn a_start_that_cannot_be_is_a_denial(time in 1..253_402_300_799_u64, by in 1..LEAD) {
            let codes = |start| {
                let reasons = starting(Some(start), time).expect_err("it cannot be");
                reasons.iter().map(|one| one.code.as_str().to_owned()).collect::<Vec<_>>()
            };
            prop_assert_eq!(codes(time.saturating_sub(by)), ["START_IN_THE_PAST"]);
            prop_assert_eq!(codes(time + LEAD + by), ["START_TOO_FAR_AHEAD"]);
        }
    }

    #[test]
    fn a_start_that_cannot_be_is_told_beside_unknown_names() {
        let mut request = request();
        request.tenant_id = id("acne");
        let Subject::Lease(lease) = &mut request.subject else { panic!("it is a lease") };
        lease.start = Some(999);
        let reasons = resolve(&facts(), &request, 1_000, &[0; 32]).expect_err("it cannot be");
        let codes: Vec<_> = reasons.iter().map(|one| one.code.as_str()).collect();
        assert_eq!(codes, ["START_IN_THE_PAST", "UNKNOWN_TENANT"]);
        let past = &reasons[0];
        assert_eq!((past.field.as_deref(), past.retry), (Some("lease.start"), false));
        assert_eq!(
            past.message,
            "the start 1970-01-01T00:16:39Z is before 1970-01-01T00:16:40Z, when it was decided"
        );
        assert_eq!(
            past.hint.as_deref(),
            Some("ask for a later start, or without one to begin at once")
        );
        let far = &starting(Some(LEAD + 1_001), 1_000).expect_err("too far ahead")[0];
        assert_eq!((far.field.as_deref(), far.retry), (Some("lease.start"), true));
        assert_eq!(
            far.hint.as_deref(),
            Some("ask for an earlier start, or for this one from 1970-01-01T00:16:41Z on")
        );
    }

    #[test]
    fn months_follow_the_calendar() {
        for (time, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),     // 2000-02-28T23:59:59Z
            (951_868_799, "2000-02-29"),     // 2000-02-29T23:59:59Z: a 400th year has a leap day
            (951_868_800, "2000-03-01"),     // 2000-03-01T00:00:00Z
            (1_709_251_199, "2024-02-29"),   // 2024-02-29T23:59:59Z
            (1_709_251_200, "2024-03-01"),   // 2024-03-01T00:00:00Z
            (1_798_761_599, "2026-12-31"),   // 2026-12-31T23:59:59Z
            (1_798_761_600, "2027-01-01"),   // 2027-01-01T00:00:00Z
            (4_107_542_400, "2100-03-01"),   // 2100-03-01T00:00:00Z: a 100th year has no leap day
            (4_107_542_399, "2100-02-28"),   // 2100-02-28T23:59:59Z
            (253_402_300_799, "9999-12-31"), // 9999-12-31T23:59:59Z
        ] {
            let (day, month) = calendar(time);
            assert_eq!(day, expected, "{time}");
            assert!(day.starts_with(&month) && month.len() == 7, "{time}: {month}");
        }
    }

    #[test]
    fn days_and_months_follow_one_another() {
        // Every day of 800 years, against counting by hand.
        let days = |year: u32, month: u32| match month {
            2 if year.is_multiple_of(400) => 29,
            2 if year.is_multiple_of(100) => 28,
            2 if year.is_multiple_of(4) => 29,
            4 | 6 | 9 | 11 => 30,
            2 => 28,
            _ => 31,
        };
        let mut day = 0_u64;
        for year in 1970..2770 {
            for number in 1..=12 {
                for date in 1..=days(year, number) {
                    let month = format!("{year:04}-{number:02}");
                    assert_eq!(calendar(day * 86_400), (format!("{month}-{date:02}"), month));
                    day += 1;
                }
            }
        }
    }
}
