//! Built-ins of OPA that policies do not have, and what to do instead.

const FACTS: &str = "a policy cannot ask the world: put what it needs into the facts";
const REPEATABLE: &str = "a decision must be repeatable: use what the input holds";
const PLAIN_JSON: &str = "write it in JSON and use `json.unmarshal`";
const CERTIFICATE: &str = "read certificates before they become facts; `io.jwt.verify_*` take them";
const SECRET: &str = "a policy holds no private keys: sign outside, and verify here";
const SCHEMA: &str = "the input has a schema already; declare `params_schema` for the parameters";
const NOTES: &str = "notes are for people: put what rules need into `data.params`";
const GRAPHQL: &str = "no request to this engine is written in GraphQL";
const OPERATOR: &str = "write it as an operator, such as `x + y`";
const SETS: &str = "write it as an operator: `|`, `&` or `-`";
const CASTS: &str = "test the type, such as `is_string`, or convert with `to_number`";
const COMPILER: &str = "it is what a compiler writes: use the construct that it stands for";

/// Built-ins that are refused when a policy is loaded: name, and what to do instead.
pub(in crate::rego) const REFUSED: [(&str, &str); 69] = [
    ("__builtin_sets.intersection", SETS),
    ("__builtin_sets.union", SETS),
    ("all", "use `every`"),
    ("and", SETS),
    ("any", "use `some ... in`"),
    ("array.flatten", "write a comprehension, such as `[x | some xs in xss; some x in xs]`"),
    ("assign", OPERATOR),
    ("cast_array", CASTS),
    ("cast_boolean", CASTS),
    ("cast_null", CASTS),
    ("cast_object", CASTS),
    ("cast_set", CASTS),
    ("cast_string", CASTS),
    ("crypto.parse_private_keys", SECRET),
    ("crypto.x509.parse_and_verify_certificates", CERTIFICATE),
    ("crypto.x509.parse_and_verify_certificates_with_options", CERTIFICATE),
    ("crypto.x509.parse_certificate_request", CERTIFICATE),
    ("crypto.x509.parse_certificates", CERTIFICATE),
    ("crypto.x509.parse_keypair", SECRET),
    ("crypto.x509.parse_rsa_private_key", SECRET),
    ("div", OPERATOR),
    ("eq", OPERATOR),
    ("equal", OPERATOR),
    ("graphql.is_valid", GRAPHQL),
    ("graphql.parse", GRAPHQL),
    ("graphql.parse_and_verify", GRAPHQL),
    ("graphql.parse_query", GRAPHQL),
    ("graphql.parse_schema", GRAPHQL),
    ("graphql.schema_is_valid", GRAPHQL),
    ("gt", OPERATOR),
    ("gte", OPERATOR),
    ("http.send", FACTS),
    ("internal.member_2", COMPILER),
    ("internal.member_3", COMPILER),
    ("internal.print", COMPILER),
    ("internal.template_string", COMPILER),
    ("internal.test_case", COMPILER),
    ("io.jwt.encode_sign", SECRET),
    ("io.jwt.encode_sign_raw", SECRET),
    ("json.match_schema", SCHEMA),
    ("json.verify_schema", SCHEMA),
    ("lt", OPERATOR),
    ("lte", OPERATOR),
    ("minus", OPERATOR),
    ("mul", OPERATOR),
    ("neq", OPERATOR),
    ("net.cidr_overlap", "use `net.cidr_contains` or `net.cidr_intersects`"),
    ("net.lookup_ip_addr", FACTS),
    ("opa.runtime", "a policy does not see its surroundings: use `data.params`"),
    ("or", SETS),
    ("plus", OPERATOR),
    ("providers.aws.sign_req", SECRET),
    ("rand.intn", REPEATABLE),
    ("re_match", "use `regex.match`"),
    ("regex.globs_match", "use `regex.match` or `glob.match`"),
    ("regex.template_match", "use `regex.match`"),
    ("rego.metadata.chain", NOTES),
    ("rego.metadata.rule", NOTES),
    ("rego.parse_module", "a policy does not load policies"),
    ("rem", OPERATOR),
    ("set_diff", SETS),
    ("strings.render_template", "use `sprintf`"),
    ("time.now_local", "use `input.time`, in seconds UTC"),
    ("trace", "remove it: an evaluation leaves its verdict and nothing else"),
    ("uuid.parse", "use `regex.match` and `split`"),
    ("uuid.rfc4122", "a decision must be repeatable: use ids that the input holds"),
    ("yaml.is_valid", PLAIN_JSON),
    ("yaml.marshal", PLAIN_JSON),
    ("yaml.unmarshal", PLAIN_JSON),
];
