//! Orders of eviction: what they say survives, and nothing else passes for one.

use placet_core::{
    EVICTION_TYP, EvictionOrder, Expect, Id, VerifyError, sign_decision, sign_eviction,
};

use crate::sample::{self, ISSUER, NOW};

const EXPECT: Expect<'static> = Expect { issuer: ISSUER, audience: "provisioner", now: NOW + 1 };

fn order() -> EvictionOrder {
    let id = |text: &str| Id::new(text).expect("an id");
    EvictionOrder {
        aud: vec!["provisioner".to_owned()],
        epoch: 2,
        evict_by: NOW + 60,
        exp: NOW + 3_600,
        iat: NOW,
        iss: ISSUER.to_owned(),
        jti: id("dec-1"),
        placet: 1,
        preemptor: id("rsv-1"),
        reservation: id("rsv-2"),
        tenant_id: id("acme"),
    }
}

fn token(order: &EvictionOrder) -> String {
    sign_eviction(&sample::key(), order).expect("it fits")
}

#[test]
fn an_order_survives_signing_and_verifying() {
    let verified = sample::verifier().verify_eviction(&token(&order()), &EXPECT);
    assert_eq!(verified.expect("verifies"), order());
}

#[test]
fn what_is_no_order_for_us_is_refused() {
    let refusal = |order: EvictionOrder, expect: &Expect<'_>| {
        sample::verifier().verify_eviction(&token(&order), expect).expect_err("must be refused")
    };
    let other = EvictionOrder { iss: "https://other".to_owned(), ..order() };
    assert!(matches!(refusal(other, &EXPECT), VerifyError::Issuer { .. }));
    let other = Expect { audience: "scheduler", ..EXPECT };
    assert!(matches!(refusal(order(), &other), VerifyError::Audience { .. }));
    let late = Expect { now: NOW + 3_600, ..EXPECT };
    assert!(matches!(refusal(order(), &late), VerifyError::Expired { .. }));
    let early = Expect { now: NOW - 61, ..EXPECT };
    assert!(matches!(refusal(order(), &early), VerifyError::NotYetIssued { .. }));
    let newer = EvictionOrder { placet: 2, ..order() };
    assert!(matches!(refusal(newer, &EXPECT), VerifyError::Version { version: 2 }));

    let decision = sign_decision(&sample::key(), &sample::decision()).expect("signs");
    let refused = sample::verifier().verify_eviction(&decision, &EXPECT);
    assert!(
        matches!(refused, Err(VerifyError::Type { expected: EVICTION_TYP, .. })),
        "{refused:?}"
    );
    let refused = sample::verifier().verify(&token(&order()), &EXPECT);
    assert!(matches!(refused, Err(VerifyError::Type { .. })), "an order is no decision");
    let mut damaged = token(&order()).into_bytes();
    damaged[120] = if damaged[120] == b'A' { b'B' } else { b'A' };
    let damaged = String::from_utf8(damaged).expect("it is ASCII");
    assert!(sample::verifier().verify_eviction(&damaged, &EXPECT).is_err());
}
