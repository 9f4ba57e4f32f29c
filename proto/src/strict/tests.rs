use proptest::prelude::*;
use prost_reflect::{DynamicMessage, Value};

use super::*;
use crate::admission::v1::{AdmitRequest, AdmitResponse, Lease, StreamRequest};
use crate::samples::any_message;

/// What the contracts do not use yet, and what no request may do.
const OTHER: &str = r#"
    syntax = "proto3";
    package other;
    enum Sign { ZERO = 0; MINUS = -1; }
    message Node {
        Node next = 1;
        repeated uint32 packed = 2;
        int32 small = 3;
        bool flag = 4;
        fixed32 four = 5;
        double eight = 6;
        Sign sign = 7;
        map<string, bytes> entries = 8;
        optional sint64 zigzag = 9;
        repeated Sign signs = 10;
    }
    service Nodes { rpc Walk(Node) returns (Node); }
"#;

fn other() -> (Table, MessageDescriptor) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("other.proto"), OTHER).expect("it is writable");
    let files = protox::compile(["other.proto"], [directory.path()]).expect("it compiles");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("it is whole");
    let node = pool.get_message_by_name("other.Node").expect("it is in the file");
    (Table::new(&pool), node)
}

/// The code and the path of the error that some bytes get.
fn refusal(bytes: &[u8]) -> (&'static str, String) {
    let error = decode_strict::<AdmitRequest>(bytes).expect_err("the bytes break a rule");
    (error.code, error.field)
}

#[test]
fn each_broken_rule_is_named_with_the_field() {
    let table: &[(&[u8], &str, &str)] = &[
        (b"\x0a\x01a\x0a\x01b", "DUPLICATE_FIELD", "request_id"),
        (b"\x1a\x00\x1a\x00", "DUPLICATE_FIELD", "principal"),
        (b"\x52\x00\x5a\x00", "ONEOF_CONFLICT", "job"),
        (b"\x20\x63", "UNKNOWN_ENUM_VALUE", "priority_class"),
        (b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "UNKNOWN_ENUM_VALUE", "priority_class"),
        (b"\xfa\x01\x00", "UNKNOWN_FIELD", ""),
        (b"\x52\x02\x78\x01", "UNKNOWN_FIELD", "lease"),
        (b"\x52\x06\x10\x80\x80\x80\x80\x10", "OUT_OF_BOUNDS", "lease.gpu_count"),
        (b"\x52\x02\x58\x02", "OUT_OF_BOUNDS", "lease.may_preempt"),
        (b"\x0a\x01\xff", "INVALID_UTF8", "request_id"),
        (b"\x52\x03\x0a\x01\xff", "INVALID_UTF8", "lease.cluster_id"),
        (b"\x08\x01", "WRONG_TYPE", "request_id"),
        (b"\x22\x01\x01", "WRONG_TYPE", "priority_class"),
        (b"\x0b\x0c", "MALFORMED", "request_id"),
        (b"\x02\x00", "MALFORMED", ""),
        (b"\x0a\x05a", "MALFORMED", "request_id"),
        (b"\x0a", "MALFORMED", "request_id"),
        (b"\x8a", "MALFORMED", ""),
        (b"\x52\x03\x10\x81\x00", "MALFORMED", "lease.gpu_count"),
        (
            b"\x52\x0b\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            "MALFORMED",
            "lease.duration_seconds",
        ),
    ];
    for (bytes, code, field) in table {
        assert_eq!(refusal(bytes), (*code, (*field).to_owned()), "{bytes:02x?}");
    }
}

#[test]
fn requests_are_scanned_and_answers_are_not() {
    assert!(request_scan::<AdmitRequest>().is_some());
    assert!(request_scan::<StreamRequest>().is_some());
    assert!(request_scan::<AdmitResponse>().is_none());
    assert!(request_scan::<Lease>().is_none());
}

#[test]
fn every_form_of_the_wire_is_understood() {
    let (table, node) = other();
    let mut message = DynamicMessage::new(node.clone());
    let numbers = [1, 300, u32::MAX].map(Value::U32).to_vec();
    message.set_field_by_name("packed", Value::List(numbers));
    message.set_field_by_name("small", Value::I32(-1));
    message.set_field_by_name("flag", Value::Bool(true));
    message.set_field_by_name("four", Value::U32(4));
    message.set_field_by_name("eight", Value::F64(8.0));
    message.set_field_by_name("sign", Value::EnumNumber(-1));
    message.set_field_by_name("zigzag", Value::I64(i64::MIN));
    message.set_field_by_name("signs", Value::List([0, -1].map(Value::EnumNumber).to_vec()));
    let mut bytes = message.encode_to_vec();
    bytes.extend(b"\x42\x06\x0a\x01k\x12\x01v\x10\x07");
    assert_eq!(table.scan(0, &bytes, MAX_DEPTH), Ok(()), "map entries and unpacked lists too");
    assert!(DynamicMessage::decode(node, bytes.as_slice()).is_ok());

    let packed = table.scan(0, b"\x12\x05\x80\x80\x80\x80\x10", MAX_DEPTH).expect_err("2^32");
    assert_eq!((packed.code, packed.field.as_str()), ("OUT_OF_BOUNDS", "packed"));
    let small = table.scan(0, b"\x18\x80\x80\x80\x80\x08", MAX_DEPTH).expect_err("2^31");
    assert_eq!((small.code, small.field.as_str()), ("OUT_OF_BOUNDS", "small"));
    assert_eq!(table.scan(0, b"\x2d\x00\x00", MAX_DEPTH), Err(cut_off().inside("four")));
}

#[test]
fn nesting_is_bounded() {
    let (table, _) = other();
    let nested = |levels: usize| (0..levels).fold(Vec::new(), |inner: Vec<u8>, _| wrap(1, &inner));
    assert_eq!(table.scan(0, &nested(16), MAX_DEPTH), Ok(()));
    let error = table.scan(0, &nested(17), MAX_DEPTH).expect_err("one too many");
    assert_eq!(error.code, "MALFORMED");
    let bomb = table.scan(0, &nested(5_000), MAX_DEPTH).expect_err("far too many");
    assert_eq!(bomb.code, "MALFORMED");
}

/// A field of some number that holds some bytes.
fn wrap(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut all);
    prost::encoding::encode_varint(bytes.len().try_into().expect("a test's length"), &mut all);
    all.extend(bytes);
    all
}

/// Whether another decoder finds something unknown at any depth.
fn has_unknown(message: &DynamicMessage) -> bool {
    message.unknown_fields().next().is_some()
        || message.fields().any(|(_, value)| match value {
            Value::Message(inner) => has_unknown(inner),
            Value::List(list) => list.iter().filter_map(Value::as_message).any(has_unknown),
            _ => false,
        })
}

/// What the scan promises of bytes that it accepts.
fn check_accepted(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(message) = decode_strict::<StreamRequest>(bytes) {
        let described = POOL.get_message_by_name(&StreamRequest::full_name()).expect("known");
        let again = DynamicMessage::decode(described, bytes).expect("accepted bytes decode");
        prop_assert!(!has_unknown(&again));
        prop_assert_eq!(again.transcode_to::<StreamRequest>().expect("the same message"), message);
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_valid_message_passes(message in any_message::<StreamRequest>()) {
        prop_assert_eq!(decode_strict::<StreamRequest>(&message.encode_to_vec()), Ok(message));
    }

    #[test]
    fn an_unknown_field_is_refused_wherever_it_is(
        lease in any_message::<Lease>(),
        depth in 0_u8..3,
        number in 300_u32..(1 << 29),
        first in any::<bool>(),
    ) {
        let unknown = wrap(number, b"x");
        let spoil = |bytes: Vec<u8>, here: bool| match (here, first) {
            (false, _) => bytes,
            (true, true) => [unknown.clone(), bytes].concat(),
            (true, false) => [bytes, unknown.clone()].concat(),
        };
        let lease = spoil(lease.encode_to_vec(), depth == 2);
        let admit = spoil(wrap(10, &lease), depth == 1);
        let event = spoil(wrap(1, &admit), depth == 0);
        let error = decode_strict::<StreamRequest>(&event).expect_err("it has an unknown field");
        prop_assert_eq!(error.code, "UNKNOWN_FIELD");
        let path = ["", "admit", "admit.lease"];
        prop_assert_eq!(error.field, path[usize::from(depth)]);
    }

    #[test]
    fn random_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        check_accepted(&bytes)?;
    }

    #[test]
    fn spoilt_messages_are_safe(
        message in any_message::<StreamRequest>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = message.encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            check_accepted(&bytes)?;
            bytes.truncate(cut.index(bytes.len()));
            check_accepted(&bytes)?;
        }
    }
}
