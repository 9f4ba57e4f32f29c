//! Help is complete, has examples, and fits 80 columns.

use crate::running::run;

const COMMANDS: [&str; 18] = [
    "admit",
    "build",
    "bundle",
    "check",
    "completion",
    "confirm",
    "explain",
    "facts",
    "freeze",
    "keys",
    "ledger",
    "log",
    "new",
    "release",
    "serve",
    "test",
    "verify",
    "waiver",
];

#[test]
fn every_command_explains_itself_in_eighty_columns() {
    for command in COMMANDS {
        let ran = run([command, "--help"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{command}");
        assert!(ran.stdout.contains("Examples:\n  "), "{command} has no examples");
        assert!(ran.stdout.contains("--format"), "{command}");
        let long: Vec<_> = ran.stdout.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{command}: {long:#?}");
        assert!(!ran.stdout.contains('\u{1b}'), "{command}: colour without a terminal");
    }
}

#[test]
fn what_can_be_done_with_a_bundle_explains_itself_in_eighty_columns() {
    for action in ["build", "inspect", "sign", "verify"] {
        let ran = run(["bundle", action, "--help"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{action}");
        assert!(ran.stdout.contains("Examples:\n  "), "{action} has no examples");
        let long: Vec<_> = ran.stdout.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{action}: {long:#?}");
    }
}

#[test]
fn what_can_be_made_explains_itself_in_eighty_columns() {
    for action in ["bundle", "rego", "wasm"] {
        let ran = run(["new", action, "--help"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{action}");
        assert!(ran.stdout.contains("Examples:\n  "), "{action} has no examples");
        let long: Vec<_> = ran.stdout.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{action}: {long:#?}");
    }
}

#[test]
fn what_can_be_done_with_a_waiver_explains_itself_in_eighty_columns() {
    for action in ["sign", "show"] {
        let ran = run(["waiver", action, "--help"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{action}");
        assert!(ran.stdout.contains("Examples:\n  "), "{action} has no examples");
        let long: Vec<_> = ran.stdout.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{action}: {long:#?}");
    }
}

#[test]
fn what_can_be_done_with_the_ledger_explains_itself_in_eighty_columns() {
    for action in ["backup", "reservations", "reserve", "usage", "verify", "watch"] {
        let ran = run(["ledger", action, "--help"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{action}");
        assert!(ran.stdout.contains("Examples:\n  "), "{action} has no examples");
        let long: Vec<_> = ran.stdout.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{action}: {long:#?}");
    }
}

#[test]
fn what_can_be_asked_of_the_log_explains_itself_in_eighty_columns() {
    let all =
        ["checkpoint", "cosign", "erase", "export", "list", "prove", "show", "tail", "verify"];
    for action in all {
        let ran = run(["log", action, "--help"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{action}");
        assert!(ran.stdout.contains("Examples:\n  "), "{action} has no examples");
        let long: Vec<_> = ran.stdout.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty(), "{action}: {long:#?}");
    }
}

#[test]
fn the_whole_at_a_glance() {
    insta::assert_snapshot!(run(["--help"]).shown(&[]), @r"
    exit 0
    --- stdout
    Decides who may use which GPUs, by policy, and signs every decision

    Usage: placet [OPTIONS] <COMMAND>

    Commands:
      serve       Run the server
      admit       Ask for decisions
      confirm     Turn a reservation active: required before work may start
      release     End a reservation and refund the budget that it did not use
      verify      Check a signed decision with the issuer's public keys alone
      explain     Tell what would be decided now and why, without consequences
      new         Make a bundle or a policy to begin with, with cases that pass
      test        Run the cases of a policy bundle
      build       Build a policy's component from its Rust source
      check       Find all that is wrong or doubtful in a policy bundle
      facts       Check facts, or make them active in a server
      bundle      Build, inspect, describe, sign or verify a bundle of policies
      waiver      Sign exceptions that lift denials, and look at them
      freeze      Deny everything new in a scope until it is lifted
      keys        Show, publish, rotate or revoke the keys of decisions and log
      ledger      Show what is held, book ahead; check and copy a store
      log         Show, search, follow, prove, check and export what was decided
      completion  Print the completion script of a shell
      help        Print this message or the help of the given subcommand(s)

    Options:
          --format <FORMAT>
              How data is written

              Possible values:
              - human: For a person
              - json:  JSON, one object a line
              
              [env: PLACET_FORMAT=]
              [default: human]

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Exit codes: 0 done or permitted, 1 failed, 2 denied (single requests only),
    3 policies invalid, 64 usage.
    Data goes to standard output, everything else to standard error.

    Examples:
      placet serve --bundle policies/reference --facts policies/reference/facts.yaml
      placet admit request.json
      placet admit --local --bundle policies/reference \
        --facts policies/reference/facts.yaml request.json
    --- stderr
    ");
}

#[test]
fn a_wrong_command_line_is_64_and_never_2() {
    for args in [&[][..], &["admot"], &["admit"], &["admit", "x", "--in-flight", "0"], &["test"]] {
        let ran = run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (64, ""), "{args:?}");
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_slip_of_the_pen_is_answered_with_the_right_word() {
    insta::assert_snapshot!(run(["admit", "x", "--servre", "y"]).shown(&[]), @r"
    exit 64
    --- stdout
    --- stderr
    error: unexpected argument '--servre' found

      tip: a similar argument exists: '--server'

    Usage: placet admit --server <URL> <FILE>...

    For more information, try '--help'.
    ");
}

#[test]
fn the_version_is_no_error() {
    let ran = run(["--version"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "placet 0.1.0\n"));
}

#[test]
fn each_shell_gets_its_completion() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = run(["completion", shell]);
        assert_eq!(ran.code, 0, "{shell}");
        assert!(ran.stdout.contains("in-flight"), "{shell}");
    }
}
