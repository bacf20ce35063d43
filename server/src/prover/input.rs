//! Inputs as clients send them, turned into the bytes that the network reads.

use zeroize::Zeroizing;
use zkinfer_circuits::key::{TensorInfo, VerifierKey};
use zkinfer_circuits::model::{NpyData, NpyLimits, read_npy};

use super::{InputEncoding, ProverError, Rejection};

fn corrupt(message: String) -> ProverError {
    ProverError::Rejected { rejection: Rejection::InputCorrupt, message: format!("input: {message}") }
}

/// The bytes that the network reads; the key tells how, if the input's own do not.
///
/// # Errors
/// Those of `key`, and of [`input_bytes`].
pub(super) fn read_input(
    input: &[u8],
    encoding: InputEncoding,
    key: impl FnOnce() -> Result<VerifierKey, ProverError>,
) -> Result<Zeroizing<Vec<u8>>, ProverError> {
    match encoding {
        InputEncoding::Uint8 => Ok(Zeroizing::new(input.to_vec())),
        InputEncoding::Npy => input_bytes(input, &key()?.input).map(Zeroizing::new),
    }
}

/// The bytes of an `.npy` input: uint8 as it is, floats as `clamp(round(x / scale) + zero_point, 0, 255)`, ties to even.
///
/// # Errors
/// An unreadable file, another element type, or a value that is not a number.
pub fn input_bytes(npy: &[u8], input: &TensorInfo) -> Result<Vec<u8>, ProverError> {
    let array = read_npy(npy, &NpyLimits::default()).map_err(|error| corrupt(error.to_string()))?;
    let quantize = |value: f64, index: usize| {
        if value.is_nan() {
            return Err(corrupt(format!("element {index} is not a number")));
        }
        let steps = (value / input.scale).round_ties_even() + input.zero_point as f64;
        // In 0 … 255 after the clamp, so the conversion is exact.
        Ok(steps.clamp(0.0, 255.0) as u8)
    };
    match array.data {
        NpyData::U8(bytes) => Ok(bytes),
        NpyData::F32(values) => values.iter().enumerate().map(|(index, &value)| quantize(value.into(), index)).collect(),
        NpyData::F64(values) => values.iter().enumerate().map(|(index, &value)| quantize(value, index)).collect(),
        NpyData::I8(_) | NpyData::I32(_) | NpyData::I64(_) => {
            Err(corrupt("its elements are signed integers; send float32, or uint8 as the model's bytes".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn tensor() -> TensorInfo {
        TensorInfo { name: "x".to_owned(), shape: vec![1, 3], scale: 0.5, zero_point: 100 }
    }

    #[test]
    fn floats_are_rounded_shifted_and_clamped() {
        let data: Vec<u8> = [0.25f32, -1.0, 1e9].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(input_bytes(&npy("<f4", "(1, 3)", &data), &tensor()), Ok(vec![100, 98, 255]));
    }

    #[test]
    fn bytes_pass_and_other_values_are_refused() {
        assert_eq!(input_bytes(&npy("|u1", "(3,)", &[1, 2, 3]), &tensor()), Ok(vec![1, 2, 3]));
        let nan: Vec<u8> = f32::NAN.to_le_bytes().to_vec();
        let refused = [npy("<f4", "(1,)", &nan), npy("|i1", "(1,)", &[1]), b"junk".to_vec()];
        for bytes in refused {
            let error = input_bytes(&bytes, &tensor()).unwrap_err();
            assert!(matches!(error, ProverError::Rejected { rejection: Rejection::InputCorrupt, .. }), "{error}");
        }
    }
}
