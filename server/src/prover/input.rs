//! Inputs as clients send them, turned into the bytes that the network reads.

use zeroize::Zeroizing;
use zkinfer_circuits::input::input_bytes;
use zkinfer_circuits::key::VerifierKey;

use super::{InputEncoding, ProverError, Rejection};

/// The bytes that the network reads; the key tells how, if the input's own do not.
///
/// # Errors
/// Those of `key`, and INPUT_CORRUPT for a file that is no input.
pub(super) fn read_input(
    input: &[u8],
    encoding: InputEncoding,
    key: impl FnOnce() -> Result<VerifierKey, ProverError>,
) -> Result<Zeroizing<Vec<u8>>, ProverError> {
    match encoding {
        InputEncoding::Uint8 => Ok(Zeroizing::new(input.to_vec())),
        InputEncoding::Npy => {
            let bytes = input_bytes(input, &key()?.input).map(Zeroizing::new);
            bytes.map_err(|error| ProverError::Rejected { rejection: Rejection::InputCorrupt, message: format!("input: {error}") })
        }
    }
}
