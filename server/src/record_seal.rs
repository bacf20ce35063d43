//! Secrets as they lie in the database: where artifacts are encrypted, so are they, with the same keys.
//!
//! `magic (8 bytes) ‖ id of the key (8) ‖ nonce (12, random) ‖ AES-256-GCM-SIV of the 32 bytes, with its tag (16)`. The magic says what the secret is; it, the
//! key's id, and tenant and id of the webhook, model or job are associated data: what was sealed for one opens for no other, and a salt is no seed. Without keys
//! the 32 bytes are stored as they are, and such a row stays readable when there are keys; the two are told by their lengths.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::artifacts::{ArtifactKey, ArtifactKeys};
use crate::secret::Secret;

const MAGIC_BYTES: usize = 8;
const KEY_ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = MAGIC_BYTES + KEY_ID_BYTES;
const SEALED_BYTES: usize = HEADER_BYTES + NONCE_LEN + SECRET_BYTES + TAG_BYTES;

/// What a secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// Key of a webhook's signatures.
    Webhook,
    /// Salt of a model's commitment.
    ModelSalt,
    /// Seed of a model's registration.
    ModelSeed,
    /// Salt of the commitment to a job's input.
    JobSalt,
    /// Seed of a job's proof.
    JobSeed,
}

impl SecretKind {
    /// Part of what lies in databases: it stays.
    fn magic(self) -> &'static [u8; MAGIC_BYTES] {
        match self {
            Self::Webhook => b"ZKHOOK1\0",
            Self::ModelSalt => b"ZKMSLT1\0",
            Self::ModelSeed => b"ZKMSED1\0",
            Self::JobSalt => b"ZKJSLT1\0",
            Self::JobSeed => b"ZKJSED1\0",
        }
    }

    /// What to do if it is damaged.
    fn remedy(self) -> &'static str {
        match self {
            Self::Webhook => "the webhook must be deleted and made again",
            Self::ModelSalt | Self::ModelSeed => "the model must be registered again, under another id",
            Self::JobSalt | Self::JobSeed => "the job must be cancelled and sent again",
        }
    }
}

impl fmt::Display for SecretKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Webhook => "the webhook's secret",
            Self::ModelSalt => "the model's salt",
            Self::ModelSeed => "the model's seed",
            Self::JobSalt => "the job's input salt",
            Self::JobSeed => "the job's seed",
        })
    }
}

/// The place of a secret.
#[derive(Debug, Clone, Copy)]
pub struct SecretPlace<'a> {
    /// What it is.
    pub kind: SecretKind,
    /// Whose.
    pub tenant: &'a str,
    /// Of which webhook, model or job.
    pub id: &'a str,
}

/// Why a stored secret cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    /// It is under a key that is not there.
    #[error("{0} is encrypted with an artifact key that is not there; add that key to --artifact-key again")]
    NoKey(SecretKind),
    /// It is another's, or changed.
    #[error("{0} is damaged as it is stored; {remedy}", remedy = .0.remedy())]
    Damaged(SecretKind),
}

/// Seals and opens secrets. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RecordSeal(Option<ArtifactKeys>);

impl RecordSeal {
    /// With the keys of artifacts; without any, secrets are stored as they are.
    pub fn new(keys: Option<ArtifactKeys>) -> Self {
        Self(keys)
    }

    /// A secret as it is stored in its place.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn seal(&self, secret: &Secret, place: SecretPlace<'_>) -> Result<Zeroizing<Vec<u8>>, getrandom::Error> {
        let Some(key) = self.0.as_ref().and_then(|keys| keys.iter().next()) else { return Ok(Zeroizing::new(secret.expose().to_vec())) };
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce)?;
        let mut sealed = Zeroizing::new(Vec::with_capacity(SEALED_BYTES));
        sealed.extend_from_slice(place.kind.magic());
        sealed.extend_from_slice(&key.id);
        let bound = associated(&sealed, place);
        sealed.extend_from_slice(&nonce);
        let start = sealed.len();
        sealed.extend_from_slice(secret.expose());
        let (_, text) = sealed.split_at_mut(start);
        let tag = cipher(key)
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound), text)
            .expect("32 bytes are far fewer than what the cipher takes");
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// The secret of a place from what is stored there.
    ///
    /// # Errors
    /// See [`Unsealed`].
    pub fn open(&self, stored: &[u8], place: SecretPlace<'_>) -> Result<Secret, Unsealed> {
        let damaged = Unsealed::Damaged(place.kind);
        if let Ok(clear) = <&[u8; SECRET_BYTES]>::try_from(stored) {
            return copied(clear);
        }
        let (header, rest) = stored.split_at_checked(HEADER_BYTES).ok_or(damaged)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or(damaged)?;
        let id = header.strip_prefix(place.kind.magic()).filter(|_| stored.len() == SEALED_BYTES).ok_or(damaged)?;
        let key = self.0.as_ref().and_then(|keys| keys.iter().find(|key| key.id == id)).ok_or(Unsealed::NoKey(place.kind))?;
        let mut text = Zeroizing::new(text.to_vec());
        let bound = associated(header, place);
        let opened = cipher(key).open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound), &mut text);
        let opened: &[u8; SECRET_BYTES] = opened.ok().and_then(|opened| (&*opened).try_into().ok()).ok_or(damaged)?;
        copied(opened)
    }
}

fn copied(bytes: &[u8; SECRET_BYTES]) -> Result<Secret, Unsealed> {
    Secret::make(|place| {
        place.copy_from_slice(bytes);
        Ok(())
    })
}

fn cipher(key: &ArtifactKey) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &*key.of_records).expect("the key has the length that the cipher takes"))
}

/// The header, which tells what it is, and whose: no two places give the same.
fn associated(header: &[u8], SecretPlace { tenant, id, .. }: SecretPlace<'_>) -> Vec<u8> {
    let tenant_bytes = (tenant.len() as u64).to_be_bytes();
    [header, &tenant_bytes, tenant.as_bytes(), id.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::SecretKind::{JobSalt, JobSeed, ModelSalt, ModelSeed, Webhook};
    use super::*;
    use crate::artifacts::numbered_keys;

    const SECRET: [u8; 32] = [7; 32];
    const PLACE: SecretPlace<'static> = SecretPlace { kind: JobSeed, tenant: "acme", id: "job" };

    fn seal(numbers: &[u8]) -> RecordSeal {
        RecordSeal::new(Some(numbered_keys(numbers)))
    }

    fn opened(seal: &RecordSeal, stored: &[u8], place: SecretPlace<'_>) -> Result<[u8; 32], Unsealed> {
        seal.open(stored, place).map(|secret| *secret.expose())
    }

    #[test]
    fn a_secret_opens_in_its_place_alone() {
        let seal = seal(&[1]);
        for kind in [Webhook, ModelSalt, ModelSeed, JobSalt, JobSeed] {
            let place = SecretPlace { kind, ..PLACE };
            let stored = seal.seal(&SECRET.into(), place).unwrap();
            assert_eq!(opened(&seal, &stored, place), Ok(SECRET));
            assert!(!stored.windows(4).any(|window| window == [7; 4]));
            for (tenant, id) in [("acme", "joc"), ("acne", "job"), ("acm", "ejob"), ("acmej", "ob"), ("", "acmejob")] {
                assert_eq!(opened(&seal, &stored, SecretPlace { kind, tenant, id }), Err(Unsealed::Damaged(kind)), "{tenant} {id}");
            }
            for other in [Webhook, ModelSalt, ModelSeed, JobSalt, JobSeed].into_iter().filter(|other| *other != kind) {
                let place = SecretPlace { kind: other, ..PLACE };
                assert_eq!(opened(&seal, &stored, place), Err(Unsealed::Damaged(other)), "{kind:?}");
                // Also where what it says it is was changed.
                let renamed = [other.magic().as_slice(), &stored[MAGIC_BYTES..]].concat();
                assert_eq!(opened(&seal, &renamed, place), Err(Unsealed::Damaged(other)), "{kind:?}");
            }
            let again = seal.seal(&SECRET.into(), place).unwrap();
            assert_ne!(*stored, *again, "nobody sees that two are equal");
        }
    }

    #[test]
    fn a_secret_that_was_changed_in_one_byte_or_cut_does_not_open() {
        let seal = seal(&[1]);
        let (no_key, damaged) = (Unsealed::NoKey(JobSeed), Unsealed::Damaged(JobSeed));
        let stored = seal.seal(&SECRET.into(), PLACE).unwrap();
        for at in 0..stored.len() {
            let mut changed = stored.clone();
            changed[at] ^= 1;
            let expected = if (8..16).contains(&at) { no_key } else { damaged };
            assert_eq!(opened(&seal, &changed, PLACE), Err(expected), "byte {at}");
        }
        for length in (0..stored.len()).filter(|length| *length != SECRET_BYTES) {
            assert_eq!(opened(&seal, &stored[..length], PLACE), Err(damaged), "{length} bytes");
        }
        assert_eq!(opened(&seal, &[&stored[..], &[0]].concat(), PLACE), Err(damaged));
    }

    #[test]
    fn older_keys_and_what_was_stored_without_any_stay_readable() {
        let clear = RecordSeal::default().seal(&SECRET.into(), PLACE).unwrap();
        assert_eq!(*clear, SECRET);
        let old = seal(&[1]).seal(&SECRET.into(), PLACE).unwrap();
        for (number, stored) in [clear, old.clone()].iter().enumerate() {
            assert_eq!(opened(&seal(&[2, 1]), stored, PLACE), Ok(SECRET), "{number}");
        }
        let new = seal(&[2, 1]).seal(&SECRET.into(), PLACE).unwrap();
        assert_eq!(opened(&seal(&[1]), &new, PLACE), Err(Unsealed::NoKey(JobSeed)), "the first key encrypts");
        assert_eq!(opened(&RecordSeal::default(), &old, PLACE), Err(Unsealed::NoKey(JobSeed)));
    }

    /// As another implementation of BLAKE3 and AES-256-GCM-SIV writes it.
    #[test]
    fn the_secret_of_a_webhook_opens_from_the_bytes_of_its_format() {
        let stored = "5a4b484f4f4b3100 0c5c49bee0f701c4 000102030405060708090a0b 7d5ee865138676093fb3a6d942d8ea5488fe0e66ca03df6949231bfc2a3a5934 \
                      5e5fc4430d0046c8196b429f9733922c";
        let stored = hex::decode(stored.replace(' ', "")).unwrap();
        assert_eq!(opened(&seal(&[1]), &stored, SecretPlace { kind: Webhook, tenant: "acme", id: "hook" }), Ok(SECRET));
    }

    #[test]
    fn what_cannot_be_opened_is_named_with_what_to_do() {
        assert_eq!(
            Unsealed::NoKey(JobSalt).to_string(),
            "the job's input salt is encrypted with an artifact key that is not there; add that key to --artifact-key again"
        );
        assert_eq!(
            Unsealed::Damaged(Webhook).to_string(),
            "the webhook's secret is damaged as it is stored; the webhook must be deleted and made again"
        );
    }
}
