//! The salt of a commitment to a hidden input, for who wants to open it later.

use std::fmt;

use zeroize::Zeroizing;
use zkinfer_circuits::encoding::parse_digest;
use zkinfer_circuits::field::Digest;
use zkinfer_circuits::recursion::digest::input_commitment;

/// Bytes of a salt.
const SALT_BYTES: usize = 32;

/// Salt of the commitment that a statement holds instead of a private input. With the salt and the input it can be shown what the statement is about; with
/// the salt alone inputs can be tried. Not printed, and wiped from memory when it is dropped; a request that carries it is not.
#[derive(Clone, PartialEq, Eq)]
pub struct InputSalt(Zeroizing<[u8; SALT_BYTES]>);

/// Why there is no salt.
#[derive(Debug, thiserror::Error)]
pub enum SaltError {
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness for a salt: {0}")]
    Entropy(getrandom::Error),
    /// Not four words of the field.
    #[error("the salt has eight bytes, little end first, that are not below 2^64 - 2^32 + 1; InputSalt::fresh makes a salt")]
    Words,
    /// The salt of public inputs.
    #[error("the salt is all zero, which hides nothing; InputSalt::fresh makes a salt")]
    Zero,
}

impl fmt::Debug for InputSalt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("InputSalt(hidden)")
    }
}

impl InputSalt {
    /// A new salt, from the operating system: 252 random bits.
    ///
    /// # Errors
    /// [`SaltError::Entropy`].
    pub fn fresh() -> Result<Self, SaltError> {
        let mut words = Zeroizing::new([0; SALT_BYTES]);
        getrandom::fill(&mut words[..]).map_err(SaltError::Entropy)?;
        for word in words.chunks_exact_mut(8) {
            // Below 2^63, and so below the field's order.
            word[7] &= 0x7f;
        }
        Ok(Self(words))
    }

    /// A salt that was kept with its input.
    ///
    /// # Errors
    /// [`SaltError::Words`], [`SaltError::Zero`].
    pub fn from_bytes(bytes: &[u8; SALT_BYTES]) -> Result<Self, SaltError> {
        parse_digest(bytes).map_err(|_| SaltError::Words)?;
        if *bytes == [0; SALT_BYTES] { Err(SaltError::Zero) } else { Ok(Self(Zeroizing::new(*bytes))) }
    }

    /// The 32 bytes, to be kept in a secret place.
    pub fn expose(&self) -> &[u8; SALT_BYTES] {
        &self.0
    }

    /// The commitment to an input; none where no network has inputs of this size.
    pub(crate) fn commit(&self, input: &[u8]) -> Option<Digest> {
        input_commitment(input, parse_digest(&self.0).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_salts_differ_can_be_kept_and_are_not_printed() {
        let (a, b) = (InputSalt::fresh().unwrap(), InputSalt::fresh().unwrap());
        assert_ne!(a, b);
        assert_eq!(InputSalt::from_bytes(a.expose()).unwrap(), a);
        assert_eq!(format!("{a:?}"), "InputSalt(hidden)");
    }

    #[test]
    fn what_is_no_salt_is_refused() {
        assert!(matches!(InputSalt::from_bytes(&[0; 32]), Err(SaltError::Zero)));
        // The order of the field, and one less.
        let with_last_word = |word: u64| {
            let mut bytes = [0; 32];
            bytes[24..].copy_from_slice(&word.to_le_bytes());
            InputSalt::from_bytes(&bytes)
        };
        assert!(matches!(with_last_word(0xffff_ffff_0000_0001), Err(SaltError::Words)));
        assert!(with_last_word(0xffff_ffff_0000_0000).is_ok());
    }

    #[test]
    fn commitments_depend_on_input_and_salt() {
        let salts = [[1; 32], [2; 32]].map(|bytes| InputSalt::from_bytes(&bytes).unwrap());
        let commitment = |salt: usize, input: &[u8]| salts[salt].commit(input).unwrap();
        assert_eq!(commitment(0, &[1, 2]), commitment(0, &[1, 2]));
        assert_ne!(commitment(0, &[1, 2]), commitment(1, &[1, 2]));
        assert_ne!(commitment(0, &[1, 2]), commitment(0, &[1, 3]));
        assert_eq!(salts[0].commit(&[]), None, "no network has no input");
    }
}
