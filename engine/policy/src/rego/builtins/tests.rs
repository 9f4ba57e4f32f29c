use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;

/// A self-signed certificate of an RSA key of 2,048 bits.
const CERTIFICATE: &str = include_str!("tests/certificate.pem");
/// A token that this key signed by RS256: good from 1,795,000,000 for one second, for `placet`
/// and `other`, by `idp`.
const TOKEN: &str = include_str!("tests/token.jwt");

fn value(json: &str) -> Value {
    Value::from_json_str(json).expect(json)
}

/// Calls a built-in as the interpreter does.
fn call(name: &str, given: &[Value]) -> Result<Value, String> {
    ticks::start(2_000_000);
    if let Some((_, _, own)) = OWN.iter().find(|(own, _, _)| *own == name) {
        pay(given).map_err(|error| error.to_string())?;
        return own(given).map_err(|error| error.to_string());
    }
    let builtin = BUILTINS.get(name).expect(name);
    let bound = BOUNDED.iter().find(|(bounded, _)| *bounded == name).map(|(_, bound)| *bound);
    let bound = if name == "walk" { Bound::Walk } else { bound.unwrap_or(Bound::Size) };
    let call = Call::new(*builtin, bound);
    call.before(given).map_err(|error| error.to_string())?;
    let mut given = given.to_vec();
    exact::adapt(name, &mut given).map_err(|error| error.to_string())?;
    builtin.0(&call.span, &call.parameters, &given, true).map_err(|error| error.to_string())
}

fn gives(name: &str, given: &str, expected: &str) {
    let given: Vec<Value> = value(given).as_array().expect("a list").to_vec();
    let found = call(name, &given).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(found.to_string(), expected, "{name}");
}

fn fails(name: &str, given: &str, expected: &str) {
    let given: Vec<Value> = value(given).as_array().expect("a list").to_vec();
    let error = call(name, &given).expect_err(name);
    assert!(error.contains(expected), "{name}: {error}");
}

/// Built-ins of OPA 1.x, by its own list (`builtin_metadata.json` and `capabilities.json` of
/// github.com/open-policy-agent/opa), those that it no longer recommends included.
const OPA: &str = "abs all and any array.concat array.flatten array.reverse array.slice assign \
    base64.decode base64.encode base64.is_valid base64url.decode base64url.encode \
    base64url.encode_no_pad bits.and bits.lsh bits.negate bits.or bits.rsh bits.xor cast_array \
    cast_boolean cast_null cast_object cast_set cast_string ceil concat contains count \
    crypto.hmac.equal crypto.hmac.md5 crypto.hmac.sha1 crypto.hmac.sha256 crypto.hmac.sha512 \
    crypto.md5 crypto.parse_private_keys crypto.sha1 crypto.sha256 \
    crypto.x509.parse_and_verify_certificates \
    crypto.x509.parse_and_verify_certificates_with_options \
    crypto.x509.parse_certificate_request crypto.x509.parse_certificates \
    crypto.x509.parse_keypair crypto.x509.parse_rsa_private_key div endswith eq equal floor \
    format_int glob.match glob.quote_meta graph.reachable graph.reachable_paths \
    graphql.is_valid graphql.parse graphql.parse_and_verify graphql.parse_query \
    graphql.parse_schema graphql.schema_is_valid gt gte hex.decode hex.encode http.send indexof \
    indexof_n internal.member_2 internal.member_3 internal.print internal.template_string \
    internal.test_case intersection io.jwt.decode io.jwt.decode_verify io.jwt.encode_sign \
    io.jwt.encode_sign_raw io.jwt.verify_eddsa io.jwt.verify_es256 io.jwt.verify_es384 \
    io.jwt.verify_es512 io.jwt.verify_hs256 io.jwt.verify_hs384 io.jwt.verify_hs512 \
    io.jwt.verify_ps256 io.jwt.verify_ps384 io.jwt.verify_ps512 io.jwt.verify_rs256 \
    io.jwt.verify_rs384 io.jwt.verify_rs512 is_array is_boolean is_null is_number is_object \
    is_set is_string json.filter json.is_valid json.marshal json.marshal_with_options \
    json.match_schema json.patch json.remove json.unmarshal json.verify_schema lower lt lte max \
    min minus mul neq net.cidr_contains net.cidr_contains_matches net.cidr_expand \
    net.cidr_intersects net.cidr_is_valid net.cidr_merge net.cidr_overlap net.lookup_ip_addr \
    numbers.range numbers.range_step object.filter object.get object.keys object.remove \
    object.subset object.union object.union_n opa.runtime or plus print product \
    providers.aws.sign_req rand.intn re_match regex.find_all_string_submatch_n regex.find_n \
    regex.globs_match regex.is_valid regex.match regex.replace regex.split regex.template_match \
    rego.metadata.chain rego.metadata.rule rego.parse_module rem replace round semver.compare \
    semver.is_valid set_diff sort split sprintf startswith strings.any_prefix_match \
    strings.any_suffix_match strings.count strings.render_template strings.replace_n \
    strings.reverse substring sum time.add_date time.clock time.date time.diff time.format \
    time.now_ns time.parse_duration_ns time.parse_ns time.parse_rfc3339_ns time.weekday \
    to_number trace trim trim_left trim_prefix trim_right trim_space trim_suffix type_name union \
    units.parse units.parse_bytes upper urlquery.decode urlquery.decode_object urlquery.encode \
    urlquery.encode_object uuid.parse uuid.rfc4122 walk yaml.is_valid yaml.marshal yaml.unmarshal";

#[test]
fn each_of_opas_built_ins_is_there_or_refused_with_a_remedy() {
    let refused: Vec<&str> = REFUSED.iter().map(|(name, _)| *name).collect();
    assert!(refused.is_sorted(), "the table is in order");
    for name in OPA.split_whitespace() {
        let remedy = REFUSED.iter().find(|(refused, _)| *refused == name);
        assert!(remedy.is_some() || arguments(name).is_some(), "`{name}` is neither");
        assert!(remedy.is_none_or(|(_, remedy)| remedy.len() > 10), "`{name}` has no remedy");
        assert!(remedy.is_none() || !names().any(|known| known == name), "`{name}` is both");
    }
    for name in names() {
        assert!(OPA.split_whitespace().any(|known| known == name), "OPA has no `{name}`");
    }
    for (name, _) in BOUNDED {
        assert!(BUILTINS.contains_key(name), "there is no `{name}` to bound");
    }
    for name in FREE {
        assert!(BUILTINS.contains_key(name), "there is no `{name}`");
    }
}

#[test]
fn digests_are_those_of_their_standards() {
    gives("crypto.md5", r#"["abc"]"#, r#""900150983cd24fb0d6963f7d28e17f72""#);
    gives("crypto.sha1", r#"["abc"]"#, r#""a9993e364706816aba3e25717850c26c9cd0d89d""#);
    let sha256 = r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#;
    gives("crypto.sha256", r#"["abc"]"#, sha256);
    // RFC 2202 and RFC 4231, case 2.
    let given = r#"["what do ya want for nothing?", "Jefe"]"#;
    gives("crypto.hmac.md5", given, r#""750c783e6ab0b503eaa86e310a5db738""#);
    gives("crypto.hmac.sha1", given, r#""effcdf6ae5eb2fa2d27416d5f184df9c259a7c79""#);
    let sha256 = r#""5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843""#;
    gives("crypto.hmac.sha256", given, sha256);
    let sha512 = "\"164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a99\
                  4a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737\"";
    gives("crypto.hmac.sha512", given, sha512);
    gives("crypto.hmac.equal", r#"["ab", "ab"]"#, "true");
    gives("crypto.hmac.equal", r#"["ab", "abc"]"#, "false");
    fails("crypto.sha256", "[1]", "the text is not a text");
}

#[test]
fn networks_are_compared_and_merged() {
    gives("net.cidr_contains", r#"["10.0.0.0/8", "10.1.2.3"]"#, "true");
    gives("net.cidr_contains", r#"["10.1.2.3/8", "10.255.0.0/16"]"#, "true");
    gives("net.cidr_contains", r#"["10.0.0.0/8", "10.0.0.0/7"]"#, "false");
    gives("net.cidr_contains", r#"["10.0.0.0/8", "::1"]"#, "false");
    gives("net.cidr_contains", r#"["2001:db8::/32", "2001:db8:1::/48"]"#, "true");
    fails("net.cidr_contains", r#"["10.0.0.0", "10.1.2.3"]"#, "`10.0.0.0` is no CIDR block");
    fails("net.cidr_contains", r#"["10.0.0.0/8", "x"]"#, "`x` is no CIDR block");
    gives("net.cidr_intersects", r#"["192.168.0.0/16", "192.168.1.0/24"]"#, "true");
    gives("net.cidr_intersects", r#"["192.168.0.0/24", "192.168.1.0/24"]"#, "false");
    gives("net.cidr_is_valid", r#"["192.168.0.0/33"]"#, "false");
    gives("net.cidr_is_valid", r#"["192.168.0.0/24"]"#, "true");
    gives("net.cidr_is_valid", "[1]", "false");
    let four = r#"{"10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"}"#;
    let found = call("net.cidr_expand", &[Value::from("10.0.0.2/30")]).expect("four");
    assert_eq!(found.as_set().expect("a set").len(), 4, "{four}");
    fails("net.cidr_expand", r#"["0.0.0.0/0"]"#, "addresses of the block would be above 10000");
    let merged =
        call("net.cidr_merge", &[value(r#"["10.0.0.0/25", "10.0.0.128/25", "10.0.0.7"]"#)]);
    let merged = merged.expect("one").as_set().expect("a set").clone();
    assert_eq!(merged.first().expect("one"), &Value::from("10.0.0.0/24"));
    let given = r#"[["1.1.0.0/16", ["2.2.0.0/16", "x"]], {"a": "1.1.1.1", "b": "2.2.0.0/24"}]"#;
    let given = value(given).as_array().expect("a list").to_vec();
    let matches = call("net.cidr_contains_matches", &given).expect("matches");
    let matches: Vec<String> =
        matches.as_set().expect("a set").iter().map(ToString::to_string).collect();
    assert_eq!(matches.join(" ").replace(' ', ""), r#"[0,"a"][1,"b"]"#);
}

#[test]
fn texts_are_replaced_and_encoded_as_opa_does() {
    gives("strings.replace_n", r#"[{"<": "&lt;", ">": "&gt;"}, "a<b>c"]"#, r#""a&lt;b&gt;c""#);
    // What is put in is not replaced again; the first name in order wins.
    gives("strings.replace_n", r#"[{"a": "b", "b": "a"}, "abc"]"#, r#""bac""#);
    gives("strings.replace_n", r#"[{"a": "1", "aa": "2"}, "aaa"]"#, r#""111""#);
    gives("strings.replace_n", r#"[{"": "-"}, "ab"]"#, r#""-a-b-""#);
    gives("strings.replace_n", r#"[{}, "ab"]"#, r#""ab""#);
    gives("urlquery.encode", r#"["a b&c/\u00e4~"]"#, r#""a+b%26c%2F%C3%A4~""#);
    gives("urlquery.decode", r#"["a+b%26c%2F%C3%A4"]"#, "\"a b&c/\u{e4}\"");
    fails("urlquery.decode", r#"["%2"]"#, "not encoded as a query");
    gives("urlquery.encode_object", r#"[{"b": ["1", "2"], "a": "x y"}]"#, r#""a=x+y&b=1&b=2""#);
    let decoded = call("urlquery.decode_object", &[Value::from("a=1&a=2&b")]).expect("it decodes");
    assert_eq!(decoded, value(r#"{"a": ["1", "2"], "b": [""]}"#));
    gives("object.subset", "[[], []]", "true");
    gives("object.subset", "[[1, 2, 3], [2, 3]]", "true");
    gives("object.subset", "[[1, 2, 3], [3, 2]]", "false");
    gives("object.subset", r#"[{"a": {"b": [1], "c": 2}}, {"a": {"b": []}}]"#, "true");
    gives("object.subset", r#"[{"a": 1}, {"a": 2}]"#, "false");
    fails("object.subset", "[1, []]", "not two of a kind");
    gives("type_name", "[[1]]", r#""array""#);
    let paths = call(
        "graph.reachable_paths",
        &[value(r#"{"a": ["b", "c"], "b": ["d"], "c": [], "d": ["a"]}"#), value(r#"["a"]"#)],
    );
    let paths = paths.expect("paths").to_string().replace(' ', "");
    assert_eq!(paths, r#"[["a","b","d"],["a","c"]]"#);
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signed(header: &str, payload: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encoded(header), encoded(payload));
    let signature = encoded(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn pem(label: &str, der: &[u8]) -> String {
    let lines = STANDARD.encode(der);
    let lines: Vec<&str> =
        lines.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A token by an algorithm, the key that verifies it, and that key as a JWK.
fn sample(algorithm: &str) -> (String, String, String) {
    let header = format!("{{\"alg\":\"{algorithm}\",\"kid\":\"k\"}}");
    let random = SystemRandom::new();
    let token = |sign: &dyn Fn(&[u8]) -> Vec<u8>| signed(&header, "{\"sub\":\"u\"}", sign);
    let curve = |name: &str, algorithm: &'static EcdsaSigningAlgorithm| {
        let key = EcdsaKeyPair::generate(algorithm).expect("a key");
        let token =
            token(&|message| key.sign(&random, message).expect("a signature").as_ref().to_vec());
        let point = key.public_key().as_ref();
        let (x, y) = point[1..].split_at(point.len() / 2);
        let jwk = format!(
            "{{\"kty\":\"EC\",\"crv\":\"{name}\",\"kid\":\"k\",\"x\":\"{}\",\"y\":\"{}\"}}",
            encoded(x),
            encoded(y)
        );
        let der = key.public_key().as_der().expect("a key");
        (token, pem("PUBLIC KEY", der.as_ref()), jwk)
    };
    match algorithm {
        "ES256" => curve("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        "ES384" => curve("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        "ES512" => curve("P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
        "EdDSA" => {
            let key = Ed25519KeyPair::generate().expect("a key");
            let token = token(&|message| key.sign(message).as_ref().to_vec());
            let x = encoded(key.public_key().as_ref());
            let jwk =
                format!("{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"k\",\"x\":\"{x}\"}}");
            let der = key.public_key().as_der().expect("a key");
            (token, pem("PUBLIC KEY", der.as_ref()), jwk)
        }
        _ => {
            let by = match algorithm {
                "RS256" => &RSA_PKCS1_SHA256,
                "RS384" => &RSA_PKCS1_SHA384,
                "RS512" => &RSA_PKCS1_SHA512,
                "PS256" => &RSA_PSS_SHA256,
                "PS384" => &RSA_PSS_SHA384,
                _ => &RSA_PSS_SHA512,
            };
            let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
            let token = token(&|message| {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(by, &random, message, &mut signature).expect("a signature");
                signature
            });
            // PKCS #1: a sequence of the modulus, 256 bytes after nine, and the exponent 65537.
            let public = key.public_key();
            let jwk = format!(
                "{{\"kty\":\"RSA\",\"kid\":\"k\",\"n\":\"{}\",\"e\":\"{}\"}}",
                encoded(&public.as_ref()[9..265]),
                encoded([1, 0, 1])
            );
            (token, pem("RSA PUBLIC KEY", public.as_ref()), jwk)
        }
    }
}

#[test]
fn tokens_are_verified_by_the_algorithm_that_is_named() {
    let texts = |token: &str, key: &str| [Value::from(token), Value::from(key)];
    for algorithm in
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
    {
        let name = format!("io.jwt.verify_{}", algorithm.to_lowercase());
        let (token, pem, jwk) = sample(algorithm);
        let set = format!("{{\"keys\":[{jwk}]}}");
        for key in [&pem, &jwk, &set] {
            let verified = call(&name, &texts(&token, key)).expect("it is read");
            assert_eq!(verified, Value::from(true), "{name} by {key}");
        }
        let (_, other, _) = sample(algorithm);
        assert_eq!(call(&name, &texts(&token, &other)), Ok(Value::from(false)), "{name}");
        let (signed, _) = token.rsplit_once('.').expect("three parts");
        let unsigned = format!("{signed}.");
        assert_eq!(call(&name, &texts(&unsigned, &pem)), Ok(Value::from(false)), "{name}");
        let given =
            [Value::from(token.as_str()), constraints(&[("cert", &set), ("alg", algorithm)])];
        let found = call("io.jwt.decode_verify", &given).expect("it is read");
        assert_eq!(found.as_array().expect("three")[0], Value::from(true), "{name}");
    }
    let secret = |message: &[u8]| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"secret");
        aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
    };
    let token = signed("{\"alg\":\"HS256\"}", "{}", secret);
    let verify = |secret: &str| call("io.jwt.verify_hs256", &texts(&token, secret));
    assert_eq!(verify("secret"), Ok(Value::from(true)));
    assert_eq!(verify("other"), Ok(Value::from(false)));
    // A public key is no shared secret, whatever the token says.
    let given = [Value::from(token.as_str()), constraints(&[("cert", CERTIFICATE)])];
    let refused = call("io.jwt.decode_verify", &given).expect("it is read");
    assert_eq!(refused, value("[false, {}, {}]"));
}

fn constraints(fields: &[(&str, &str)]) -> Value {
    let fields = fields.iter().map(|(name, text)| (Value::from(*name), Value::from(*text)));
    Value::from(fields.collect::<regorus::value::Object>())
}

#[test]
fn a_token_is_good_for_its_issuer_audience_and_time() {
    let good = |fields: &[(&str, &str)], time: u64| {
        set_time(time);
        let given = [Value::from(TOKEN), constraints(fields)];
        call("io.jwt.decode_verify", &given).map(|found| found.as_array().expect("three").to_vec())
    };
    let cert = ("cert", CERTIFICATE);
    let (time, aud) = (1_795_000_000, ("aud", "placet"));
    let found = good(&[cert, aud, ("iss", "idp"), ("alg", "RS256")], time).expect("it is read");
    assert_eq!(found[0], Value::from(true));
    assert_eq!(
        found[2].as_object().expect("claims").get(&Value::from("sub")),
        Some(&Value::from("u"))
    );
    for (fields, time) in [
        (vec![cert, aud], time + 1),
        (vec![cert, aud], time - 1),
        (vec![cert], time),
        (vec![cert, ("aud", "x")], time),
        (vec![cert, aud, ("iss", "x")], time),
        (vec![cert, aud, ("alg", "RS384")], time),
        (vec![("secret", "x"), aud], time),
    ] {
        let found = good(&fields, time).expect("it is read");
        assert_eq!(found[0], Value::from(false), "{fields:?} at {time}");
    }
    for (fields, expected) in [
        (vec![aud], "neither `cert` nor `secret`"),
        (vec![cert, ("secret", "x")], "a `cert` and a `secret`"),
        (vec![cert, ("issuer", "x")], "a constraint is none of"),
        (vec![("cert", "x")], "neither PEM nor a JWK"),
        (vec![("cert", "{}")], "`kty` of a JWK"),
    ] {
        let error = good(&fields, time).expect_err("it is refused");
        assert!(error.contains(expected), "{error}");
    }
    let decoded = call("io.jwt.decode", &[Value::from(TOKEN)]).expect("it decodes");
    let decoded = decoded.as_array().expect("three").to_vec();
    assert_eq!(decoded[0], value(r#"{"alg": "RS256", "typ": "JWT"}"#));
    assert_eq!(decoded[2].as_string().expect("hexadecimal").len(), 512);
    for (token, expected) in [
        ("a.b", "three sections"),
        ("a.b.c.d", "three sections"),
        ("!.e30.", "not base64url"),
        ("W10.e30.", "not an object"),
        ("eyJlbmMiOiJ4In0.e30.", "encrypted"),
    ] {
        let error = call("io.jwt.decode", &[Value::from(token)]).expect_err(token);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn patterns_are_measured_as_written_out() {
    for (pattern, expected) in [("abc", 3), ("a{10}", 10), ("(ab){10}", 30), ("a{2,}", 2)] {
        assert_eq!(text::written_out(pattern), expected, "{pattern}");
    }
    assert!(text::written_out("((a{100}){100}){100}") > 1_000_000);
    assert!(text::written_out("(\\w{100}){100}") > 100_000);
}

#[test]
fn patterns_match_what_they_match_in_opa() {
    for (pattern, text, expected) in [
        ("^[[a]]$", "[]", true),
        ("^[[a]]$", "a", false),
        ("^[a&&b]$", "a", true),
        ("^[a~~b]$", "~", true),
        ("^[\\w-z]$", "`", false),
        ("^[\\w-.]$", "-", true),
        ("^[\\s-z]$", "A", false),
        ("^\\<a\\>$", "<a>", true),
        ("^a{ 2 }$", "aa", false),
        ("^a{ 2 }$", "a{ 2 }", true),
        ("^\\w$", "\u{e9}", false),
        ("^\\pL{2}$", "\u{e9}a", true),
        ("(?i)^(?:A|b)$", "B", true),
    ] {
        let given = [Value::from(pattern), Value::from(text)];
        let found = call("regex.match", &given);
        assert_eq!(found, Ok(Value::from(expected)), "{pattern} in {text}");
    }
    fails("regex.match", r#"["[+--]", "+"]"#, "write `\\-`");
    fails("regex.replace", r#"["a b", "(?x)a b", "c"]"#, "the flag `x`");
    fails("regex.is_valid", r#"["a++"]"#, "a repetition of a repetition");
    gives("regex.is_valid", r#"["(?=a)"]"#, "false");
}

#[test]
fn what_is_quoted_in_json_writes_no_number() {
    let fine = ["{\"sha\":\"ab9e512cd\"}", "[\"\\\"1e999999\", 1e300]", "\"\\\\1e999999\""];
    for text in fine {
        for name in ["json.unmarshal", "json.is_valid"] {
            assert!(call(name, &[Value::from(text)]).is_ok(), "{name} {text}");
        }
        assert!(keys::json(text, "no JSON").is_ok(), "{text}");
    }
    let digits = format!("[{}]", "1".repeat(401));
    let hostile = [
        "[1e2000000000]",
        "{\"a\\\\\":1e999999}",
        "{\"1\":1e999999}",
        "\"a\"1e999999",
        digits.as_str(),
        "{\"$serde_json::private::Number\":\"1e2000000000\"}",
        "[{\"\\u0024serde_json::private::\\u004eumber\":\"1\\u00652000000000\"}]",
    ];
    for text in hostile {
        for name in ["json.unmarshal", "json.is_valid"] {
            assert!(call(name, &[Value::from(text)]).is_err(), "{name} {text}");
        }
        assert!(keys::json(text, "no JSON").is_err(), "{text}");
    }
}

#[test]
fn groups_of_all_matches_are_bounded_before_they_are_made() {
    let find = |name: &str, groups: usize, length: usize| {
        let (pattern, text) = ("()".repeat(groups), "a".repeat(length));
        call(name, &[Value::from(pattern), Value::from(text), Value::from(-1_i64)])
    };
    let all = "regex.find_all_string_submatch_n";
    let error = find(all, 1_000, 8_000).expect_err("it is too much");
    assert!(error.contains("groups of all matches would be above"), "{error}");
    let found = find(all, 10, 100).expect("it is little");
    assert_eq!(found.as_array().expect("a list").len(), 101);
    assert!(find("regex.find_n", 100, 8_000).is_ok());
}

fn hostile() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        Just(Value::from(f64::MAX)),
        Just(Value::from(1e-300)),
        Just(Value::from(u128::MAX)),
        Just(Value::from(-1_i64)),
        prop_oneof![
            Just(""),
            Just("%d%s%v%x"),
            Just("%*d"),
            Just("10.0.0.0/8"),
            Just("a.b.c"),
            Just("**{a,b}"),
            Just("2006-01-02"),
            Just("1e400"),
            Just("-9223372036854775808h"),
            Just("[[["),
            Just("(a|b"),
            Just("\u{1F600}\u{301}"),
            Just("99999999999999999999.1.2"),
            Just("/a/-"),
            Just("copy"),
        ]
        .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_set(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(inner.clone(), inner, 0..4).prop_map(Value::from),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// A panic would cost a request: no arguments bring one about, in any built-in, and what is
    /// given is the same twice.
    #[test]
    fn no_arguments_bring_a_built_in_down(given in prop::collection::vec(hostile(), 4)) {
        for name in names().filter(|name| *name != "print") {
            let count = arguments(name).flatten().unwrap_or(1);
            let given = &given[..usize::from(count)];
            let found = std::panic::catch_unwind(|| (call(name, given), ticks::spent()));
            let Ok(found) = found else { panic!("{name} panics: {given:?}") };
            prop_assert_eq!((call(name, given), ticks::spent()), found);
        }
    }
}
