//! The oracles over generated inputs, on the stable toolchain.

use placet_fuzz::{admit_request, damaged, request_json, request_wire, token};
use placet_proto::json;
use proptest::prelude::*;
use prost::Message as _;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn requests_on_the_wire(bytes in damaged(admit_request().prop_map(|r| r.encode_to_vec()))) {
        request_wire(&bytes);
    }

    #[test]
    fn requests_as_json(
        bytes in damaged(admit_request().prop_map(|r| json::to_json(&r).to_string().into_bytes())),
    ) {
        request_json(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn tokens(text in "(eyJ[A-Za-z0-9_-]{0,80}\\.){0,3}[A-Za-z0-9_-]{0,90}|.{0,60}") {
        token(&text);
    }
}
