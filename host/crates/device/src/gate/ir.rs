//! What an OpenVINO IR must not contain, found by walking its XML before the engine sees it: operators of
//! extensions, names of files, constants outside the weights, sizes that no model has.

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

use super::refused::{Kind, Refused, shown};

/// The largest XML: the largest published models have some tens of MiB.
const MAX_XML: usize = 128 << 20;
/// The deepest nesting of elements, bodies of loops included.
const MAX_DEPTH: usize = 64;
/// The most elements, and the most layers, of all bodies together.
const MAX_ELEMENTS: u32 = 4_000_000;
const MAX_LAYERS: u32 = 200_000;
/// The most attributes of one element, and the longest value.
const MAX_ATTRIBUTES: usize = 64;
const MAX_VALUE: usize = 64 * 1024;
/// The most elements of one tensor that a shape may state.
const MAX_TENSOR: u64 = 1 << 40;
/// The only versions of the format: 10 since 2020, 11 since 2022.
const VERSIONS: [&str; 2] = ["10", "11"];

/// What to do where a part of the file is not what OpenVINO's own tools write.
const CONVERT: &str = "convert the model again with openvino.save_model";
const SMALLER: &str = "use a smaller model";
const OPSETS: &str = "use a model of OpenVINO's own opsets";
const WHOLE: &str = "save the model with all that it needs inside";

/// Checks the XML of an IR whose weights have so many bytes.
pub(super) fn check(xml: &[u8], weights: usize) -> Result<(), Refused> {
    if xml.len() > MAX_XML {
        return Err(limit(format!("the XML has {} bytes, at most {MAX_XML} are allowed", xml.len())));
    }
    let text = std::str::from_utf8(xml).map_err(|_| broken())?;
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let mut walk = Walk { weights: weights as u64, ..Walk::default() };
    loop {
        match reader.read_event().map_err(|_| broken())? {
            Event::Start(element) => {
                walk.element(&element)?;
                walk.open(&element)?;
            }
            Event::Empty(element) => {
                walk.element(&element)?;
                walk.open(&element)?;
                walk.close()?;
            }
            Event::End(_) => walk.close()?,
            Event::Text(text) => walk.text(&text.xml10_content())?,
            Event::Decl(_) | Event::Comment(_) => {}
            Event::CData(_) | Event::PI(_) | Event::DocType(_) | Event::GeneralRef(_) => {
                let what = "the XML has a document type, an entity, an instruction or CDATA, which no IR has";
                return Err(Refused::new(Kind::Broken, what, CONVERT));
            }
            Event::Eof => return walk.end(),
        }
    }
}

#[derive(Default)]
struct Walk {
    weights: u64,
    depth: usize,
    /// Whether the root was seen, so that there is one.
    root: bool,
    elements: u32,
    layers: u32,
    /// Product of the dimensions of the current port.
    port: u64,
    in_dim: bool,
}

impl Walk {
    fn open(&mut self, element: &BytesStart<'_>) -> Result<(), Refused> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(limit("the model nests too deeply"));
        }
        match name(element) {
            "port" => self.port = 1,
            "dim" => self.in_dim = true,
            _ => {}
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Refused> {
        self.in_dim = false;
        self.depth = self.depth.checked_sub(1).ok_or_else(broken)?;
        Ok(())
    }

    fn element(&mut self, element: &BytesStart<'_>) -> Result<(), Refused> {
        self.elements += 1;
        if self.elements > MAX_ELEMENTS {
            return Err(limit(format!("the XML has more than {MAX_ELEMENTS} elements")));
        }
        let name = name(element);
        if self.depth == 0 {
            if self.root || name != "net" {
                let what = "the file is not an OpenVINO IR: its root is not one <net>";
                return Err(Refused::new(Kind::Broken, what, CONVERT));
            }
            self.root = true;
        }
        let attributes = attributes(element)?;
        let get =
            |key: &str| attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        for (key, _) in &attributes {
            let key = key.to_ascii_lowercase();
            if ["path", "file", "location", "library"].iter().any(|word| key.contains(word)) {
                let what =
                    format!("the model names a file in the attribute {} of <{}>", shown(&key), short(name));
                return Err(Refused::new(Kind::External, what, WHOLE));
            }
        }
        match name {
            "net" => {
                let version = get("version").unwrap_or_default();
                if self.depth != 0 || !VERSIONS.contains(&version) {
                    let what = format!("the IR has version {}, and 10 and 11 are supported", shown(version));
                    return Err(Refused::new(Kind::Broken, what, CONVERT));
                }
            }
            "layer" => self.layer(get("type").unwrap_or_default(), get("version").unwrap_or_default())?,
            "data" => self.data(get("offset"), get("size"), get("shape"))?,
            // Of formats before version 10: weights elsewhere, and layers in other words.
            "blobs" | "biases" | "weights" | "custom" | "pre-process" => {
                let what = format!("the IR has <{name}>, which version 11 does not know");
                return Err(Refused::new(Kind::Broken, what, CONVERT));
            }
            name if name.contains("weights_path") || name.contains("extension") => {
                let what = format!("the IR has <{}>, which names a file", short(name));
                return Err(Refused::new(Kind::External, what, WHOLE));
            }
            _ => {}
        }
        Ok(())
    }

    fn layer(&mut self, kind: &str, version: &str) -> Result<(), Refused> {
        self.layers += 1;
        if self.layers > MAX_LAYERS {
            return Err(limit(format!("the model has more than {MAX_LAYERS} layers")));
        }
        let digits = version.strip_prefix("opset").unwrap_or_default();
        if digits.is_empty() || digits.len() > 2 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            let what = format!("the layer type {} of {} is of an extension", shown(kind), shown(version));
            return Err(Refused::new(Kind::Operator, what, OPSETS));
        }
        Ok(())
    }

    /// A constant lies inside the weights, and no shape is out of all proportion.
    fn data(&self, offset: Option<&str>, size: Option<&str>, shape: Option<&str>) -> Result<(), Refused> {
        if let (Some(offset), Some(size)) = (offset, size) {
            let end = offset.parse::<u64>().ok().zip(size.parse().ok()).and_then(|(a, b)| a.checked_add(b));
            if end.is_none_or(|end| end > self.weights) {
                let what = format!(
                    "a constant lies at {}+{}, the weights have {} bytes",
                    short(offset),
                    short(size),
                    self.weights
                );
                return Err(Refused::new(Kind::Size, what, "send the model.bin that belongs to the XML"));
            }
        }
        let mut elements = 1u64;
        for dim in shape.unwrap_or_default().split(',').map(str::trim).filter(|dim| !dim.is_empty()) {
            // `?`, `-1`, `1..8` and `...` are free.
            if let Ok(dim) = dim.parse::<u64>() {
                elements = elements.saturating_mul(dim.max(1));
            }
        }
        plausible(elements)
    }

    fn text(&mut self, text: &str) -> Result<(), Refused> {
        if self.in_dim {
            if let Ok(dim) = text.trim().parse::<u64>() {
                self.port = self.port.saturating_mul(dim.max(1));
            }
            plausible(self.port)?;
        }
        Ok(())
    }

    fn end(self) -> Result<(), Refused> {
        if self.depth != 0 || !self.root {
            return Err(broken());
        }
        if self.layers == 0 {
            return Err(Refused::new(Kind::Graph, "the IR has no layers", CONVERT));
        }
        Ok(())
    }
}

fn plausible(elements: u64) -> Result<(), Refused> {
    if elements > MAX_TENSOR {
        let what = "the model states a tensor of more than 2^40 elements";
        return Err(Refused::new(Kind::Size, what, SMALLER));
    }
    Ok(())
}

fn name<'a>(element: &'a BytesStart<'_>) -> &'a str {
    element.name().0
}

fn attributes(element: &BytesStart<'_>) -> Result<Vec<(String, String)>, Refused> {
    let mut found = Vec::new();
    for attribute in element.attributes() {
        let attribute = attribute.map_err(|_| broken())?;
        if found.len() == MAX_ATTRIBUTES || attribute.value.len() > MAX_VALUE {
            return Err(limit("an element has too many or too long attributes"));
        }
        let value = attribute.normalized_value(quick_xml::XmlVersion::Explicit1_0).map_err(|_| broken())?;
        found.push((attribute.key.0.to_owned(), value.into_owned()));
    }
    Ok(found)
}

/// A text out of the XML as it may stand in a message.
fn short(text: &str) -> String {
    shown(text).trim_matches('"').to_owned()
}

fn limit(what: impl Into<String>) -> Refused {
    Refused::new(Kind::Limit, what, SMALLER)
}

fn broken() -> Refused {
    Refused::new(Kind::Broken, "the file is not an OpenVINO IR: its XML is broken", CONVERT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(inner: &str) -> Result<(), Refused> {
        check(format!("<?xml version=\"1.0\"?><net name=\"n\" version=\"11\">{inner}</net>").as_bytes(), 100)
    }

    fn layer(inner: &str) -> Result<(), Refused> {
        net(&format!("<layers><layer id=\"0\" type=\"Const\" version=\"opset1\">{inner}</layer></layers>"))
    }

    #[test]
    fn a_plain_model_passes() {
        assert_eq!(layer("<data offset=\"0\" size=\"100\" shape=\"?,3,1..8\"/>"), Ok(()));
        assert_eq!(layer("<output><port id=\"0\"><dim>-1</dim><dim>384</dim></port></output>"), Ok(()));
    }

    #[test]
    fn what_reaches_outside_is_refused() {
        use Kind::{Broken, External, Graph, Limit, Operator, Size};
        for (result, kind, word) in [
            (layer("<data offset=\"1\" size=\"100\"/>"), Size, "weights have 100"),
            (layer("<data offset=\"18446744073709551615\" size=\"2\"/>"), Size, "weights have 100"),
            (layer("<data offset=\"-1\" size=\"2\"/>"), Size, "weights have 100"),
            (layer("<data weights_path=\"/etc/passwd\"/>"), External, "names a file"),
            (layer("<rt_info><weights_path value=\"/x\"/></rt_info>"), External, "names a file"),
            (net("<layers><layer type=\"Evil\" version=\"extension\"/></layers>"), Operator, "extension"),
            (net("<layers><layer type=\"Evil\"/></layers>"), Operator, "extension"),
            (layer("<blobs><weights offset=\"0\" size=\"1\"/></blobs>"), Broken, "<blobs>"),
            (layer("<data shape=\"4294967296,4294967296\"/>"), Size, "2^40"),
            (layer("<port><dim>4294967296</dim><dim>512</dim></port>"), Size, "2^40"),
            (net(""), Graph, "no layers"),
            (net(&"<a>".repeat(70)), Limit, "deeply"),
            (net("<?php x?>"), Broken, "instruction"),
            (net("<![CDATA[x]]>"), Broken, "CDATA"),
            (layer("<port><dim>&a;</dim></port>"), Broken, "entity"),
            (layer("<data shape=\"&a;\"/>"), Broken, "XML"),
            (check(b"<!DOCTYPE net [<!ENTITY a \"b\">]><net version=\"11\"/>", 0), Broken, "document type"),
            (
                check(b"<!DOCTYPE net SYSTEM \"file:///etc/passwd\"><net version=\"11\"/>", 0),
                Broken,
                "document type",
            ),
            (check(b"<net version=\"7\"/>", 0), Broken, "version \"7\""),
            (check(b"<other/>", 0), Broken, "root"),
            (check(b"<net version=\"11\"/><net version=\"11\"/>", 0), Broken, "root"),
            (check(b"", 0), Broken, "broken"),
            (check(b"<net version=\"11\">", 0), Broken, "broken"),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(word), "{error} has no {word:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[<>/a-z\"= !?&;\\[\\]-]{0,200}") {
            let _ = check(&bytes, 10);
            let _ = check(text.as_bytes(), 10);
            let _ = net(&text);
        }
    }
}
