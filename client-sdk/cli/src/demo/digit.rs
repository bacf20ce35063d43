//! The bundled images.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use zkinfer_circuits::npy::{NpyData, NpyLimits, read_npy};

const IMAGES: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mnist/test-images.npy"));
const LABELS: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mnist/test-labels.npy"));
const CALIBRATION: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mnist/calibration-images.npy"));
const SIDE: usize = 28;
const N_PIXELS: usize = SIDE * SIDE;
/// From background to ink.
const SHADES: &[u8; 10] = b" .:-=+*#%@";

/// A handwritten digit.
pub(super) struct Digit {
    /// Which image.
    pub(super) index: usize,
    /// What its label says.
    pub(super) label: u8,
    pixels: Vec<u8>,
}

fn bytes(npy: &[u8]) -> anyhow::Result<Vec<u8>> {
    match read_npy(npy, &NpyLimits::default())?.data {
        NpyData::U8(bytes) => Ok(bytes),
        _ => anyhow::bail!("a bundled array has another element type"),
    }
}

/// Calibration images as the network reads them: pixel / 255.
pub(super) fn calibration() -> anyhow::Result<Vec<u8>> {
    Ok(npy(&bytes(CALIBRATION)?))
}

/// A version 1.0 `.npy` file, float32, shape [images, 784].
fn npy(pixels: &[u8]) -> Vec<u8> {
    let shape = format!("({}, {N_PIXELS})", pixels.len() / N_PIXELS);
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version and length are 10 bytes; the data starts at a multiple of 64, after a newline.
    header.extend(std::iter::repeat_n(' ', 63 - (10 + header.len()) % 64));
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    // The header is one line of text, far below 2^16.
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(pixels.iter().flat_map(|&pixel| (f32::from(pixel) / 255.0).to_le_bytes()));
    file
}

impl Digit {
    /// Image `index` of the bundled test images.
    pub(super) fn bundled(index: usize) -> anyhow::Result<Self> {
        let (images, labels) = (bytes(IMAGES)?, bytes(LABELS)?);
        let pixels = images.chunks_exact(N_PIXELS).nth(index).context("there is no such image")?.to_vec();
        let label = labels.get(index).copied().context("there is no such label")?;
        Ok(Self { index, label, pixels })
    }

    /// The image as the network reads it: pixel / 255.
    pub(super) fn npy(&self) -> Vec<u8> {
        npy(&self.pixels)
    }

    /// The image as text: shades of grey on a terminal, else letters.
    pub(super) fn draw(&self) -> String {
        let is_coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let line = if is_coloured { grey_line } else { letter_line };
        let pairs = self.pixels.chunks(2 * SIDE).map(|rows| rows.split_at(SIDE.min(rows.len())));
        pairs.map(|(upper, lower)| format!("            {}\n", line(upper, lower))).collect()
    }
}

/// Two rows of pixels as upper half blocks: foreground above, background below; greys 232 to 255 of the 256 colours.
fn grey_line(upper: &[u8], lower: &[u8]) -> String {
    let grey = |pixel: u8| 232 + u32::from(pixel) * 23 / 255;
    let cells = upper.iter().zip(lower).map(|(&above, &below)| format!("\x1b[38;5;{};48;5;{}m▀", grey(above), grey(below)));
    cells.collect::<String>() + "\x1b[0m"
}

/// Two rows of pixels as one row of letters.
fn letter_line(upper: &[u8], lower: &[u8]) -> String {
    let letter = |mean: u32| SHADES.get((mean * 9 / 255) as usize).map_or(' ', |&shade| char::from(shade));
    let cells = upper.iter().zip(lower).map(|(&above, &below)| letter((u32::from(above) + u32::from(below)) / 2));
    cells.collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundled_images_are_read_drawn_and_written() {
        let digit = Digit::bundled(0).unwrap();
        assert_eq!((digit.label, digit.pixels.len()), (7, N_PIXELS));
        assert_eq!(digit.draw().lines().count(), 14);
        let array = read_npy(&digit.npy(), &NpyLimits::default()).unwrap();
        assert_eq!(array.shape, [1, N_PIXELS]);
        let NpyData::F32(values) = array.data else { panic!("float32") };
        assert!(values.iter().zip(&digit.pixels).all(|(&value, &pixel)| value == f32::from(pixel) / 255.0));
        assert!(Digit::bundled(1000).is_err());
    }

    #[test]
    fn ink_is_darker_than_paper() {
        assert_eq!(letter_line(&[0, 255, 128], &[0, 255, 128]), " @=");
    }
}
