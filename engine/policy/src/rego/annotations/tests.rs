use super::super::tests::compile_text;
use crate::error::Fault;
use crate::metadata::{PolicyMetadata, RuleMetadata};

const RULE: &str = "warn contains {\"code\": \"W\", \"message\": \"w\"}\n";

fn read(above_package: &str, above_rule: &str) -> Result<PolicyMetadata, Fault> {
    let text =
        format!("{above_package}package placet.test\n\nimport rego.v1\n\n{above_rule}{RULE}");
    compile_text(&text).map(|policy| policy.metadata().clone())
}

#[test]
fn what_a_policy_and_its_rules_say_is_read() {
    let policy = "# Anything before.\n\n# METADATA\n# title: A\n\
                  # description: |\n#   One.\n#   Two.\n\
                  # organizations: [house]\n# authors:\n# - name: Ann\n# - Bob <bob@example.org>\n\
                  # related_resources:\n# - ref: https://example.org\n#   description: more\n\
                  # schemas:\n# - input: schema.input\n# entrypoint: false\n# custom:\n\
                  #   owner: team\n#   controls: [\"SOC2:CC6.1\", \"NIST-800-53:AC-2(1)\"]\n\
                  #   severity: 3\n";
    let rule = "# METADATA\n# scope: document\n# title: B\n# custom:\n#   code: CODE_1\n\
                #   obligation: net.partition\n#   account: tenant/<tenant>/gpu\n\
                #   controls: [ISO27001:A.5.23]\n\n# Anything between.\n";
    let said = read(policy, rule).expect("it is right");
    assert_eq!(said.policy.title.as_deref(), Some("A"));
    assert_eq!(said.policy.description.as_deref(), Some("One.\nTwo.\n"));
    assert_eq!(said.policy.owner.as_deref(), Some("team"));
    assert_eq!(said.policy.controls, ["SOC2:CC6.1", "NIST-800-53:AC-2(1)"]);
    let expected = RuleMetadata {
        rule: "warn".into(),
        line: 36,
        title: Some("B".into()),
        code: Some("CODE_1".into()),
        obligation: Some("net.partition".into()),
        account: Some("tenant/<tenant>/gpu".into()),
        controls: vec!["ISO27001:A.5.23".into()],
        ..RuleMetadata::default()
    };
    assert_eq!(said.rules, [expected]);
    assert_eq!(read("", ""), Ok(PolicyMetadata::default()));
}

#[test]
fn what_is_wrong_has_its_place_and_a_remedy() {
    for (block, line, expected) in [
        ("# METADATA\n# title: [\n", 6, "hint: "),
        ("# METADATA\n# titel: a\n", 6, "did you mean `title`?"),
        ("# METADATA\n# title: {a: b}\n", 6, "test.rego:6:"),
        ("# METADATA\n# title: \"\"\n", 6, "`title` is not one line"),
        ("# METADATA\n", 5, "the metadata is empty"),
        ("# METADATA\n# custom:\n#   controls: [SOC2]\n", 7, "is no control"),
        ("# METADATA\n# custom:\n#   controls: [\"soc2:1\"]\n", 7, "such as `SOC2:CC6.1`"),
        ("# METADATA\n# custom:\n#   controls: [\"SOC2: 1\"]\n", 7, "is no control"),
        ("# METADATA\n# custom:\n#   controls: SOC2:1\n", 7, "is not a list"),
        ("# METADATA\n# custom:\n#   controls: [7]\n", 7, "`7` is no control"),
        ("# METADATA\n# custom:\n#   control: [SOC2:1]\n", 7, "did you mean `controls`?"),
        ("# METADATA\n# custom:\n#   code: low\n", 7, "`low` is no code"),
        ("# METADATA\n# custom:\n#   obligation: a b\n", 7, "`a b` is no id"),
        ("# METADATA\n# custom:\n#   obligations: a\n", 7, "did you mean `obligation`?"),
        ("# METADATA\n# custom:\n#   account: tenant/<a\n", 7, "in angle brackets"),
        ("# METADATA\n# custom:\n#   account: 7\n", 7, "`custom.account` is not a text"),
        ("# METADATA\n# custom:\n#   owner: 7\n", 7, "`custom.owner` is not a text"),
        ("# METADATA\n# scope: package\n", 6, "its scope does not fit"),
        ("# METADATA\n# scope: file\n", 6, "unknown variant"),
        ("  # METADATA\n", 5, "column 1"),
        ("# metadata:\n# title: a\n", 5, "in capitals"),
        ("# METADATA\n# title: a\n# title: b\n", 6, "duplicate"),
    ] {
        let fault = read("", block).expect_err(block);
        assert_eq!(fault.line, Some(line), "{block}: {fault}");
        assert!(fault.to_string().contains(expected), "{block}: {fault}");
    }
    let above_import = "package placet.test\n\n# METADATA\n# title: a\nimport rego.v1\n\n";
    let fault = compile_text(&format!("{above_import}{RULE}")).expect_err("it says nothing");
    assert!(fault.message.contains("above no package"), "{fault}");
    let at_the_end = format!("package placet.test\n\n{RULE}\n# METADATA\n# title: a\n");
    let fault = compile_text(&at_the_end).expect_err("it says nothing");
    assert!(fault.message.contains("above no package"), "{fault}");
    let large = format!("# METADATA\n# description: {}\n", "x".repeat(4_000)).repeat(1)
        + &format!("# {}\n", "y".repeat(4_000)).repeat(5);
    assert!(read("", &large).expect_err("too large").message.contains("more than"));
}

#[test]
fn a_raw_text_is_no_block() {
    let raw = "x := `\n# METADATA\n# nothing: of it\n`\n\n";
    assert_eq!(read("", raw), Ok(PolicyMetadata::default()));
}

#[test]
fn aliases_do_not_multiply_without_end() {
    let mut bomb = "# METADATA\n# custom:\n#   a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..30 {
        let m = n - 1;
        bomb.push_str(&format!("#   a{n}: &a{n} [*a{m}, *a{m}, *a{m}, *a{m}, *a{m}, *a{m}]\n"));
    }
    assert!(read("", &bomb).is_err());
}
