//! Requests.

use placet_core::{MAX_DURATION_SECONDS, MAX_GPU_COUNT, MILLI_PER_GPU};
use placet_proto::admission::v1 as pb;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;

use super::damage::damaged;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[A-Za-z0-9][A-Za-z0-9._:@-]{0,20}",
        1 => ".{0,12}",
        1 => "[a-z]{127,130}",
    ]
}

fn names(most: usize) -> impl Strategy<Value = Vec<String>> {
    vec(name(), 0..=most)
}

fn gpu_count() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => 1_u32..=64,
        1 => select(vec![0, 1, MAX_GPU_COUNT, MAX_GPU_COUNT + 1, u32::MAX]),
    ]
}

fn duration() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 1_u64..=86_400,
        1 => select(vec![0, 1, MAX_DURATION_SECONDS, MAX_DURATION_SECONDS + 1, u64::MAX]),
    ]
}

fn gpu_milli() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => Just(0),
        2 => 1_u32..=MILLI_PER_GPU,
        1 => select(vec![MILLI_PER_GPU + 1, u32::MAX]),
    ]
}

fn lease() -> impl Strategy<Value = pb::Lease> {
    let first = (name(), gpu_count(), duration(), -1_i32..=7, vec(name(), 0..=9), gpu_milli());
    let second = (any::<u32>(), names(3), names(3), names(3), any::<bool>());
    (first, second).prop_map(|(first, second)| {
        let (cluster_id, gpu_count, duration_seconds, isolation_level, gpu_models, gpu_milli) =
            first;
        let (fabric_gbps, dataset_ids, model_ids, checkpoint_jurisdictions, may_preempt) = second;
        pb::Lease {
            cluster_id,
            gpu_count,
            duration_seconds,
            isolation_level,
            gpu_models,
            gpu_milli,
            fabric_gbps,
            dataset_ids,
            model_ids,
            checkpoint_jurisdictions,
            may_preempt,
        }
    })
}

fn principal() -> impl Strategy<Value = pb::Principal> {
    let text = prop_oneof![4 => "[!-~]{1,40}", 1 => ".{0,300}"];
    (text.clone(), text, names(3)).prop_map(|(issuer, subject, groups)| pb::Principal {
        issuer,
        subject,
        groups,
    })
}

/// A request for a lease, in bounds more often than not.
pub fn admit_request() -> impl Strategy<Value = pb::AdmitRequest> {
    let class = prop_oneof![8 => 1_i32..=2, 1 => -1_i32..=4];
    let parts = (name(), name(), proptest::option::of(principal()), class, lease());
    parts.prop_map(|(request_id, tenant_id, principal, priority_class, lease)| pb::AdmitRequest {
        request_id,
        tenant_id,
        principal,
        priority_class,
        subject: Some(pb::admit_request::Subject::Lease(lease)),
    })
}

/// Requests in their wire form, with wounds in some.
pub fn request_wire() -> impl Strategy<Value = Vec<u8>> {
    damaged(admit_request().prop_map(|request| request.encode_to_vec()))
}
