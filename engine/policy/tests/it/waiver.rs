//! Who may waive what: the file of approvers, each refusal by its code, and what a bundle lets be
//! lifted.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use placet_core::{
    AdmissionRequest, Code, Digest, Effect, FreezeClaims, FreezeScope, Id, Lift, Principal,
    SigningKey, SubjectKind, ThawClaims, Waived, WaiverClaims, WaiverScope, sign_approval,
};
use placet_policy::{
    Approvers, Bundle, Evaluation, Evaluator, Input, LoadError, PolicySet, WasmRuntime,
};
use serde_json::{Value, json};

use crate::request::convert;

const ISSUER: &str = "https://placet.example";
/// 2026-11-01T00:00:00Z.
const NOW: u64 = 1_793_491_200;

fn id(text: &str) -> Id {
    Id::new(text).expect("an id")
}

fn ids(texts: &[&str]) -> BTreeSet<Id> {
    texts.iter().map(|text| id(text)).collect()
}

fn jwk(key: &SigningKey) -> Value {
    let set = placet_core::KeySet::new([key.verifying_key().clone()]).expect("a set").to_json();
    let set: Value = serde_json::from_str(&set).expect("JSON");
    set["keys"][0].clone()
}

/// Two approvers: one who may waive little and freeze one site, and one who may do neither much.
struct World {
    duty: SigningKey,
    other: SigningKey,
    approvers: Approvers,
}

fn file(duty: &Value, other: &Value) -> Value {
    json!({
        "schema": "placet.approvers/v1",
        "approvers": [
            {
                "name": "duty",
                "keys": [duty],
                "callers": ["ops-console"],
                "principals": [{
                    "issuer": "https://idp.example",
                    "subject_digest": Digest::of(b"ada").to_string(),
                }],
                "waive": {
                    "lifts": {"compliance": ["ATTESTATION_EXPIRED"], "quota": ["TOO_LONG"]},
                    "tenants": ["acme", "other"],
                    "clusters": ["c-1", "c-2"],
                    "max_seconds": 3_600,
                    "max_uses": 5,
                    "max_gpu_count": 64,
                    "max_duration_seconds": 7_200,
                },
                "freeze": {"clusters": ["c-1"]},
            },
            {"name": "other", "keys": [other], "freeze": {}},
        ],
        "withdrawn": ["w-withdrawn"],
    })
}

fn world() -> World {
    let key = || SigningKey::generate().expect("randomness");
    let (duty, other) = (key(), key());
    let text = file(&jwk(&duty), &jwk(&other)).to_string();
    let approvers = Approvers::from_bytes("approvers.yaml", text.as_bytes(), ISSUER);
    World { duty, other, approvers: approvers.expect("they load") }
}

fn waiver() -> WaiverClaims {
    let code = Code::new("ATTESTATION_EXPIRED").expect("a code");
    WaiverClaims {
        approved_by: id("duty"),
        aud: ISSUER.to_owned(),
        exp: NOW + 3_600,
        iat: NOW,
        jti: id("w-1"),
        lifts: [Lift { code, policy: id("compliance") }].into(),
        max_duration_seconds: Some(7_200),
        max_gpu_count: Some(16),
        nbf: NOW,
        placet: 1,
        reason: "CHG-1887".to_owned(),
        requested_by: id("research-ops"),
        scope: WaiverScope {
            clusters: BTreeSet::new(),
            kinds: [SubjectKind::Lease].into(),
            tenants: ids(&["acme"]),
        },
        uses: 5,
    }
}

fn request(waivers: Vec<String>) -> AdmissionRequest {
    let request = convert(&json!({
        "request_id": "r-1", "tenant_id": "acme", "priority_class": "EXTERNAL_COMMERCIAL",
        "lease": {
            "cluster_id": "c-1", "gpu_count": 16, "duration_seconds": 7_200,
            "isolation_level": "DEDICATED", "gpu_models": ["H100"],
        },
    }));
    AdmissionRequest { waivers, ..request.expect("a request") }
}

impl World {
    fn sign(&self, claims: &WaiverClaims) -> String {
        sign_approval(&self.duty, claims).expect("signs")
    }

    /// The code with which a request is refused that brings this.
    fn refusal(&self, token: &str, time: u64) -> String {
        self.refused(&request(vec![token.to_owned()]), "scheduler", time)
    }

    fn refused(&self, request: &AdmissionRequest, caller: &str, time: u64) -> String {
        match self.approvers.check_waivers(request, &id(caller), time) {
            Ok(waivers) => panic!("it is good: {waivers:?}"),
            Err(reasons) => {
                for reason in &reasons {
                    let code = reason.code.as_str();
                    assert_eq!(reason.policy, id("placet"));
                    assert!(reason.hint.is_some() && reason.field.is_some(), "{reason:?}");
                    assert_eq!(reason.retry, code == "WAIVER_NOT_YET_VALID", "{reason:?}");
                }
                let codes = reasons.iter().map(|reason| reason.code.as_str());
                codes.collect::<Vec<_>>().join(" ")
            }
        }
    }
}

#[test]
fn a_good_waiver_lifts_what_it_names() {
    let world = world();
    let token = world.sign(&waiver());
    let asked = request(vec![token.clone()]);
    for time in [NOW, NOW + 3_599] {
        let found = world.approvers.check_waivers(&asked, &id("scheduler"), time);
        let [one] = &found.expect("it is good")[..] else { panic!("one") };
        assert_eq!((&one.claims, one.digest), (&waiver(), Digest::of(token.as_bytes())));
    }
    let none = world.approvers.check_waivers(&request(vec![]), &id("scheduler"), NOW);
    assert!(none.expect("nothing is wrong").is_empty());
}

/// What is wrong with a waiver, and the code that says so.
fn spoilt() -> Vec<(WaiverClaims, &'static str)> {
    let lift = |policy, code| Lift { code: Code::new(code).expect("a code"), policy: id(policy) };
    let mut lifts = waiver().lifts;
    lifts.insert(lift("residency", "RESIDENCY_TENANT"));
    let scope = |tenants: &[&str], clusters: &[&str]| WaiverScope {
        clusters: ids(clusters),
        tenants: ids(tenants),
        ..waiver().scope
    };
    let jobs = WaiverScope { kinds: [SubjectKind::Job].into(), ..waiver().scope };
    vec![
        (WaiverClaims { aud: "https://elsewhere.example".into(), ..waiver() }, "FOREIGN"),
        (WaiverClaims { approved_by: id("other"), ..waiver() }, "UNKNOWN_KEY"),
        (WaiverClaims { jti: id("w-withdrawn"), ..waiver() }, "REVOKED"),
        (WaiverClaims { lifts, ..waiver() }, "OVER_BROAD"),
        (WaiverClaims { lifts: [lift("quota", "OTHER")].into(), ..waiver() }, "OVER_BROAD"),
        (WaiverClaims { scope: scope(&["acme", "third"], &[]), ..waiver() }, "OVER_BROAD"),
        (WaiverClaims { scope: scope(&["acme"], &["c-1", "c-3"]), ..waiver() }, "OVER_BROAD"),
        (WaiverClaims { exp: NOW + 3_601, ..waiver() }, "OVER_BROAD"),
        (WaiverClaims { uses: 6, ..waiver() }, "OVER_BROAD"),
        (WaiverClaims { max_gpu_count: Some(65), ..waiver() }, "OVER_BROAD"),
        (WaiverClaims { max_gpu_count: None, ..waiver() }, "OVER_BROAD"),
        (WaiverClaims { max_duration_seconds: None, ..waiver() }, "OVER_BROAD"),
        (WaiverClaims { requested_by: id("duty"), ..waiver() }, "SELF_APPROVED"),
        (WaiverClaims { requested_by: id("ops-console"), ..waiver() }, "SELF_APPROVED"),
        (WaiverClaims { nbf: NOW + 1, ..waiver() }, "NOT_YET_VALID"),
        (WaiverClaims { scope: scope(&["other"], &[]), ..waiver() }, "NOT_FOR_THIS"),
        (WaiverClaims { scope: scope(&["acme"], &["c-2"]), ..waiver() }, "NOT_FOR_THIS"),
        (WaiverClaims { scope: jobs, ..waiver() }, "NOT_FOR_THIS"),
        (WaiverClaims { max_gpu_count: Some(15), ..waiver() }, "TOO_SMALL"),
        (WaiverClaims { max_duration_seconds: Some(7_199), ..waiver() }, "TOO_SMALL"),
    ]
}

#[test]
fn each_refusal_has_its_code() {
    let world = world();
    for (claims, code) in spoilt() {
        let found = world.refusal(&world.sign(&claims), NOW);
        assert_eq!(found, format!("WAIVER_{code}"), "{claims:?}");
    }
    let good = world.sign(&waiver());
    assert_eq!(world.refusal(&good, NOW + 3_600), "WAIVER_EXPIRED");
    assert_eq!(world.refusal(&good, NOW - 1), "WAIVER_NOT_YET_VALID");
    let stranger = SigningKey::generate().expect("randomness");
    let foreign = sign_approval(&stranger, &waiver()).expect("signs");
    assert_eq!(world.refusal(&foreign, NOW), "WAIVER_UNKNOWN_KEY");
    // One who may freeze may not waive.
    let other = WaiverClaims { approved_by: id("other"), ..waiver() };
    let other = sign_approval(&world.other, &other).expect("signs");
    assert_eq!(world.refusal(&other, NOW), "WAIVER_OVER_BROAD");
    for text in ["a.b.c", &*good.replace('.', ".."), good.rsplit_once('.').expect("three").0] {
        assert_eq!(world.refusal(text, NOW), "WAIVER_UNREADABLE", "{text}");
    }
    let freeze = sign_approval(&world.duty, &freeze()).expect("signs");
    assert_eq!(world.refusal(&freeze, NOW), "WAIVER_UNREADABLE", "it is no waiver");
    let none = Approvers::none(ISSUER);
    let asked = request(vec![good]);
    let reasons = none.check_waivers(&asked, &id("scheduler"), NOW).expect_err("nobody approves");
    assert_eq!(reasons[0].code.as_str(), "WAIVER_UNKNOWN_KEY");
}

#[test]
fn who_approves_does_not_use_it() {
    let world = world();
    let token = world.sign(&waiver());
    let mut asked = request(vec![token]);
    for caller in ["ops-console", "duty"] {
        assert_eq!(world.refused(&asked, caller, NOW), "WAIVER_SELF_APPROVED");
    }
    let who = |issuer: &str, subject: &str| {
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        Some(Principal { groups: Vec::new(), issuer, subject })
    };
    asked.principal = who("https://idp.example", "ada");
    assert_eq!(world.refused(&asked, "scheduler", NOW), "WAIVER_SELF_APPROVED");
    for (issuer, subject) in [("https://idp.example", "bob"), ("https://other.example", "ada")] {
        asked.principal = who(issuer, subject);
        assert!(world.approvers.check_waivers(&asked, &id("scheduler"), NOW).is_ok());
    }
}

#[test]
fn every_waiver_of_a_request_has_to_be_good() {
    let world = world();
    let good = world.sign(&waiver());
    let late = world.sign(&WaiverClaims { exp: NOW + 1, jti: id("w-2"), ..waiver() });
    let both = request(vec![late, good.clone()]);
    assert!(world.approvers.check_waivers(&both, &id("scheduler"), NOW).is_ok());
    assert_eq!(world.refused(&both, "scheduler", NOW + 1), "WAIVER_EXPIRED");
    let twin = world.sign(&WaiverClaims { uses: 4, ..waiver() });
    let twins = request(vec![good, twin]);
    assert_eq!(world.refused(&twins, "scheduler", NOW), "WAIVER_CHANGED", "one name, two waivers");
}

#[test]
fn keys_are_revoked_and_replaced() {
    let world = world();
    let token = world.sign(&waiver());
    let with = |member: &str, value: Value| {
        let mut jwk = jwk(&world.duty);
        jwk[member] = value;
        let text = file(&jwk, &self::jwk(&world.other)).to_string();
        let approvers = Approvers::from_bytes("a", text.as_bytes(), ISSUER).expect("they load");
        let asked = request(vec![token.clone()]);
        let checked = approvers.check_waivers(&asked, &id("scheduler"), NOW);
        checked.map_err(|reasons| reasons[0].code.to_string())
    };
    let lapsed = Err("WAIVER_REVOKED".to_owned());
    assert_eq!(with("revoked", json!({"revoked_at": NOW + 9})), lapsed, "a thief writes any iat");
    assert_eq!(with("exp", json!(NOW)), lapsed);
    assert_eq!(with("nbf", json!(NOW + 1)), lapsed);
    assert!(with("exp", json!(NOW + 1)).is_ok(), "it was signed before the key was retired");
}

fn freeze() -> FreezeClaims {
    FreezeClaims {
        aud: ISSUER.to_owned(),
        by: id("duty"),
        iat: NOW,
        jti: id("f-1"),
        placet: 1,
        reason: "INC-7".to_owned(),
        scope: FreezeScope { clusters: ids(&["c-1"]), ..FreezeScope::default() },
    }
}

#[test]
fn freezes_and_thaws_stay_within_the_grant() {
    let world = world();
    let check = |key: &SigningKey, claims: &FreezeClaims| {
        let token = sign_approval(key, claims).expect("signs");
        world.approvers.check_freeze(&token).map_err(|refusal| refusal.code)
    };
    assert_eq!(check(&world.duty, &freeze()), Ok(freeze()));
    let scope = |tenants: &[&str], clusters: &[&str]| FreezeScope {
        clusters: ids(clusters),
        tenants: ids(tenants),
        ..FreezeScope::default()
    };
    let narrower = FreezeClaims { scope: scope(&["acme"], &["c-1"]), ..freeze() };
    assert!(check(&world.duty, &narrower).is_ok());
    let everything = FreezeScope { everything: true, ..FreezeScope::default() };
    for scope in [scope(&["acme"], &[]), scope(&[], &["c-1", "c-2"]), everything.clone()] {
        let claims = FreezeClaims { scope, ..freeze() };
        assert_eq!(check(&world.duty, &claims), Err("FREEZE_OVER_BROAD"));
    }
    let all = FreezeClaims { by: id("other"), scope: everything, ..freeze() };
    assert!(check(&world.other, &all).is_ok());
    let elsewhere = FreezeClaims { aud: "x".into(), ..freeze() };
    assert_eq!(check(&world.duty, &elsewhere), Err("FREEZE_FOREIGN"));
    assert_eq!(check(&world.other, &freeze()), Err("FREEZE_UNKNOWN_KEY"), "in another's name");
    let stranger = SigningKey::generate().expect("randomness");
    assert_eq!(check(&stranger, &freeze()), Err("FREEZE_UNKNOWN_KEY"));
    let FreezeClaims { aud, by, iat, jti, placet, reason, .. } = freeze();
    let thaw = ThawClaims { aud, by, iat, jti, placet, reason };
    let token = sign_approval(&world.duty, &thaw).expect("signs");
    let (claims, grant) = world.approvers.check_thaw(&token).expect("it is good");
    assert_eq!(claims, thaw);
    assert!(grant.covers(&freeze().scope) && !grant.covers(&scope(&[], &["c-2"])));
    let refusal = world.approvers.check_freeze(&token).expect_err("a thaw is no freeze");
    assert_eq!(refusal.code, "FREEZE_UNREADABLE");
}

/// Spoils a file of approvers.
type Spoil<'a> = &'a dyn Fn(&mut Value);

#[test]
fn a_wrong_file_is_refused_with_place_and_remedy() {
    let world = world();
    let (duty, other) = (jwk(&world.duty), jwk(&world.other));
    let spoilt = |spoil: &dyn Fn(&mut Value)| {
        let mut document = file(&duty, &other);
        spoil(&mut document);
        let text = serde_json::to_string_pretty(&document).expect("JSON");
        match Approvers::from_bytes("approvers.yaml", text.as_bytes(), ISSUER) {
            Err(LoadError::Invalid(fault)) => {
                assert!(fault.line.is_some() && fault.hint.is_some(), "{fault}");
                fault.to_string()
            }
            other => panic!("not refused as invalid: {other:?}"),
        }
    };
    let cases: [(Spoil<'_>, &str); 14] = [
        (&|it| it["schema"] = json!("placet.approvers/v2"), "placet.approvers/v1"),
        (&|it| it["approver"] = json!([]), "unknown field `approver`"),
        (&|it| it["approvers"][0]["name"] = json!("placet"), "the engine itself"),
        (&|it| it["approvers"][1]["name"] = json!("duty"), "for the second time"),
        (&|it| it["approvers"][0]["keys"] = json!([]), "1 to 4 keys"),
        (&|it| it["approvers"][0]["keys"][0]["x"] = json!("AA"), "is no key"),
        (&|it| it["approvers"][0]["keys"][0]["d"] = json!("AA"), "private key"),
        (&|it| it["approvers"][0]["keys"][0]["kty"] = json!("RSA"), "is no key"),
        (&|it| it["approvers"][1]["keys"] = json!([duty]), "stands there before"),
        (&|it| it["approvers"][1]["freeze"] = json!(null), "may do nothing"),
        (&|it| it["approvers"][0]["waive"]["lifts"] = json!({}), "`approvers[0].waive.lifts` is"),
        (
            &|it| it["approvers"][0]["waive"]["lifts"] = json!({"placet": ["FROZEN"]}),
            "`approvers[0].waive.lifts.placet` is the engine",
        ),
        (&|it| it["approvers"][0]["waive"]["max_seconds"] = json!(7_776_001), "is out of range"),
        (&|it| it["approvers"][0]["waive"]["max_uses"] = json!(0), "is out of range"),
    ];
    for (spoil, expected) in cases {
        let message = spoilt(spoil);
        assert!(message.contains(expected), "wanted `{expected}`: {message}");
        assert!(message.starts_with("approvers.yaml:"), "{message}");
    }
    let schema = Approvers::json_schema();
    let good = file(&duty, &other);
    jsonschema::validate(schema.as_value(), &good).expect("the file keeps to the schema");
}

const DENIES: &str = "package placet.d\n\
    deny contains {\"code\": \"LATE\", \"message\": \"late\"}\n\
    deny contains {\"code\": \"PARAMS_CONTRADICTORY\", \"message\": \"m\"} if data.params.broken\n\
    claims contains {\"account\": \"a/b\", \"amount\": 5}\n";

fn evaluate(entry: &str, lifts: &[(&str, &str)]) -> Evaluation {
    let directory = tempfile::tempdir().expect("a directory");
    let manifest = format!(
        "schema: placet.bundle/v1\nrevision: \"1\"\n\
         policies: [{{name: d, source: d.rego, {entry}}}]\n"
    );
    fs::write(directory.path().join("bundle.yaml"), manifest).expect("written");
    fs::write(directory.path().join("d.rego"), DENIES).expect("written");
    let bundle = Bundle::load(directory.path()).expect("it loads");
    let runtime = WasmRuntime::new().expect("the engine starts");
    let set = PolicySet::compile(&bundle, &runtime).expect("it compiles");
    let input: Input = serde_json::from_str(include_str!("sample.json")).expect("an input");
    let lifts = lifts.iter().map(|(policy, code)| Waived {
        code: Code::new(*code).expect("a code"),
        policy: id(policy),
        waiver: id("w-1"),
    });
    let lifts: Vec<_> = lifts.collect();
    let mut evaluator = Evaluator::new(Arc::new(set));
    let evaluation = evaluator.evaluate_waived(&input, lifts).expect("no backstop");
    // What was logged is enough to evaluate it again.
    let again = evaluator.evaluate_waived(&input, evaluation.lifts.clone()).expect("no backstop");
    assert_eq!(again, evaluation);
    evaluation
}

#[test]
fn a_bundle_says_what_can_be_lifted() {
    let fine = "params: {broken: false}";
    let late = [("d", "LATE")];
    let effect = |entry: &str, lifts: &[(&str, &str)]| {
        let evaluation = evaluate(entry, lifts);
        let candidate = &evaluation.candidates[0];
        let claims = candidate.outcome.claims.len();
        assert_eq!(claims > 0, candidate.outcome.effect == Effect::Permit, "{candidate:?}");
        assert_eq!(candidate.verdicts[0].reasons.len(), 1 + usize::from(entry.contains("true")));
        (candidate.outcome.effect, candidate.outcome.waived.len())
    };
    let (permit, deny) = ((Effect::Permit, 1), (Effect::Deny, 0));
    assert_eq!(effect(&format!("level: overridable, {fine}"), &late), permit);
    assert_eq!(effect(&format!("level: overridable, waivable: [LATE], {fine}"), &late), permit);
    assert_eq!(effect(&format!("level: overridable, waivable: [OTHER], {fine}"), &late), deny);
    assert_eq!(effect(&format!("level: overridable, waivable: [], {fine}"), &late), deny);
    assert_eq!(effect(fine, &late), deny, "it is mandatory");
    assert_eq!(effect(&format!("level: overridable, {fine}"), &[("e", "LATE")]), deny);
    assert_eq!(effect(&format!("level: overridable, {fine}"), &[]), deny);
    // Params that make no sense are never lifted, whatever the manifest says or does not say.
    let all = [("d", "LATE"), ("d", "PARAMS_CONTRADICTORY")];
    assert_eq!(effect("level: overridable, params: {broken: true}", &all), deny);
}

#[test]
fn a_manifest_cannot_let_be_lifted_what_never_is() {
    for (entry, expected) in [
        ("waivable: [LATE]", "which is not overridable"),
        ("level: advisory, waivable: [LATE]", "which is not overridable"),
        ("level: overridable, waivable: [PARAMS_MISSING]", "cannot be lifted"),
        ("level: overridable, waivable: [LATE, LATE]", "stands there twice"),
        ("level: overridable, waivable: [late]", "not allowed"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let manifest = format!(
            "schema: placet.bundle/v1\nrevision: \"1\"\n\
             policies: [{{name: d, source: d.rego, {entry}}}]\n"
        );
        fs::write(directory.path().join("bundle.yaml"), manifest).expect("written");
        fs::write(directory.path().join("d.rego"), DENIES).expect("written");
        let error = Bundle::load(directory.path()).expect_err(entry).to_string();
        assert!(error.contains(expected) && error.starts_with("bundle.yaml:3:"), "{error}");
    }
}
