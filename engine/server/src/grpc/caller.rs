//! Who is asking: the name under which request ids are unique and reservations are held.

use placet_core::Id;
use placet_proto::FieldError;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Request, Status};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::error::AdmitError;

/// The caller of a connection without TLS, which the server accepts from its own machine only.
const LOOPBACK: &str = "loopback";
/// Scheme of SPIFFE ids, whose slashes become colons: `spiffe://acme.example/broker` is
/// `spiffe:acme.example:broker`.
const SPIFFE: &str = "spiffe://";

/// The authenticated caller of a request.
///
/// Without TLS it is `loopback`. With TLS it is the first URI of the client certificate's subject
/// alternative names, or else their first DNS name, written as an [`Id`].
///
/// # Errors
/// `UNAUTHENTICATED`, with the remedy.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Id, Status> {
    let refused = |reason: &str| Status::unauthenticated(format!("the caller {reason}"));
    if let Some(certificates) = request.peer_certs() {
        let first = certificates.first().ok_or_else(|| refused("shows no certificate"))?;
        return certified(first).map_err(|reason| refused(&reason));
    }
    let tls = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().is_some();
    let here = request.remote_addr().is_some_and(|it| it.ip().to_canonical().is_loopback());
    if tls || !here {
        return Err(refused(
            "shows no certificate\nhint: connect with TLS and a client certificate",
        ));
    }
    Ok(Id::new(LOOPBACK).expect("a name in our own source follows the rule of ids"))
}

/// The authenticated caller of a request that only operators may make.
///
/// # Errors
/// `UNAUTHENTICATED` or `PERMISSION_DENIED`, with the remedy.
pub(super) fn operator<T>(request: &Request<T>, operators: &[Id]) -> Result<Id, Status> {
    let caller = caller(request)?;
    if operators.contains(&caller) {
        return Ok(caller);
    }
    let error = AdmitError::PermissionDenied(FieldError::new(
        "NOT_AN_OPERATOR",
        format!("comes from `{caller}`, which is no operator of this server"),
        "start the server with `--operator` and that name",
    ));
    error.log();
    Err(error.to_status())
}

/// The name in a certificate (DER) that the TLS layer has verified.
fn certified(der: &[u8]) -> Result<Id, String> {
    let unreadable =
        |error: &dyn std::fmt::Display| format!("has a certificate that cannot be read: {error}");
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(&error))?;
    let names = certificate.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let names = names.map(|it| it.value.general_names.as_slice()).unwrap_or_default();
    let uri = names.iter().find_map(|it| match it {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let name = uri.or_else(|| {
        names.iter().find_map(|it| match it {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
    });
    named(name.ok_or("has a certificate without a URI or DNS name\nhint: give it one")?)
}

/// A certificate's name as an [`Id`]; two names never become one.
fn named(name: &str) -> Result<Id, String> {
    let refused = || {
        "has a certificate whose name cannot be used\n\
         hint: use a SPIFFE id or other URI, or a DNS name, of 1 to 128 of A-Z a-z 0-9 . _ : @ -"
            .to_owned()
    };
    let text = match name.strip_prefix(SPIFFE) {
        // A SPIFFE id has no colon of its own (SPIFFE-ID section 2), so the colons lead back to it.
        Some(path) if !path.contains(':') => format!("spiffe:{}", path.replace('/', ":")),
        Some(_) => return Err(refused()),
        // Such names are taken by the two rules above.
        None if name == LOOPBACK || name.starts_with("spiffe:") => return Err(refused()),
        None => name.to_owned(),
    };
    Id::new(text).map_err(|_broken| refused())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    /// Self-signed for these tests by `openssl req -x509 -newkey ed25519 -days 36500`, with the
    /// subject alternative names `DNS:broker.acme.example,
    /// URI:spiffe://acme.example/ns/prod/broker`.
    const CERTIFICATE: &str = "\
        MIIBgTCCATOgAwIBAgIUTH3AoJou6Qe3LZkWLO22WtURFvswBQYDK2VwMBExDzANBgNVBAMMBmJyb2tlcjAg\
        Fw0yNjExMjEyMjQ0MDdaGA8yMTI2MTAyODIyNDQwN1owETEPMA0GA1UEAwwGYnJva2VyMCowBQYDK2VwAyEA\
        ZV6FPjaS0c7HbWgjLTFSSPl1dIvIjDq864Nx3s7vAU+jgZowgZcwHQYDVR0OBBYEFGzoKqXtkRJQQblSl3Hp\
        8GqgCcJ7MB8GA1UdIwQYMBaAFGzoKqXtkRJQQblSl3Hp8GqgCcJ7MA8GA1UdEwEB/wQFMAMBAf8wRAYDVR0R\
        BD0wO4ITYnJva2VyLmFjbWUuZXhhbXBsZYYkc3BpZmZlOi8vYWNtZS5leGFtcGxlL25zL3Byb2QvYnJva2Vy\
        MAUGAytlcANBAJSBmJhM2evEwELrv8yUv6NiL60RS3yW3w3WvVMVXvvQT8WCLjTvjPhGf6bSjtnGSvjp16RO\
        nrkpwmvu+L3GSg8=";

    fn der(text: &str) -> Vec<u8> {
        base64::engine::general_purpose::STANDARD.decode(text).unwrap()
    }

    #[test]
    fn the_first_uri_comes_before_dns_names() {
        let caller = certified(&der(CERTIFICATE)).unwrap();
        assert_eq!(caller.as_str(), "spiffe:acme.example:ns:prod:broker");
        assert!(certified(b"no certificate").unwrap_err().contains("cannot be read"));
        assert!(certified(&der(CERTIFICATE)[..200]).is_err());
    }

    #[test]
    fn two_names_never_become_one_caller() {
        assert_eq!(named("broker.acme.example").unwrap().as_str(), "broker.acme.example");
        assert_eq!(named("urn:placet:broker").unwrap().as_str(), "urn:placet:broker");
        for bad in ["loopback", "spiffe:a:b", "spiffe://a:b/c", "https://a/b", "", "a b", "*.a"] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_peer_is_nobody() {
        let error = caller(&Request::new(())).unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unauthenticated);
    }
}
