//! Download tokens: a keyed hash over the recording and the expiry time; none is stored.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use aws_lc_rs::{hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use aftertone_core::model::{RecordingId, SteadyMillis};

/// The secret that tokens are made from; it outlives the process.
pub struct AccessKey(hmac::Key);

const FILE: &str = ".access-key";
const SECRET_BYTES: usize = 32;

impl AccessKey {
    /// Reads the secret of a folder, or creates it. Two processes that create it at once get the
    /// same one.
    ///
    /// # Errors
    /// The file cannot be read or written, or does not hold a secret.
    pub fn load_or_create(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join(FILE);
        if !path.exists() {
            let mut secret = [0; SECRET_BYTES];
            rand::fill(&mut secret).map_err(|_| io::Error::other("no random bytes"))?;
            let fresh = folder.join(format!("{FILE}.{}", std::process::id()));
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&fresh)?;
            file.write_all(&secret)?;
            file.sync_all()?;
            // The first process that makes the link has set the secret.
            match fs::hard_link(&fresh, &path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
            fs::remove_file(&fresh)?;
            fs::File::open(folder)?.sync_all()?;
        }
        Self::load(folder)
    }

    /// Reads the secret of a folder.
    ///
    /// # Errors
    /// There is none, or the file cannot be read or does not hold a secret.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        let mut secret = Vec::new();
        OpenOptions::new().read(true).open(&path)?.take(1024).read_to_end(&mut secret)?;
        if secret.len() != SECRET_BYTES {
            let message = format!("{} does not hold {SECRET_BYTES} bytes", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
    }

    /// A token that opens `recording` until `expires`. Only this server reads the time in the
    /// token, so it is steady time.
    pub fn token(&self, recording: RecordingId, expires: SteadyMillis) -> String {
        let mut bytes = expires.0.to_be_bytes().to_vec();
        bytes.extend(hmac::sign(&self.0, &signed(recording, expires)).as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether a token opens `recording` at the time `now`. Takes the same time for every token of
    /// the right length.
    pub fn check(&self, recording: RecordingId, token: &str, now: SteadyMillis) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let Some((expires, tag)) = bytes.split_first_chunk::<8>() else { return false };
        let expires = SteadyMillis(i64::from_be_bytes(*expires));
        hmac::verify(&self.0, &signed(recording, expires), tag).is_ok() && now < expires
    }

    /// The secret for the tokens of the API, which does not open recordings.
    pub fn signing_secret(&self) -> Vec<u8> {
        hmac::sign(&self.0, b"aftertone api tokens").as_ref().to_vec()
    }
}

fn signed(recording: RecordingId, expires: SteadyMillis) -> Vec<u8> {
    format!("aftertone recording {recording} {}", expires.0).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_recording_until_its_end_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let id = RecordingId::from_random([1; 16]);
        let other = RecordingId::from_random([2; 16]);
        let token = AccessKey::load_or_create(folder.path()).unwrap().token(id, SteadyMillis(1000));
        let key = AccessKey::load_or_create(folder.path()).unwrap();
        assert!(key.check(id, &token, SteadyMillis(999)));
        assert!(!key.check(id, &token, SteadyMillis(1000)));
        assert!(!key.check(other, &token, SteadyMillis(999)));
    }

    #[test]
    fn a_changed_token_opens_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let key = AccessKey::load_or_create(folder.path()).unwrap();
        let id = RecordingId::from_random([1; 16]);
        let token = key.token(id, SteadyMillis(1000));
        for index in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(!key.check(id, &changed, SteadyMillis(0)), "{index}");
        }
        for nonsense in ["", "x", "AAAA", &token[1..]] {
            assert!(!key.check(id, nonsense, SteadyMillis(0)));
        }
    }

    #[test]
    fn a_file_that_is_no_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), b"short").unwrap();
        assert!(AccessKey::load_or_create(folder.path()).is_err());
    }
}
