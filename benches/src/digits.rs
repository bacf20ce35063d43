//! The bundled digits, as inputs of the bundled network.

use std::path::Path;

use anyhow::{Context, ensure};
use zkinfer_circuits::model::{NpyLimits, read_npy};

/// Pixels of an image.
const N_PIXELS: usize = 784;
/// A pixel's value for the network is this fraction of its byte.
const PIXEL_SCALE: f32 = 255.0;

/// Images of a file, each [0, 1] for every pixel.
///
/// # Errors
/// No such file, or no images of 784 pixels in it.
pub fn read_images(path: &Path) -> anyhow::Result<Vec<Vec<f32>>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}; run from the root of the workspace", path.display()))?;
    let array = read_npy(&bytes, &NpyLimits::default()).with_context(|| format!("{} is no array", path.display()))?;
    let mut images = array.to_samples(N_PIXELS).with_context(|| format!("{} has no rows of {N_PIXELS}", path.display()))?;
    ensure!(!images.is_empty(), "{} has no images", path.display());
    for pixel in images.iter_mut().flatten() {
        *pixel /= PIXEL_SCALE;
    }
    Ok(images)
}

/// A .npy file (version 1) of float32 rows.
pub fn to_npy(images: &[Vec<f32>]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {N_PIXELS}), }}", images.len());
    // Magic, version and length are 10 bytes; the header ends with a line end at a multiple of 64.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend(u16::try_from(header.len()).unwrap_or(u16::MAX).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(images.iter().flatten().flat_map(|pixel| pixel.to_le_bytes()));
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_written_can_be_read() {
        let images = vec![vec![0.0; N_PIXELS], vec![0.25; N_PIXELS]];
        let file = to_npy(&images);
        assert_eq!((file.len() - 2 * 4 * N_PIXELS) % 64, 0);
        let array = read_npy(&file, &NpyLimits::default()).expect("an array");
        assert_eq!(array.to_samples(N_PIXELS), Some(images));
    }
}
