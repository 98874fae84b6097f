//! Scaling by a triangle filter as wide as the step between two new pixels ("bilinear" in Pillow, with what it does
//! against aliasing), horizontally, then vertically. As there, levels are whole numbers after each step: the model
//! was made with such pictures, and on grey ones it sees the difference.

use super::decode::Picture;

/// The weights of the old pixels in one new pixel.
struct Window {
    first: usize,
    weights: Vec<f32>,
}

/// The middle square of a picture, `part` of its shorter side, scaled to `side`. What is transparent lies on
/// white.
pub(crate) fn middle(picture: &Picture, part: f32, side: usize) -> Vec<[u8; 3]> {
    let Picture { width, height, channels, ref samples, .. } = *picture;
    let crop = width.min(height) as f32 * part;
    let columns = windows(width, (width as f32 - crop) / 2.0, crop, side);
    let rows = windows(height, (height as f32 - crop) / 2.0, crop, side);
    let (left, right) = reach(&columns);
    let (top, bottom) = reach(&rows);

    let mut narrow = Vec::with_capacity((bottom - top) * side);
    let mut row = Vec::with_capacity(right - left);
    for y in top..bottom {
        row.clear();
        let start = (y * width + left) * channels;
        let end = (y * width + right) * channels;
        row.extend(samples[start..end].chunks_exact(channels).map(rgb));
        narrow.extend(columns.iter().map(|w| {
            let from = w.first - left;
            sum(row[from..from + w.weights.len()].iter(), &w.weights)
        }));
    }
    let mut out = Vec::with_capacity(side * side);
    for window in &rows {
        let from = (window.first - top) * side;
        for x in 0..side {
            out.push(sum(narrow[from + x..].iter().step_by(side), &window.weights));
        }
    }
    out
}

/// The old pixels for each of `count` new pixels that lie over `length` old ones from `start` on.
fn windows(size: usize, start: f32, length: f32, count: usize) -> Vec<Window> {
    let step = length / count as f32;
    let width = step.max(1.0);
    let window = |new: usize| {
        let centre = start + (new as f32 + 0.5) * step;
        let first = ((centre - width + 0.5).max(0.0) as usize).min(size - 1);
        let end = ((centre + width + 0.5) as usize).clamp(first + 1, size);
        let mut weights: Vec<f32> =
            (first..end).map(|old| (1.0 - ((old as f32 + 0.5 - centre) / width).abs()).max(0.0)).collect();
        let total: f32 = weights.iter().sum();
        if total > 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= total);
        } else {
            // Only by rounding at an edge: take the nearest.
            weights[0] = 1.0;
        }
        Window { first, weights }
    };
    (0..count).map(window).collect()
}

/// From the first to behind the last old pixel that any window needs.
fn reach(windows: &[Window]) -> (usize, usize) {
    let first = windows.iter().map(|w| w.first).min().unwrap_or(0);
    let end = windows.iter().map(|w| w.first + w.weights.len()).max().unwrap_or(0);
    (first, end)
}

fn sum<'a>(pixels: impl Iterator<Item = &'a [u8; 3]>, weights: &[f32]) -> [u8; 3] {
    let mut out = [0.0; 3];
    for ([r, g, b], weight) in pixels.zip(weights) {
        out[0] += f32::from(*r) * weight;
        out[1] += f32::from(*g) * weight;
        out[2] += f32::from(*b) * weight;
    }
    out.map(level)
}

/// To the nearest level; the cast saturates.
fn level(value: f32) -> u8 {
    (value + 0.5) as u8
}

fn rgb(pixel: &[u8]) -> [u8; 3] {
    let over = |colour: u8, alpha: u8| {
        let alpha = f32::from(alpha) / 255.0;
        level(f32::from(colour) * alpha + 255.0 * (1.0 - alpha))
    };
    match *pixel {
        [grey] => [grey; 3],
        [grey, alpha] => [over(grey, alpha); 3],
        [r, g, b, alpha] => [over(r, alpha), over(g, alpha), over(b, alpha)],
        [r, g, b, ..] => [r, g, b],
        [] => [0; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_within_and_sum_to_one() {
        for (size, start, length, count) in
            [(1, 0.0, 1.0, 224), (300, 18.75, 262.5, 224), (5000, 0.0, 5000.0, 7)]
        {
            let all = windows(size, start, length, count);
            assert_eq!(all.len(), count);
            for window in &all {
                assert!(window.first + window.weights.len() <= size);
                assert!((window.weights.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn even_pictures_stay_even() {
        let picture = Picture {
            width: 3,
            height: 900,
            channels: 2,
            samples: [100, 128].repeat(2700),
            orientation: Default::default(),
        };
        // 100 * 128 / 255 + 127
        assert!(middle(&picture, 0.875, 224).iter().all(|pixel| *pixel == [177; 3]));
    }
}
