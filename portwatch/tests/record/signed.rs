//! Recordings whose batches are signed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use portwatch::session::{self, PublicKey};

use crate::{NETWORK, number, outcome, place, record};

pub fn signed_appended() {
    let (_folder, file) = place();
    let key = |name: &str| format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    let says = |args: &[&str]| {
        let always = ["--from", "poll", "-d", "100ms"];
        let (code, _, stderr) = outcome(record(&file, &[&always, args].concat()).output().unwrap());
        (code, stderr)
    };
    let secret = key("ed25519");
    let (code, stderr) = says(&["--sign", &secret]);
    assert_eq!(code, Some(0), "{stderr}");
    let before = std::fs::read(&file).unwrap();
    let (code, stderr) = says(&["--append"]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("give --sign KEY, or record into a new file"),
        "{stderr}"
    );
    assert!(std::fs::read(&file).unwrap() == before, "it was touched");
    let (code, stderr) = says(&["--append", "--sign", &secret]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains("verify --key"), "{stderr}");
    assert_eq!(
        number(
            &file,
            "SELECT count(*) FROM raw_batch WHERE signature IS NULL"
        ),
        0
    );
    let (code, stderr) = says(&["--append", "--sign", &key("other")]);
    assert_eq!(code, Some(0), "{stderr}");
    let told = "holds already is signed by another key: verify --key will not accept all";
    assert!(stderr.contains(told), "{stderr}");
}

pub fn signed() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys");
    let (folder, file) = place();
    let secret = folder.path().join("key");
    std::fs::copy(keys.join("ed25519"), &secret).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let args = [
        "--sign",
        secret.to_str().unwrap(),
        "--",
        "python3",
        "-c",
        NETWORK,
    ];
    let (code, _, stderr) = outcome(record(&file, &args).output().unwrap());
    assert_eq!(code, Some(7), "{stderr}");
    for (key, good) in [("ed25519.pub", true), ("other.pub", false)] {
        let key = PublicKey::load(keys.join(key).to_str().unwrap()).unwrap();
        let check = |hash: &[u8; 32], signature: &[u8]| key.check(hash, signature);
        let verdict = session::verify(&file, Some(&check)).unwrap();
        assert_eq!(verdict.fault.is_none(), good, "{verdict:?}");
        assert_eq!(
            verdict.signed == verdict.batches && verdict.signed > 0,
            good
        );
    }
}
