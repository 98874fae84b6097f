//! JPEG and PNG to 8-bit samples. Sizes are looked at before any memory is taken for them.

use std::fmt;
use std::io::Cursor;

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::orientation::Orientation;

/// A progressive JPEG takes 9 bytes a pixel while it is decoded: this fits in 128 MiB.
const MAX_PIXELS: usize = 12_500_000;

/// The longest side: what JPEG and PNG themselves allow is far more than a photo needs.
const MAX_SIDE: usize = 16_384;

/// A decoded picture.
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Samples a pixel: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
    pub(crate) channels: usize,
    /// Row by row.
    pub(crate) samples: Vec<u8>,
    pub(crate) orientation: Orientation,
}

/// Why a picture cannot be used.
#[derive(Debug)]
pub(crate) enum PictureError {
    Empty,
    UnknownFormat,
    TooLarge { width: usize, height: usize },
    Broken { format: &'static str, reason: String },
}

impl fmt::Display for PictureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the request has no body; post a JPEG or PNG picture"),
            Self::UnknownFormat => write!(f, "the body is neither a JPEG nor a PNG picture"),
            Self::TooLarge { width, height } => write!(
                f,
                "the picture has {width} x {height} pixels; at most {MAX_PIXELS} and {MAX_SIDE} a side are taken"
            ),
            Self::Broken { format, reason } => write!(f, "the {format} picture is broken: {reason}"),
        }
    }
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Picture, PictureError> {
    match bytes {
        [] => Err(PictureError::Empty),
        [0xFF, 0xD8, 0xFF, ..] => jpeg(bytes),
        [0x89, b'P', b'N', b'G', ..] => png(bytes),
        _ => Err(PictureError::UnknownFormat),
    }
}

fn check_size(width: usize, height: usize) -> Result<(), PictureError> {
    let pixels = width.saturating_mul(height);
    if width > MAX_SIDE || height > MAX_SIDE || pixels > MAX_PIXELS {
        return Err(PictureError::TooLarge { width, height });
    }
    Ok(())
}

fn jpeg(bytes: &[u8]) -> Result<Picture, PictureError> {
    let broken = |e: &dyn fmt::Debug| PictureError::Broken { format: "JPEG", reason: format!("{e:?}") };
    // Strict: half a picture is an error, not a grey area. The size is checked by us, with our own message.
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| broken(&e))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| broken(&"no size"))?;
    check_size(width, height)?;
    let orientation = decoder.exif().map_or(Orientation::default(), |exif| Orientation::from_exif(exif));
    let samples = decoder.decode().map_err(|e| broken(&e))?;
    whole(Picture { width, height, channels: 3, samples, orientation }, "JPEG")
}

fn png(bytes: &[u8]) -> Result<Picture, PictureError> {
    let broken = |e: png::DecodingError| PictureError::Broken { format: "PNG", reason: e.to_string() };
    // For what the decoder keeps beside the picture, e.g. colour profiles.
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: 8 << 20 });
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(broken)?;
    check_size(header.width as usize, header.height as usize)?;
    let mut reader = decoder.read_info().map_err(broken)?;
    let too_large = PictureError::Broken { format: "PNG", reason: "its size overflows".to_owned() };
    let mut samples = vec![0; reader.output_buffer_size().ok_or(too_large)?];
    let frame = reader.next_frame(&mut samples).map_err(broken)?;
    samples.truncate(frame.buffer_size());
    // To the end, so that a picture that is cut off or has a wrong checksum is found out.
    reader.finish().map_err(broken)?;
    let channels = frame.color_type.samples();
    let (width, height) = (frame.width as usize, frame.height as usize);
    let orientation = match reader.info().exif_metadata.as_deref() {
        Some(exif) => Orientation::from_exif(exif),
        None => Orientation::default(),
    };
    whole(Picture { width, height, channels, samples, orientation }, "PNG")
}

/// Nothing after this needs to doubt that there are as many samples as the size says.
fn whole(picture: Picture, format: &'static str) -> Result<Picture, PictureError> {
    let Picture { width, height, channels, ref samples, .. } = picture;
    if width == 0 || height == 0 || samples.len() != width * height * channels {
        let reason = format!("{} samples for {width} x {height} pixels", samples.len());
        return Err(PictureError::Broken { format, reason });
    }
    Ok(picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PNG header for a picture of this size, and nothing behind it.
    fn header(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let encoder = png::Encoder::new(&mut bytes, width, height);
        drop(encoder.write_header().expect("to memory"));
        bytes
    }

    fn message(bytes: &[u8]) -> String {
        decode(bytes).map(|_| ()).expect_err("not a picture").to_string()
    }

    #[test]
    fn what_is_no_picture() {
        assert!(message(b"").contains("no body"));
        assert!(message(b"GIF89a").contains("neither"));
        assert!(message(b"\xff\xd8\xff\xe0").contains("JPEG picture is broken"));
        assert!(message(b"\x89PNG\r\n\x1a\n").contains("PNG picture is broken"));
        assert!(message(&header(10, 10)).contains("broken"));
    }

    #[test]
    fn huge_pictures_are_refused_by_their_header() {
        assert!(message(&header(50_000, 50_000)).contains("50000 x 50000"));
        assert!(message(&header(4000, 4000)).contains("4000 x 4000"));
        // Start of image, then a frame header for 65535 x 65535.
        let jpeg = b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01\xff\xda\x00\x0c";
        assert!(message(jpeg).starts_with("the"), "{}", message(jpeg));
    }
}
