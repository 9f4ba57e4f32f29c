//! Requests.

use placet_core::{
    MAX_AMOUNT, MAX_DURATION_SECONDS, MAX_FABRIC_GBPS, MAX_GPU_COUNT, MAX_LEAD_SECONDS,
    MILLI_PER_GPU,
};
use placet_proto::admission::v1 as pb;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;

use super::damage::damaged;
use crate::oracles::TIME;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        60 => "[A-Za-z0-9][A-Za-z0-9._:@-]{0,20}",
        1 => ".{0,12}",
        1 => "[a-z]{127,130}",
    ]
}

fn names(most: usize) -> impl Strategy<Value = Vec<String>> {
    vec(name(), 0..=most)
}

fn gpu_count() -> impl Strategy<Value = u32> {
    prop_oneof![
        20 => 1_u32..=64,
        1 => select(vec![0, 1, MAX_GPU_COUNT, MAX_GPU_COUNT + 1, u32::MAX]),
    ]
}

fn duration() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => 1_u64..=86_400,
        1 => select(vec![0, 1, MAX_DURATION_SECONDS, MAX_DURATION_SECONDS + 1, u64::MAX]),
    ]
}

/// None, or one around the little world's time.
fn start() -> impl Strategy<Value = u64> {
    let last = TIME + MAX_LEAD_SECONDS;
    prop_oneof![
        16 => Just(0),
        4 => TIME..=last,
        1 => select(vec![1, TIME - 1, last + 1, 253_402_300_799, 253_402_300_800, u64::MAX]),
    ]
}

fn gpu_milli() -> impl Strategy<Value = u32> {
    prop_oneof![
        16 => Just(0),
        4 => 1_u32..=MILLI_PER_GPU,
        1 => select(vec![MILLI_PER_GPU + 1, u32::MAX]),
    ]
}

fn isolation_level() -> impl Strategy<Value = i32> {
    prop_oneof![20 => 1_i32..=5, 1 => -1_i32..=7]
}

fn gpu_models() -> impl Strategy<Value = Vec<String>> {
    let model = || prop_oneof![4 => "[A-Z][0-9]{2,4}", 1 => name()];
    prop_oneof![20 => vec(model(), 1..=3), 1 => vec(model(), 0..=9)]
}

fn fabric_gbps() -> impl Strategy<Value = u32> {
    let edges = vec![MAX_FABRIC_GBPS, MAX_FABRIC_GBPS + 1, u32::MAX];
    prop_oneof![20 => 0_u32..=100_000, 1 => select(edges)]
}

/// Bytes, mostly none.
fn amount() -> impl Strategy<Value = u64> {
    let edges = vec![MAX_AMOUNT, MAX_AMOUNT + 1, u64::MAX];
    prop_oneof![20 => Just(0), 10 => 0..=1_u64 << 50, 1 => select(edges)]
}

fn lease() -> impl Strategy<Value = pb::Lease> {
    let first = (name(), gpu_count(), duration(), isolation_level(), gpu_models(), gpu_milli());
    let second = (fabric_gbps(), names(3), names(3), names(3), any::<bool>(), start());
    let third = (-1_i32..=5, names(3), amount(), amount());
    (first, second, third).prop_map(|(first, second, third)| {
        let (cluster_id, gpu_count, duration_seconds, isolation_level, gpu_models, gpu_milli) =
            first;
        let (fabric_gbps, dataset_ids, model_ids, checkpoint_jurisdictions, may_preempt, start) =
            second;
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
            start,
            model_use: third.0,
            egress_jurisdictions: third.1,
            egress_bytes: third.2,
            storage_io_bytes: third.3,
        }
    })
}

fn principal() -> impl Strategy<Value = pb::Principal> {
    let text = prop_oneof![30 => "[!-~]{1,40}", 1 => ".{0,300}"];
    (text.clone(), text, names(3)).prop_map(|(issuer, subject, groups)| pb::Principal {
        issuer,
        subject,
        groups,
    })
}

/// A request for a lease or a job, in bounds more often than not.
pub fn admit_request() -> impl Strategy<Value = pb::AdmitRequest> {
    let class = prop_oneof![20 => 1_i32..=2, 1 => -1_i32..=4];
    let subject = prop_oneof![
        2 => lease().prop_map(pb::admit_request::Subject::Lease),
        1 => (lease(), proptest::option::of(name())).prop_map(|(lease, lease_id)| {
            pb::admit_request::Subject::Job(job_of(lease, lease_id.unwrap_or_default()))
        }),
    ];
    let parts = (name(), name(), proptest::option::of(principal()), class, subject);
    let waivers = prop_oneof![8 => Just(Vec::new()), 1 => vec(waiver(), 0..=5)];
    let more = (proptest::option::weighted(0.1, extends()), waivers);
    (parts, more).prop_map(|(parts, (extends, waivers))| {
        let (request_id, tenant_id, principal, priority_class, subject) = parts;
        let subject = Some(subject);
        pb::AdmitRequest {
            request_id,
            tenant_id,
            principal,
            priority_class,
            subject,
            extends,
            waivers,
        }
    })
}

/// What looks like a waiver, mostly.
fn waiver() -> impl Strategy<Value = String> {
    prop_oneof![
        20 => "[A-Za-z0-9_-]{1,40}\\.[A-Za-z0-9_-]{1,40}\\.[A-Za-z0-9_-]{1,40}",
        1 => ".{0,60}",
        1 => Just("x".repeat(4_097)),
    ]
}

fn extends() -> impl Strategy<Value = pb::Extends> {
    let parts = (name(), 0_u64..=3, start(), start());
    parts.prop_map(|(reservation_id, epoch, start, end)| pb::Extends {
        reservation_id,
        epoch,
        start,
        end,
    })
}

/// The same fields, of a job.
fn job_of(lease: pb::Lease, lease_id: String) -> pb::Job {
    pb::Job {
        cluster_id: lease.cluster_id,
        gpu_count: lease.gpu_count,
        duration_seconds: lease.duration_seconds,
        isolation_level: lease.isolation_level,
        gpu_models: lease.gpu_models,
        gpu_milli: lease.gpu_milli,
        fabric_gbps: lease.fabric_gbps,
        dataset_ids: lease.dataset_ids,
        model_ids: lease.model_ids,
        checkpoint_jurisdictions: lease.checkpoint_jurisdictions,
        may_preempt: lease.may_preempt,
        start: lease.start,
        model_use: lease.model_use,
        egress_jurisdictions: lease.egress_jurisdictions,
        egress_bytes: lease.egress_bytes,
        storage_io_bytes: lease.storage_io_bytes,
        lease_id,
    }
}

/// Requests in their wire form, with wounds in some.
pub fn request_wire() -> impl Strategy<Value = Vec<u8>> {
    damaged(admit_request().prop_map(|request| request.encode_to_vec()))
}
