//! Signatures of the Standard Webhooks specification, version 1.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// `v1,` and the base64 of HMAC-SHA-256 of `{id}.{seconds}.{body}`.
pub fn sign(secret: &[u8; 32], id: &str, seconds: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    for part in [id, ".", &seconds.to_string(), ".", body] {
        mac.update(part.as_bytes());
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// A secret as it is told to its owner: `whsec_` and base64.
pub struct SecretText<'a>(pub &'a [u8; 32]);

impl fmt::Display for SecretText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "whsec_{}", STANDARD.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's hmac, hashlib and base64.
    #[test]
    fn a_signature_is_the_one_of_the_specification() {
        let secret: [u8; 32] = std::array::from_fn(|i| i as u8);
        let signature = sign(&secret, "msg_1", 1_700_000_000, "{\"a\":1}");
        assert_eq!(signature, "v1,AMaOha7DUT/0J0JMycRuYOBSvbx3WtwLd2khXXbaVj4=");
        assert_eq!(SecretText(&secret).to_string(), "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    }
}
