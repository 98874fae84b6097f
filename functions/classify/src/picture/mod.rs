//! From a file to what the model takes.

mod decode;
mod orientation;
mod resize;

pub(crate) use decode::PictureError;

/// Width and height that the model takes.
pub(crate) const SIDE: usize = 224;

/// Of the shorter side, this part is looked at: the model's authors cut 224 out of 256.
const CROP: f32 = 224.0 / 256.0;

/// Decodes a picture, cuts out its middle, scales that to `SIDE` and gives `[3, SIDE, SIDE]` numbers, red first.
pub(crate) fn input(bytes: &[u8]) -> Result<Vec<f32>, PictureError> {
    let picture = decode::decode(bytes)?;
    let middle = resize::middle(&picture, CROP, SIDE);
    let mut planes = vec![0f32; 3 * SIDE * SIDE];
    let (red, rest) = planes.split_at_mut(SIDE * SIDE);
    let (green, blue) = rest.split_at_mut(SIDE * SIDE);
    for (at, [r, g, b]) in middle.iter().enumerate() {
        // The middle is a square, so that turning it is turning the picture.
        let at = picture.orientation.place(at, SIDE);
        red[at] = normal(*r);
        green[at] = normal(*g);
        blue[at] = normal(*b);
    }
    Ok(planes)
}

/// 0 to 255 -> about -1 to 1, as the model was trained.
fn normal(level: u8) -> f32 {
    (f32::from(level) / 255.0 - 0.498) / 0.502
}
