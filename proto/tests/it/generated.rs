//! Regenerates the Rust code and the descriptors, without `protoc`, and compares them with what is
//! checked in. `PLACET_UPDATE=1 cargo test -p placet-proto` rewrites them.

use std::fs;
use std::path::Path;

const FILES: [&str; 5] =
    [SERVICES[0], SERVICES[1], SERVICES[2], SERVICES[3], "placet/policy/v1/input.proto"];
const SERVICES: [&str; 4] = [
    "placet/admission/v1/admission.proto",
    "placet/control/v1/control.proto",
    "placet/ledger/v1/ledger.proto",
    "placet/audit/v1/audit.proto",
];
const GENERATED: [&str; 5] = [
    "placet.admission.v1.rs",
    "placet.audit.v1.rs",
    "placet.control.v1.rs",
    "placet.ledger.v1.rs",
    "placet.bin",
];

/// Generates into a directory.
fn generate(root: &Path, out: &Path) {
    let mut bare = protox::Compiler::new([root]).expect("the directory is readable");
    bare.include_imports(true).open_files(FILES).expect("the contracts compile");
    fs::write(out.join("placet.bin"), bare.encode_file_descriptor_set())
        .expect("the descriptors are written");

    // Comments become Rust documentation; the descriptors, linked into every binary, go without.
    let services = protox::compile(SERVICES, [root]).expect("the services compile");
    let mut settings = tonic_prost_build::Config::new();
    settings.enable_type_names();
    tonic_prost_build::configure()
        .codec_path("crate::StrictCodec")
        .out_dir(out)
        .compile_fds_with_config(services, settings)
        .expect("the code is generated");
}

#[test]
fn the_checked_in_code_is_what_the_contracts_generate() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().expect("a temporary directory");
    generate(root, fresh.path());
    for name in GENERATED {
        let kept = root.join("src/generated").join(name);
        let new = fs::read(fresh.path().join(name)).expect("generated just now");
        if std::env::var_os("PLACET_UPDATE").is_some() {
            fs::write(&kept, &new).expect("the generated directory is writable");
        }
        let old = fs::read(&kept).unwrap_or_default();
        assert!(old == new, "{name} drifted; run PLACET_UPDATE=1 cargo test -p placet-proto");
    }
}
