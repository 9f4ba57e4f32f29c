//! Files that are wrong: a clear error, and nothing else.

use crate::running::{run, run_with};

const LOCAL: [&str; 6] = [
    "admit",
    "--local",
    "--bundle",
    "policies/reference",
    "--facts",
    "policies/reference/facts.yaml",
];

#[test]
fn files_that_cannot_be_read_are_named() {
    insta::assert_snapshot!(run(["admit", "nowhere.json"]).shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: cannot read `nowhere.json`: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(run(["admit", "policies"]).shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: `policies` is a directory
     hint: name the files in it, such as `dir/*.json`
    ");
    insta::assert_snapshot!(run(["admit", "-", "-"]).shown(&[]), @r"
    exit 64
    --- stdout
    --- stderr
    error: `-` is given twice, but there is one standard input
    ");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let args =
        ["admit", "--server", "http://127.0.0.1:1", "policies/requests/lease-permitted.json"];
    insta::assert_snapshot!(run(args).shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: cannot reach the server at `http://127.0.0.1:1`: transport error: tcp connect error: Connection refused (os error 111)
     hint: start one with `placet serve`, name another with --server, or use --local
    ");
    let args = ["confirm", "r-1", "--tenant", "acme", "--epoch", "1", "--server", "localhost"];
    insta::assert_snapshot!(run(args).shown(&[]), @r"
    exit 64
    --- stdout
    --- stderr
    error: `localhost` is no URL of a server: its scheme is neither http nor https
     hint: write it as http://127.0.0.1:7443
    ");
}

#[test]
fn a_request_that_is_no_json_has_its_place() {
    let ran = run_with(LOCAL.iter().chain(&["-"]), "{\n  \"request_id\": nope\n}\n");
    insta::assert_snapshot!(ran.shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: standard input:2:18: expected ident
    ");
    let ran = run_with(LOCAL.iter().chain(&["-"]), "");
    insta::assert_snapshot!(ran.shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: standard input: it is empty: expected a request as JSON
    ");
}

#[test]
fn a_field_that_is_not_in_the_contract_is_named_with_those_that_are() {
    let request = "{\"request_id\": \"a\", \"tennant_id\": \"b\"}";
    let ran = run_with(LOCAL.iter().chain(&["-"]), request);
    insta::assert_snapshot!(ran.shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: standard input: `tennant_id` is no field of the contract
     hint: known here are request_id, tenant_id, principal, priority_class, lease, job, extends, waivers
    ");
}

#[test]
fn a_reservation_needs_its_tenant_and_epoch() {
    insta::assert_snapshot!(run(["confirm", "r-1"]).shown(&[]), @r"
    exit 64
    --- stdout
    --- stderr
    error: `r-1` is a reservation's id, but --epoch is not given
     hint: give --tenant and --epoch, or the token of the decision instead of the id
    ");
}

#[test]
fn what_is_no_token_is_refused() {
    for command in ["verify", "confirm", "release"] {
        let ran = run([command, "eyJh.eyJi.c2ln", "--server=http://127.0.0.1:1"]
            .iter()
            .filter(|arg| !(command == "verify" && arg.starts_with("--server"))));
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{command}");
        assert!(ran.stderr.starts_with("error: "), "{command}: {}", ran.stderr);
    }
    insta::assert_snapshot!(run(["confirm", "eyJh.eyJi.c2ln"]).shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: the token is not that of a decision: EOF while parsing a string at line 1 column 3
    ");
    insta::assert_snapshot!(run(["verify", "nowhere.json"]).shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: `nowhere.json` is neither a token nor a readable file: No such file or directory (os error 2)
     hint: a token has three parts joined by dots, and begins with `eyJ`
    ");
}

#[test]
fn keys_come_from_this_machine_or_a_file() {
    let args = ["verify", "eyJh.eyJi.c2ln", "--jwks", "https://placet.example/jwks.json"];
    insta::assert_snapshot!(run(args).shown(&[]), @r"
    exit 64
    --- stdout
    --- stderr
    error: `https://placet.example/jwks.json` is not on this machine
     hint: fetch it with a tool that checks the server's certificate, and pass the file
    ");
}

#[test]
fn looking_at_keys_makes_none() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let ran = run(["keys", "show", "--keys", keys.to_str().unwrap()]);
    let replace = [(directory.path().to_str().unwrap(), "DIR")];
    insta::assert_snapshot!(ran.shown(&replace), @r"
    exit 1
    --- stdout
    --- stderr
    error: `DIR/keys/signing-key.pkcs8` does not exist
     hint: name the directory with --keys, or make a key with `placet keys generate`
    ");
    assert!(!keys.exists());
}

#[test]
fn what_is_wrong_in_a_case_has_its_place_and_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let parent = directory.path().to_str().unwrap();
    assert_eq!(run(["new", "bundle", "b", "--in", parent]).code, 0);
    let file = directory.path().join("b/duration/cases/duration.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    let bundle = directory.path().join("b").to_str().unwrap().to_owned();
    let told = |from: &str, to: &str| {
        let wrong = good.replace(from, to);
        assert_ne!(wrong, good, "{from}");
        std::fs::write(&file, wrong).unwrap();
        let ran = run(["test", &bundle, "--only", "cases/"]);
        let lines = ran.stdout.lines().filter(|line| !line.starts_with("ok"));
        let shown = lines.chain(ran.stderr.lines()).collect::<Vec<_>>().join("\n");
        format!("exit {}\n{shown}\n", ran.code)
    };
    let all = [
        told(
            "    expect: {effect: PERMIT, codes: []}\n  - name: the",
            "    expcet: {}\n  - name: the",
        ),
        told("../../facts.yaml", "../../fact.yaml"),
        told("an hour is permitted", "a second more is refused"),
        told("        gpu_count", "        gpu_cuont"),
        told(
            "[DURATION_ABOVE_MAXIMUM]}\n  - name: a job",
            "[DURATION_ABOVE_MAX]}\n  - name: a job",
        ),
        told("time: 1795262400 #", "time: noon #"),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    exit 3
    error: duration/cases/duration.yaml:18:5: cases[0]: unknown field `expcet`, expected one of `name`, `time`, `request`, `params`, `unchecked`, `expect`
     hint: did you mean `expect`?

    exit 3
    error: duration/cases/duration.yaml:3:8: facts `../../fact.yaml` are not in the bundle, as `fact.yaml`
     hint: did you mean `facts.yaml` in the bundle?

    exit 3
    error: duration/cases/duration.yaml:23:11: two cases are named `a second more is refused`
     hint: give each case a name of its own

    exit 1
    FAIL  duration/cases/duration.yaml:27: a job is held to the same
          the request cannot be read: `job.gpu_cuont` is no field of the contract
          hint: did you mean `gpu_count`?
    4 passed, 1 failed in 1 files

    exit 1
    FAIL  duration/cases/duration.yaml:23: a second more is refused
          codes: {"DURATION_ABOVE_MAXIMUM"}, not {"DURATION_ABOVE_MAX"}
          no policy has the code `DURATION_ABOVE_MAX` in it
          hint: did you mean `DURATION_ABOVE_MAXIMUM`?
          with H100:
           POLICY    VERDICT  CLAIMS, REASONS, DUTIES
           duration  deny     DURATION_ABOVE_MAXIMUM: 604801 s are above 604800 s, the
                              maximum of class EXTERNAL_COMMERCIAL
    4 passed, 1 failed in 1 files

    exit 3
    error: duration/cases/duration.yaml:17:11: cases[0].time: invalid type: string "noon", expected a whole number
    "#);
}
