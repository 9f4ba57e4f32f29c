//! Signed orders of eviction: one for each reservation that has to make room for another.

use serde::{Deserialize, Serialize};

use crate::jws;
use crate::token::{CLOCK_LEEWAY_SECONDS, Expect, SignError, Verifier, VerifyError};
use crate::{DECISION_VERSION, Id, SigningKey, canonical_json};

/// `typ` of the header of an order (RFC 8725 §3.11: explicit typing).
pub const EVICTION_TYP: &str = "placet-eviction+jwt";
/// Longest order in bytes: ours have about 800.
pub const MAX_EVICTION_BYTES: usize = 8_192;

/// The claims of an order of eviction: registered JWT claims (RFC 7519 §4.1) and Placet's own.
///
/// An order is an announcement until the preemptor confirms its reservation. Then it takes effect:
/// the victim has the new epoch, and ends at `evict_by`. If the preemptor does not confirm in time,
/// or gives up, nothing becomes of it; the log tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvictionOrder {
    /// Who may rely on it.
    pub aud: Vec<String>,
    /// Fencing epoch of the victim from when the order takes effect.
    pub epoch: u64,
    /// First second at which the victim must not run any more, in seconds since 1970-01-01 UTC.
    pub evict_by: u64,
    /// When the victim would have ended by itself: the order says nothing about later.
    pub exp: u64,
    /// When it was ordered.
    pub iat: u64,
    /// Who ordered it.
    pub iss: String,
    /// Id of the decision that asks for it.
    pub jti: Id,
    /// Version of these claims: 1.
    pub placet: u8,
    /// The reservation that the room is for.
    pub preemptor: Id,
    /// The reservation that has to make room.
    pub reservation: Id,
    /// Whose it is.
    pub tenant_id: Id,
}

/// Signs an order: what is logged and sent.
///
/// # Errors
/// [`SignError`]: no signature, or too long, which the bounds of ids exclude.
pub fn sign_eviction(key: &SigningKey, order: &EvictionOrder) -> Result<String, SignError> {
    let claims = canonical_json(order).map_err(SignError::Canonical)?;
    let header = jws::encoded_header(EVICTION_TYP, key.id());
    let bytes = jws::encoded_bytes(&header, &claims);
    if bytes > MAX_EVICTION_BYTES {
        return Err(SignError::TooLong { bytes });
    }
    jws::sign(key, &header, &claims).map_err(SignError::Key)
}

impl Verifier {
    /// Checks an order of eviction before acting on it. The log or the victim's epoch tells whether
    /// it has taken effect.
    ///
    /// # Errors
    /// [`VerifyError`] names the first thing that is wrong.
    pub fn verify_eviction(
        &self,
        token: &str,
        expect: &Expect<'_>,
    ) -> Result<EvictionOrder, VerifyError> {
        let order = self.ordered(token, expect.issuer, true)?;
        if !order.aud.iter().any(|audience| audience == expect.audience) {
            let expected = expect.audience.to_owned();
            return Err(VerifyError::Audience { audience: order.aud, expected });
        }
        if expect.now >= order.exp {
            return Err(VerifyError::Expired { exp: order.exp, now: expect.now });
        }
        if order.iat > expect.now.saturating_add(CLOCK_LEEWAY_SECONDS) {
            return Err(VerifyError::NotYetIssued { iat: order.iat, now: expect.now });
        }
        Ok(order)
    }

    /// Checks that an order of eviction was issued, however long ago and for whomever: for auditors
    /// and logs, not for PEPs.
    ///
    /// # Errors
    /// [`VerifyError`] names the first thing that is wrong.
    pub fn verify_eviction_issued(
        &self,
        token: &str,
        issuer: &str,
    ) -> Result<EvictionOrder, VerifyError> {
        self.ordered(token, issuer, false)
    }

    fn ordered(
        &self,
        token: &str,
        issuer: &str,
        is_relied_on: bool,
    ) -> Result<EvictionOrder, VerifyError> {
        let verified = jws::verified(self.keys(), token, EVICTION_TYP, MAX_EVICTION_BYTES);
        let (claims, kid) = verified.map_err(|refusal| VerifyError::of(refusal, EVICTION_TYP))?;
        let order: EvictionOrder = serde_json::from_slice(&claims).map_err(VerifyError::Claims)?;
        if order.placet != DECISION_VERSION {
            return Err(VerifyError::Version { version: u64::from(order.placet) });
        }
        if !canonical_json(&order).is_ok_and(|canonical| canonical == claims) {
            return Err(VerifyError::NotCanonical);
        }
        self.check_key(kid, order.iat, is_relied_on)?;
        if order.iss != issuer {
            let expected = issuer.to_owned();
            return Err(VerifyError::Issuer { issuer: order.iss, expected });
        }
        Ok(order)
    }
}
