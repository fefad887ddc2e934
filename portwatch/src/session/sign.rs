//! Keys that sign the batches of a session and check them: ed25519, in the files that
//! `ssh-keygen -t ed25519` makes.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use ssh_key::private::KeypairData;
use ssh_key::{HashAlg, PrivateKey, PublicKey as SshKey};

/// Stands before the hash in what is signed, so that no signature made for anything else fits.
const DOMAIN: &[u8] = b"portwatch session v1\0";
/// Key files are far smaller.
const LONGEST: u64 = 64 << 10;

/// Signs.
pub struct SecretKey {
    key: SigningKey,
    /// Others than its owner may read the file.
    exposed: bool,
}

/// Checks signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    /// What ssh-keygen -l shows: `SHA256:…`.
    fingerprint: String,
}

impl SecretKey {
    /// # Errors
    /// When the file cannot be read, is no ed25519 key of OpenSSH, or is locked by a passphrase.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display();
        let mut file = File::open(path).with_context(|| format!("opening the key {name}"))?;
        let metadata = file.metadata().with_context(|| format!("reading {name}"))?;
        let text = read(&mut file, path)?;
        ensure!(
            !text.starts_with("ssh-"),
            "{name} is a public key: signing takes the secret one, the file without .pub"
        );
        let Ok(key) = PrivateKey::from_openssh(&text) else {
            bail!(
                "{name} is not a key of OpenSSH: make one with ssh-keygen -t ed25519 -N '' -f FILE"
            );
        };
        ensure!(
            !key.is_encrypted(),
            "{name} is locked by a passphrase: use a key without one, or take it off a copy with ssh-keygen -p -N '' -f COPY"
        );
        let KeypairData::Ed25519(pair) = key.key_data() else {
            bail!(
                "{name} is not an ed25519 key: make one with ssh-keygen -t ed25519 -N '' -f FILE"
            );
        };
        let key = SigningKey::try_from(pair);
        Ok(Self {
            key: key.map_err(|error| anyhow::anyhow!("{name} is damaged: {error}"))?,
            exposed: metadata.permissions().mode() & 0o077 != 0,
        })
    }

    /// Whether others than its owner may read or change the file; worth a warning.
    pub fn is_exposed(&self) -> bool {
        self.exposed
    }

    /// The signature of the hash of a batch, 64 bytes.
    pub fn sign(&self, hash: &[u8; 32]) -> Vec<u8> {
        self.key.sign(&signed(hash)).to_bytes().into()
    }

    /// Whether this key made the signature of this hash.
    pub fn made(&self, hash: &[u8; 32], signature: &[u8]) -> bool {
        is_signed(&self.key.verifying_key(), hash, signature)
    }
}

impl PublicKey {
    /// From a file, or from the text of one: `ssh-ed25519 AAAA…`.
    ///
    /// # Errors
    /// When it cannot be read, or is no ed25519 key.
    pub fn load(given: &str) -> Result<Self> {
        if given.starts_with("ssh-") {
            return Self::parse(given.trim(), "the key given");
        }
        let path = Path::new(given);
        let mut file = File::open(path).with_context(|| {
            format!("opening the key {given}, which is no text of a key either")
        })?;
        let text = read(&mut file, path)?;
        ensure!(
            !text.starts_with("-----BEGIN"),
            "{given} is a secret key: checking takes the public one, {given}.pub"
        );
        Self::parse(text.trim(), given)
    }

    fn parse(text: &str, name: &str) -> Result<Self> {
        let Ok(key) = SshKey::from_openssh(text) else {
            bail!("{name} is not a public key of OpenSSH: one begins with ssh-ed25519");
        };
        let bytes = key.key_data().ed25519();
        let bytes = bytes.with_context(|| format!("{name} is not an ed25519 key"))?;
        Ok(Self {
            key: VerifyingKey::from_bytes(&bytes.0)
                .map_err(|error| anyhow::anyhow!("{name} is damaged: {error}"))?,
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        })
    }

    /// Whether this key made the signature of this hash.
    pub fn check(&self, hash: &[u8; 32], signature: &[u8]) -> bool {
        is_signed(&self.key, hash, signature)
    }

    /// As `ssh-keygen -l` shows it: `SHA256:…`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

fn signed(hash: &[u8; 32]) -> Vec<u8> {
    [DOMAIN, hash].concat()
}

fn read(file: &mut File, path: &Path) -> Result<String> {
    let name = path.display();
    let mut bytes = Vec::new();
    (file.take(LONGEST + 1).read_to_end(&mut bytes))
        .with_context(|| format!("reading the key {name}"))?;
    match String::from_utf8(bytes) {
        Ok(text) if text.len() as u64 <= LONGEST => Ok(text),
        _ => bail!("{name} is not a key"),
    }
}

fn is_signed(key: &VerifyingKey, hash: &[u8; 32], signature: &[u8]) -> bool {
    let signature = Signature::from_slice(signature);
    signature.is_ok_and(|signature| key.verify_strict(&signed(hash), &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    use super::*;

    /// Made by ssh-keygen for this test.
    const SECRET: &str = include_str!("../../tests/keys/ed25519");
    const PUBLIC: &str = include_str!("../../tests/keys/ed25519.pub");
    const OTHER: &str = include_str!("../../tests/keys/other.pub");
    const LOCKED: &str = include_str!("../../tests/keys/locked");
    const ECDSA: &str = include_str!("../../tests/keys/ecdsa");

    fn file(folder: &tempfile::TempDir, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, mode).unwrap();
        path
    }

    #[test]
    fn what_one_key_signed_its_other_half_accepts_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let secret = SecretKey::load(&file(&folder, "key", SECRET, 0o600)).unwrap();
        let public = PublicKey::load(PUBLIC).unwrap();
        let hash = [7; 32];
        let signature = secret.sign(&hash);
        assert_eq!(signature.len(), 64);
        assert!(public.check(&hash, &signature));
        assert!(!PublicKey::load(OTHER).unwrap().check(&hash, &signature));
        assert!(!public.check(&[8; 32], &signature));
        assert!(!public.check(&hash, &signature[..63]));
        for byte in 0..64 {
            let mut altered = signature.clone();
            altered[byte] ^= 1;
            assert!(!public.check(&hash, &altered), "{byte}");
        }
        // what was signed without the words before the hash is no signature here
        let bare = secret.key.sign(&hash).to_bytes();
        assert!(!public.check(&hash, &bare));
    }

    #[test]
    fn a_public_key_is_a_file_or_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(&folder, "key.pub", PUBLIC, 0o644);
        let of_file = PublicKey::load(path.to_str().unwrap()).unwrap();
        assert_eq!(of_file, PublicKey::load(PUBLIC).unwrap());
        let fingerprint = include_str!("../../tests/keys/ed25519.fingerprint");
        assert_eq!(of_file.fingerprint(), fingerprint.trim());
    }

    #[test]
    fn a_key_that_others_can_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, exposed) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            let key = SecretKey::load(&file(&folder, &format!("{mode:o}"), SECRET, mode)).unwrap();
            assert_eq!(key.is_exposed(), exposed, "{mode:o}");
        }
    }

    #[test]
    fn other_keys_are_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let cut = &SECRET[..SECRET.len() / 2];
        for (name, content, expected) in [
            ("public", PUBLIC, "takes the secret one"),
            ("locked", LOCKED, "ssh-keygen -p -N ''"),
            ("ecdsa", ECDSA, "is not"),
            ("cut", cut, "is not a key of OpenSSH"),
            ("empty", "", "is not a key of OpenSSH"),
            (
                "text",
                "untrusted comment: minisign",
                "is not a key of OpenSSH",
            ),
        ] {
            let error = SecretKey::load(&file(&folder, name, content, 0o600)).err();
            let told = format!("{:#}", error.expect(name));
            assert!(told.contains(expected), "{name}: {told}");
        }
        let told = format!(
            "{:#}",
            SecretKey::load(Path::new("/dev/zero")).err().unwrap()
        );
        assert!(told.contains("is not a key"), "{told}");
        for (given, expected) in [
            (SECRET, "opening the key"),
            ("ssh-ed25519 AAAA", "is not a public key of OpenSSH"),
            ("ssh-rsa AAAA", "is not a public key of OpenSSH"),
            ("/nowhere/key.pub", "opening the key"),
        ] {
            let told = format!("{:#}", PublicKey::load(given).unwrap_err());
            assert!(told.contains(expected), "{given}: {told}");
        }
        let secret = file(&folder, "secret", SECRET, 0o600);
        let told = format!(
            "{:#}",
            PublicKey::load(secret.to_str().unwrap()).unwrap_err()
        );
        assert!(told.contains("checking takes the public one"), "{told}");
    }
}
