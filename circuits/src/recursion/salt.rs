//! Salts: 256 bits from the operating system, never from a seed.

use crate::field::Digest;

/// A 256-bit salt of a commitment.
///
/// There is no way to seed one: [`Salt::fresh`] asks the operating system, and [`Salt::from_stored`] reads back a salt that was made so.
/// It is not printed by `Debug`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt(Digest);

impl std::fmt::Debug for Salt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Salt(hidden)")
    }
}

/// The operating system gave no randomness.
#[cfg(feature = "prover")]
#[derive(Clone, Debug, thiserror::Error)]
#[error("the operating system gave no randomness for a salt: {0}")]
pub struct EntropyError(getrandom::Error);

impl Salt {
    /// No salt: the committed value is public.
    pub const NONE: Self = Self(Digest::ZERO);

    /// Four fresh uniform field elements.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    #[cfg(feature = "prover")]
    pub fn fresh() -> Result<Self, EntropyError> {
        use plonky2::field::types::Field;
        let mut salt = Digest::ZERO;
        for element in &mut salt.elements {
            *element = loop {
                let mut bytes = [0u8; 8];
                getrandom::fill(&mut bytes).map_err(EntropyError)?;
                let value = u64::from_le_bytes(bytes);
                // Rejecting non-canonical values keeps the element uniform.
                if value < crate::field::ORDER {
                    break crate::field::F::from_canonical_u64(value);
                }
            };
        }
        Ok(Self(salt))
    }

    /// A salt that was stored with its model or input.
    pub fn from_stored(elements: Digest) -> Self {
        Self(elements)
    }

    /// The elements, to be hashed or stored in a secret place.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

#[cfg(all(test, feature = "prover"))]
mod tests {
    use super::*;

    #[test]
    fn fresh_salts_differ_and_are_not_printed() {
        let (a, b) = (Salt::fresh().unwrap(), Salt::fresh().unwrap());
        assert_ne!(a, b);
        assert_eq!(format!("{a:?}"), "Salt(hidden)");
    }
}
