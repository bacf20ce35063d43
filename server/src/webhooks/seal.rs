//! Secrets of webhooks as they lie in the database: where artifacts are encrypted, so are they, with the same keys.
//!
//! `magic (8 bytes) ‖ id of the key (8) ‖ nonce (12, random) ‖ AES-256-GCM-SIV of the 32 bytes, with its tag (16)`. Magic, key id, tenant and the webhook's id
//! are associated data: what was sealed for one webhook opens for no other. Without keys the 32 bytes are stored as they are, and such a row stays readable
//! when there are keys; the two are told by their lengths.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::artifacts::{ArtifactKey, ArtifactKeys};
use crate::secret::Secret;

const MAGIC: &[u8; 8] = b"ZKHOOK1\0";
const KEY_ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = MAGIC.len() + KEY_ID_BYTES;
const SEALED_BYTES: usize = HEADER_BYTES + NONCE_LEN + SECRET_BYTES + TAG_BYTES;

/// Why a stored secret cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    /// It is under a key that is not there.
    #[error("the webhook's secret is encrypted with an artifact key that is not there; add that key to --artifact-key again")]
    NoKey,
    /// It is another webhook's, or changed.
    #[error("the webhook's stored secret is damaged; the webhook must be deleted and made again")]
    Damaged,
}

/// Seals and opens secrets of webhooks.
#[derive(Debug, Clone, Default)]
pub struct WebhookSeal(Option<ArtifactKeys>);

impl WebhookSeal {
    /// With the keys of artifacts; without any, secrets are stored as they are.
    pub fn new(keys: Option<ArtifactKeys>) -> Self {
        Self(keys)
    }

    /// The secret of a webhook as it is stored.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn seal(&self, secret: &Secret, tenant: &str, webhook: &str) -> Result<Zeroizing<Vec<u8>>, getrandom::Error> {
        let Some(key) = self.0.as_ref().and_then(|keys| keys.iter().next()) else { return Ok(Zeroizing::new(secret.expose().to_vec())) };
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce)?;
        let mut sealed = Zeroizing::new(Vec::with_capacity(SEALED_BYTES));
        sealed.extend_from_slice(MAGIC);
        sealed.extend_from_slice(&key.id);
        let bound = associated(&sealed, tenant, webhook);
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

    /// The secret of a webhook from what is stored.
    ///
    /// # Errors
    /// See [`Unsealed`].
    pub fn open(&self, stored: &[u8], tenant: &str, webhook: &str) -> Result<Secret, Unsealed> {
        if let Ok(clear) = <&[u8; SECRET_BYTES]>::try_from(stored) {
            return copied(clear);
        }
        let (header, rest) = stored.split_at_checked(HEADER_BYTES).ok_or(Unsealed::Damaged)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Unsealed::Damaged)?;
        let id = header.strip_prefix(MAGIC).filter(|_| stored.len() == SEALED_BYTES).ok_or(Unsealed::Damaged)?;
        let key = self.0.as_ref().and_then(|keys| keys.iter().find(|key| key.id == id)).ok_or(Unsealed::NoKey)?;
        let mut text = Zeroizing::new(text.to_vec());
        let bound = associated(header, tenant, webhook);
        let opened = cipher(key).open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound), &mut text);
        let opened: &[u8; SECRET_BYTES] = opened.ok().and_then(|opened| (&*opened).try_into().ok()).ok_or(Unsealed::Damaged)?;
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

/// The header, and whose secret it is: no two webhooks give the same.
fn associated(header: &[u8], tenant: &str, webhook: &str) -> Vec<u8> {
    let tenant_bytes = (tenant.len() as u64).to_be_bytes();
    [header, &tenant_bytes, tenant.as_bytes(), webhook.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::numbered_keys;

    const SECRET: [u8; 32] = [7; 32];

    fn seal(numbers: &[u8]) -> WebhookSeal {
        WebhookSeal::new(Some(numbered_keys(numbers)))
    }

    fn opened(seal: &WebhookSeal, stored: &[u8], tenant: &str, webhook: &str) -> Result<[u8; 32], Unsealed> {
        seal.open(stored, tenant, webhook).map(|secret| *secret.expose())
    }

    #[test]
    fn a_secret_opens_for_its_webhook_alone() {
        let seal = seal(&[1]);
        let stored = seal.seal(&SECRET.into(), "acme", "hook").unwrap();
        assert_eq!(opened(&seal, &stored, "acme", "hook"), Ok(SECRET));
        assert!(!stored.windows(4).any(|window| window == [7; 4]));
        for (tenant, webhook) in [("acme", "hooc"), ("acne", "hook"), ("acm", "ehook"), ("acmeh", "ook"), ("", "acmehook")] {
            assert_eq!(opened(&seal, &stored, tenant, webhook), Err(Unsealed::Damaged), "{tenant} {webhook}");
        }
        let again = seal.seal(&SECRET.into(), "acme", "hook").unwrap();
        assert_ne!(*stored, *again, "nobody sees that two are equal");
    }

    #[test]
    fn a_secret_that_was_changed_in_one_byte_or_cut_does_not_open() {
        let seal = seal(&[1]);
        let stored = seal.seal(&SECRET.into(), "acme", "hook").unwrap();
        for at in 0..stored.len() {
            let mut changed = stored.clone();
            changed[at] ^= 1;
            let expected = if (8..16).contains(&at) { Unsealed::NoKey } else { Unsealed::Damaged };
            assert_eq!(opened(&seal, &changed, "acme", "hook"), Err(expected), "byte {at}");
        }
        for length in (0..stored.len()).filter(|length| *length != SECRET_BYTES) {
            assert_eq!(opened(&seal, &stored[..length], "acme", "hook"), Err(Unsealed::Damaged), "{length} bytes");
        }
        assert_eq!(opened(&seal, &[&stored[..], &[0]].concat(), "acme", "hook"), Err(Unsealed::Damaged));
    }

    #[test]
    fn older_keys_and_what_was_stored_without_any_stay_readable() {
        let clear = WebhookSeal::default().seal(&SECRET.into(), "acme", "hook").unwrap();
        assert_eq!(*clear, SECRET);
        let old = seal(&[1]).seal(&SECRET.into(), "acme", "hook").unwrap();
        for (number, stored) in [clear, old.clone()].iter().enumerate() {
            assert_eq!(opened(&seal(&[2, 1]), stored, "acme", "hook"), Ok(SECRET), "{number}");
        }
        let new = seal(&[2, 1]).seal(&SECRET.into(), "acme", "hook").unwrap();
        assert_eq!(opened(&seal(&[1]), &new, "acme", "hook"), Err(Unsealed::NoKey), "the first key encrypts");
        assert_eq!(opened(&WebhookSeal::default(), &old, "acme", "hook"), Err(Unsealed::NoKey));
    }
}
