//! Sessions that are signed: whose they are, and who may add to them.

use std::path::Path;

use portwatch::session::{self, PublicKey, SecretKey};

use super::{make, name, prints, says};

pub fn keys() -> (SecretKey, PublicKey) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys");
    let secret = SecretKey::load(&Path::new(folder).join("ed25519")).unwrap();
    (secret, PublicKey::load(&key("ed25519.pub")).unwrap())
}

fn key(name: &str) -> String {
    format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn signatures_tell_whose_session_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let (secret, public) = keys();
    make::session(&path, Some(&secret));
    let text = prints(&["verify", name(&path)]);
    assert!(
        text.contains("signed, but not checked by whom: give --key"),
        "{text}"
    );
    let text = prints(&["verify", name(&path), "--key", &key("ed25519.pub")]);
    assert!(
        text.contains(&format!("is signed by {}", public.fingerprint())),
        "{text}"
    );

    let (code, text, _) = says(&["verify", name(&path), "--key", &key("other.pub")]);
    assert_eq!(code, 1);
    assert!(text.contains("FAULT in batch 1 (events 1 to 10, 2026-11-23T03:12:00.000000000Z to "));
    assert!(text.contains("its signature is not by this key"), "{text}");
    assert!(
        text.contains("nothing before that can be trusted"),
        "{text}"
    );

    // an unsigned batch behind signed ones
    make::run(&session::append(&path, Some(&secret)).unwrap(), None, true);
    assert_eq!(says(&["verify", name(&path)]).0, 0);
    let (code, text, _) = says(&["verify", name(&path), "--key", &key("ed25519.pub")]);
    assert_eq!(code, 1);
    assert!(
        text.contains("FAULT in batch 13 (events 102 to 111"),
        "{text}"
    );
    assert!(text.contains("it is not signed"), "{text}");
    assert!(
        text.contains("trustworthy up to there: 12 batches, 101 events"),
        "{text}"
    );

    for (key, expected) in [
        (key("ed25519"), "is a secret key"),
        ("nowhere.pub".into(), "opening the key nowhere.pub"),
    ] {
        let (code, _, stderr) = says(&["verify", name(&path), "--key", &key]);
        assert_eq!(code, 2);
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn a_signed_session_is_added_to_with_a_key_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let (secret, _) = keys();
    make::session(&path, Some(&secret));
    let told = format!("{:#}", session::append(&path, None).err().unwrap());
    assert!(
        told.contains("is signed, and what is added to it has to be: give --sign KEY"),
        "{told}"
    );
    make::run(
        &session::append(&path, Some(&secret)).unwrap(),
        Some(&secret),
        true,
    );
    prints(&["verify", name(&path), "--key", &key("ed25519.pub")]);
}
