//! Places that have law of their own, by their codes.

/// Every code that ISO 3166-1 assigns, in order; as of November 2026. Source: ISO 3166-1 alpha-2.
#[rustfmt::skip]
const ASSIGNED: [&str; 249] = [
    "AD", "AE", "AF", "AG", "AI", "AL", "AM", "AO", "AQ", "AR", "AS", "AT", "AU", "AW", "AX", "AZ",
    "BA", "BB", "BD", "BE", "BF", "BG", "BH", "BI", "BJ", "BL", "BM", "BN", "BO", "BQ", "BR", "BS",
    "BT", "BV", "BW", "BY", "BZ", "CA", "CC", "CD", "CF", "CG", "CH", "CI", "CK", "CL", "CM", "CN",
    "CO", "CR", "CU", "CV", "CW", "CX", "CY", "CZ", "DE", "DJ", "DK", "DM", "DO", "DZ", "EC", "EE",
    "EG", "EH", "ER", "ES", "ET", "FI", "FJ", "FK", "FM", "FO", "FR", "GA", "GB", "GD", "GE", "GF",
    "GG", "GH", "GI", "GL", "GM", "GN", "GP", "GQ", "GR", "GS", "GT", "GU", "GW", "GY", "HK", "HM",
    "HN", "HR", "HT", "HU", "ID", "IE", "IL", "IM", "IN", "IO", "IQ", "IR", "IS", "IT", "JE", "JM",
    "JO", "JP", "KE", "KG", "KH", "KI", "KM", "KN", "KP", "KR", "KW", "KY", "KZ", "LA", "LB", "LC",
    "LI", "LK", "LR", "LS", "LT", "LU", "LV", "LY", "MA", "MC", "MD", "ME", "MF", "MG", "MH", "MK",
    "ML", "MM", "MN", "MO", "MP", "MQ", "MR", "MS", "MT", "MU", "MV", "MW", "MX", "MY", "MZ", "NA",
    "NC", "NE", "NF", "NG", "NI", "NL", "NO", "NP", "NR", "NU", "NZ", "OM", "PA", "PE", "PF", "PG",
    "PH", "PK", "PL", "PM", "PN", "PR", "PS", "PT", "PW", "PY", "QA", "RE", "RO", "RS", "RU", "RW",
    "SA", "SB", "SC", "SD", "SE", "SG", "SH", "SI", "SJ", "SK", "SL", "SM", "SN", "SO", "SR", "SS",
    "ST", "SV", "SX", "SY", "SZ", "TC", "TD", "TF", "TG", "TH", "TJ", "TK", "TL", "TM", "TN", "TO",
    "TR", "TT", "TV", "TW", "TZ", "UA", "UG", "UM", "US", "UY", "UZ", "VA", "VC", "VE", "VG", "VI",
    "VN", "VU", "WF", "WS", "YE", "YT", "ZA", "ZM", "ZW",
];

/// Whether ISO 3166-1 assigns the code to a place.
pub(crate) fn is_assigned(code: &str) -> bool {
    ASSIGNED.binary_search(&code).is_ok()
}

/// Whether ISO 3166-1 leaves the code to its users, as XK for Kosovo (ISO 3166-1, clause 8.1.3):
/// AA, QM to QZ, XA to XZ and ZZ.
pub(crate) fn is_for_users(code: &str) -> bool {
    match code.as_bytes() {
        b"AA" | b"ZZ" => true,
        [b'Q', second] => (b'M'..=b'Z').contains(second),
        [b'X', second] => second.is_ascii_uppercase(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order_and_holds_no_code_for_users() {
        assert!(ASSIGNED.is_sorted_by(|one, next| one < next));
        assert!(ASSIGNED.iter().all(|code| code.len() == 2 && !is_for_users(code)));
        assert!(is_assigned("DE") && is_assigned("NO") && !is_assigned("XK") && !is_assigned("de"));
        assert!(is_for_users("XK") && is_for_users("QM") && !is_for_users("QL"));
    }

    #[test]
    fn params_of_shipped_policies_take_the_same_places() {
        for policy in ["residency", "compliance"] {
            let root = env!("CARGO_MANIFEST_DIR");
            let path = format!("{root}/../../policies/reference/{policy}/{policy}.schema.json");
            let text = std::fs::read_to_string(path).expect("the schema is there");
            let schema: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
            let listed = schema["$defs"]["jurisdiction"]["anyOf"][1]["enum"].as_array();
            let listed = listed.expect("it lists places").iter().filter_map(|code| code.as_str());
            assert!(listed.eq(ASSIGNED), "{policy}");
        }
    }
}
