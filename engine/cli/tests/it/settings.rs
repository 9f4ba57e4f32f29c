//! Settings that cannot be served are refused before anything is touched.

use std::net::TcpListener;

use crate::running::run;

const POLICIES: [&str; 5] =
    ["serve", "--bundle", "policies/reference", "--facts", "policies/reference/facts.yaml"];

fn serve(more: &[&str]) -> crate::running::Ran {
    run(POLICIES.iter().chain(more))
}

#[test]
fn an_unknown_name_in_the_file_is_refused_with_its_line_and_the_nearest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("placet.toml");
    std::fs::write(&path, "bundle = \"b\"\n\n[listen]\n").unwrap();
    let args = ["serve", "--config", path.to_str().unwrap()];
    let replace = [(directory.path().to_str().unwrap(), "DIR")];
    insta::assert_snapshot!(run(args).shown(&replace), @r"
    exit 64
    --- stdout
    --- stderr
    error: DIR/placet.toml: line 3: invalid type: map, expected socket address
    ");
    std::fs::write(&path, "bundle = \"b\"\nlisten_on = \"127.0.0.1:1\"\nworker = 2\n").unwrap();
    insta::assert_snapshot!(run(args).shown(&replace), @r"
    exit 64
    --- stdout
    --- stderr
    error: DIR/placet.toml: line 2: `listen_on` is no setting
     hint: did you mean `listen`?
    ");
}

#[test]
fn what_is_not_given_is_named_with_all_ways_to_give_it() {
    insta::assert_snapshot!(run(["serve"]).shown(&[]), @r#"
    exit 64
    --- stdout
    --- stderr
    error: `--bundle` is not given
     hint: give `--bundle PATH`, set PLACET_BUNDLE, or write `bundle = "..."` in the file of `--config`
    "#);
}

#[test]
fn plain_text_stays_on_this_machine() {
    insta::assert_snapshot!(serve(&["--listen", "0.0.0.0:0"]).shown(&[]), @r"
    exit 64
    --- stdout
    --- stderr
    error: `listen` is 0.0.0.0:0, which other machines can reach, but no certificates are given
     hint: listen on 127.0.0.1, or give `tls-cert`, `tls-key` and `tls-client-ca`
    ");
    insta::assert_snapshot!(serve(&["--http", "0.0.0.0:0"]).shown(&[]), @r"
    exit 64
    --- stdout
    --- stderr
    error: `http` is 0.0.0.0:0, which other machines can reach, but no certificates are given
     hint: listen on 127.0.0.1, or give `tls-cert`, `tls-key` and `tls-client-ca`
    ");
}

#[test]
fn a_part_of_the_tls_files_is_not_enough() {
    insta::assert_snapshot!(serve(&["--tls-cert", "c.pem"]).shown(&[]), @r"
    exit 64
    --- stdout
    --- stderr
    error: only a part of the TLS files is given
     hint: give `--tls-cert`, `--tls-key` and `--tls-client-ca`, or none
    ");
}

#[test]
fn a_port_in_use_is_said_before_a_store_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("placet.db");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = serve(&["--listen", &address, "--store", store.to_str().unwrap()]);
    insta::assert_snapshot!(ran.shown(&[(&address, "ADDRESS")]), @r"
    exit 1
    --- stdout
    --- stderr
    error: cannot listen on ADDRESS for gRPC: Address already in use (os error 98)
     hint: another process listens there; stop it, or choose another port
    ");
    assert!(!store.exists());
}

#[test]
fn a_missing_bundle_is_named() {
    let args = ["serve", "--bundle", "nowhere", "--facts", "policies/reference/facts.yaml"];
    let free = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    insta::assert_snapshot!(run(args.iter().chain(&free)).shown(&[]), @r"
    exit 1
    --- stdout
    --- stderr
    error: the bundle `nowhere` cannot be served: cannot read `nowhere`: No such file or directory (os error 2)
     hint: name the directory or the archive of the bundle with --bundle
    ");
}

#[test]
fn a_foreign_store_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("placet.db");
    std::fs::write(&store, "this is somebody's diary\n".repeat(100)).unwrap();
    let (path, keys) = (store.to_str().unwrap(), directory.path().join("keys"));
    let free = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", path];
    let ran = serve(&[&free[..], &["--keys", keys.to_str().unwrap()]].concat());
    let replace = [(directory.path().to_str().unwrap(), "DIR")];
    insta::assert_snapshot!(ran.shown(&replace), @r"
    exit 1
    --- stdout
    --- stderr
    error: the store `DIR/placet.db` cannot be opened: is not a Placet store: it is no SQLite database
     hint: name another file, which is created if absent; if this was a store, it is damaged: restore it from a copy
    ");
    assert!(std::fs::read_to_string(&store).unwrap().starts_with("this is somebody's diary"));
}
