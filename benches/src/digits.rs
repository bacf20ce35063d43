//! The bundled digits, as inputs of the bundled network.

use std::path::Path;

use anyhow::{Context, ensure};
use zkinfer_circuits::npy::{NpyLimits, read_npy};

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
