//! Heat maps as small images.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Every sixteenth colour of viridis (Smith & van der Walt 2015, CC0): perceptually uniform, readable
/// without colour vision and in grey.
const VIRIDIS: [[u8; 3]; 17] = [
    [68, 1, 84],
    [72, 20, 103],
    [72, 38, 119],
    [69, 55, 129],
    [63, 71, 136],
    [57, 85, 140],
    [50, 100, 142],
    [45, 113, 142],
    [40, 125, 142],
    [35, 138, 141],
    [31, 150, 139],
    [32, 163, 134],
    [60, 187, 117],
    [92, 200, 99],
    [149, 216, 64],
    [199, 224, 32],
    [253, 231, 37],
];

/// The colour of a share between 0 and 1.
pub(super) fn colour(share: f64) -> [u8; 3] {
    let place = share.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let at = (place.floor() as usize).min(VIRIDIS.len() - 2);
    let part = place - at as f64;
    std::array::from_fn(|c| {
        let (a, b) = (f64::from(VIRIDIS[at][c]), f64::from(VIRIDIS[at + 1][c]));
        (a + part * (b - a)).round() as u8
    })
}

/// The definition of the gradient that colour bars are filled with.
pub(super) fn gradient() -> String {
    let stops: String = (0..=8)
        .map(|i| {
            let share = f64::from(i) / 8.0;
            let [r, g, b] = colour(share);
            format!("<stop offset=\"{share}\" stop-color=\"#{r:02x}{g:02x}{b:02x}\"/>")
        })
        .collect();
    format!(
        "<defs><linearGradient id=\"heat\" x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\">{stops}</linearGradient></defs>"
    )
}

/// A data URI of an image with a pixel for each share, row by row. `None` where the image cannot be
/// made.
pub(super) fn image(width: usize, height: usize, shares: &[f64]) -> Option<String> {
    let mut bytes = Vec::new();
    let mut encoder =
        png::Encoder::new(&mut bytes, u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .set_palette((0..=255u8).flat_map(|i| colour(f64::from(i) / 255.0)).collect::<Vec<u8>>());
    encoder.set_compression(png::Compression::High);
    let pixels: Vec<u8> =
        shares.iter().map(|s| (255.0 * s.clamp(0.0, 1.0)).round() as u8).collect();
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(&pixels).ok()?;
    writer.finish().ok()?;
    Some(format!("data:image/png;base64,{}", STANDARD.encode(&bytes)))
}

/// Pixels of an image that viewers are not told to draw sharp have to be large themselves.
const SHARP: usize = 192;

/// As [`image`], with every pixel repeated where there are few of them: printers and many programs
/// that show an SVG would blur them.
pub(super) fn enlarged(width: usize, height: usize, shares: &[f64]) -> Option<String> {
    let times = (SHARP / width.max(height).max(1)).max(1);
    let mut large = Vec::with_capacity(shares.len() * times * times);
    for row in shares.chunks(width.max(1)) {
        let wide: Vec<f64> = row.iter().flat_map(|&x| std::iter::repeat_n(x, times)).collect();
        (0..times).for_each(|_| large.extend_from_slice(&wide));
    }
    image(times * width, times * height, &large)
}

/// Shares of the largest in 16 bits, for the page's script to say the number under the pointer.
pub(super) fn packed(values: &[f64], max: f64) -> String {
    let share = |x: f64| if max > 0.0 { (65535.0 * x / max).round() as u16 } else { 0 };
    STANDARD.encode(values.iter().flat_map(|&x| share(x).to_le_bytes()).collect::<Vec<u8>>())
}

/// A matrix whose rows and columns are at most `limit`, each entry the mean of a block.
pub(super) fn reduced(
    (rows, columns): (usize, usize),
    values: &[f64],
    limit: usize,
) -> ((usize, usize), (usize, usize), Vec<f64>) {
    let (a, b) = (rows.div_ceil(limit).max(1), columns.div_ceil(limit).max(1));
    if (a, b) == (1, 1) {
        return ((rows, columns), (1, 1), values.to_vec());
    }
    let (size, means) = blocks((rows, columns), values, (a, b));
    (size, (a, b), means)
}

/// The means of blocks of a matrix.
pub(super) fn blocks(
    (rows, columns): (usize, usize),
    values: &[f64],
    (a, b): (usize, usize),
) -> ((usize, usize), Vec<f64>) {
    let (m, n) = (rows.div_ceil(a), columns.div_ceil(b));
    let mut means = vec![0.0; m * n];
    let mut counts = vec![0.0; m * n];
    for (i, row) in values.chunks(columns.max(1)).enumerate() {
        for (j, &x) in row.iter().enumerate() {
            let at = i / a * n + j / b;
            means[at] += x;
            counts[at] += 1.0;
        }
    }
    means.iter_mut().zip(&counts).for_each(|(x, n)| *x /= n);
    ((m, n), means)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_images() {
        let uri = image(3, 2, &[0.0, 0.5, 1.0, 2.0, -1.0, 0.2]).unwrap();
        let bytes = STANDARD.decode(uri.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, [0, 128, 255, 255, 0, 51]);
    }

    #[test]
    fn large_matrices_are_means_of_blocks() {
        let values: Vec<f64> = (0..15).map(f64::from).collect();
        let (size, block, means) = reduced((3, 5), &values, 2);
        assert_eq!((size, block), ((2, 2), (2, 3)));
        assert_eq!(means, [3.5, 6.0, 11.0, 13.5]);
    }

    #[test]
    fn colours_rise_in_lightness() {
        let light = |s: f64| {
            colour(s).map(f64::from).iter().zip([0.21, 0.72, 0.07]).map(|(c, w)| c * w).sum::<f64>()
        };
        assert!((0..20).all(|i| light(f64::from(i) / 20.0) < light(f64::from(i + 1) / 20.0)));
    }
}
