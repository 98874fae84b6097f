use serde::{Deserialize, Serialize};

use crate::manifest::ManifestError;
use crate::{ModelName, WallTime};

/// `model.toml` beside a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// What it is and where it runs.
    pub model: ModelSection,
    /// How its entries are batched.
    #[serde(default)]
    pub batching: BatchingSection,
    /// For people.
    #[serde(default)]
    pub card: CardSection,
}

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Name.
    pub name: ModelName,
    /// Engine: `onnx` or `openvino`.
    pub backend: String,
    /// Files of the version; the first is the graph. An OpenVINO IR is two: `model.xml`, then `model.bin`.
    pub files: Vec<String>,
    /// Devices it may run on, best first. Default: the processor, `cpu:0` or `openvino:CPU` by the engine.
    #[serde(default)]
    pub devices: Vec<String>,
    /// What OpenVINO computes in: `f32` (default), `bf16` or `f16`, the latter two where the device has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// Model APIs without a token.
    #[serde(default)]
    pub public: bool,
}

/// `[batching]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct BatchingSection {
    /// 1 is off.
    pub max_batch: u32,
    /// How long a device may wait for a fuller batch.
    pub max_queue_delay: WallTime,
    /// A dimension that is filled up, so that entries of unlike sizes fit into one batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad: Option<PadSection>,
}

/// `pad = { dimension = "sequence", to = [16, 32] }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PadSection {
    /// The dimension's name in the model.
    pub dimension: String,
    /// Sizes that it is filled up to, rising.
    pub to: Vec<u32>,
}

impl Default for BatchingSection {
    fn default() -> Self {
        Self { max_batch: 1, max_queue_delay: WallTime(std::time::Duration::ZERO), pad: None }
    }
}

/// `[card]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CardSection {
    /// SPDX expression.
    pub licence: String,
    /// Such as `sentence-embedding`.
    pub task: String,
    /// A file with one label a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Where it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl ModelCard {
    /// Reads and checks a card.
    ///
    /// # Errors
    /// The place and the reason.
    pub fn from_toml(text: &str) -> Result<Self, ManifestError> {
        let mut card: Self = toml::from_str(text).map_err(|e| ManifestError::new(e.to_string().trim()))?;
        let cpu = match card.model.backend.as_str() {
            "onnx" => "cpu:0",
            "openvino" => "openvino:CPU",
            other => {
                return Err(ManifestError::new(format!(
                    "model.backend {other:?} is not known: use \"onnx\" or \"openvino\""
                )));
            }
        };
        if card.model.devices.is_empty() {
            card.model.devices.push(cpu.to_owned());
        }
        card.model.check_precision()?;
        if card.model.files.is_empty() || card.model.files.len() > 16 {
            return Err(ManifestError::new("model.files names 1 to 16 files, the graph first"));
        }
        if is_ir(&card.model.files[0]) && (card.model.backend != "openvino" || card.model.files.len() < 2) {
            return Err(ManifestError::new(
                "an OpenVINO IR needs backend = \"openvino\" and files = [\"model.xml\", \"model.bin\"]",
            ));
        }
        if let Some(bad) = card.model.files.iter().find(|f| !is_file_name(f)) {
            return Err(ManifestError::new(format!("model.files has {bad:?}: a plain file name is needed")));
        }
        if card.model.devices.len() > 16 {
            return Err(ManifestError::new("model.devices names 1 to 16 devices, such as \"cpu:0\""));
        }
        card.batching.check()?;
        Ok(card)
    }
}

impl BatchingSection {
    fn check(&self) -> Result<(), ManifestError> {
        if !(1..=1024).contains(&self.max_batch) {
            return Err(ManifestError::new("batching.max-batch is 1 (off) to 1024"));
        }
        if self.max_queue_delay.0 > std::time::Duration::from_secs(1) {
            return Err(ManifestError::new("batching.max-queue-delay is at most 1s"));
        }
        let Some(pad) = &self.pad else { return Ok(()) };
        if pad.dimension.is_empty() {
            return Err(ManifestError::new("batching.pad.dimension names a dimension of the model"));
        }
        let rising = pad.to.iter().zip(pad.to.iter().skip(1)).all(|(a, b)| a < b);
        if pad.to.is_empty() || pad.to.len() > 64 || pad.to[0] == 0 || !rising {
            return Err(ManifestError::new(
                "batching.pad.to lists 1 to 64 sizes above 0, each larger than the last",
            ));
        }
        Ok(())
    }
}

impl ModelSection {
    /// Whether the graph is an OpenVINO IR, whose weights are the second file.
    #[must_use]
    pub fn is_ir(&self) -> bool {
        self.files.first().is_some_and(|graph| is_ir(graph))
    }

    fn check_precision(&self) -> Result<(), ManifestError> {
        match self.precision.as_deref() {
            None | Some("f32") => Ok(()),
            Some("bf16" | "f16") if self.backend == "openvino" => Ok(()),
            Some("bf16" | "f16") => {
                Err(ManifestError::new("model.precision is for backend = \"openvino\": leave it out"))
            }
            Some(other) => Err(ManifestError::new(format!(
                "model.precision {other:?} is not known: use \"f32\", \"bf16\" or \"f16\""
            ))),
        }
    }
}

fn is_ir(graph: &str) -> bool {
    graph.ends_with(".xml")
}

/// One path segment of harmless characters.
fn is_file_name(s: &str) -> bool {
    (1..=100).contains(&s.len())
        && !s.starts_with('.')
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_path_and_an_unknown_backend() {
        let card = |backend: &str, file: &str| {
            ModelCard::from_toml(&format!(
                "[model]\nname = \"m\"\nbackend = \"{backend}\"\nfiles = [\"{file}\"]"
            ))
        };
        assert_eq!(card("onnx", "model.onnx").unwrap().model.devices, ["cpu:0"]);
        assert!(card("onnx", "../model.onnx").is_err());
        assert!(card("tflite", "model.onnx").is_err());
        assert_eq!(card("openvino", "model.onnx").unwrap().model.devices, ["openvino:CPU"]);
    }

    #[test]
    fn batching_is_off_by_default_and_padding_rises() {
        let card = |batching: &str| {
            ModelCard::from_toml(&format!(
                "[model]\nname = \"m\"\nbackend = \"onnx\"\nfiles = [\"m.onnx\"]\n[batching]\n{batching}"
            ))
        };
        assert_eq!(card("").unwrap().batching, BatchingSection::default());
        let pad = card("pad = { dimension = \"sequence\", to = [16, 32] }").unwrap().batching.pad.unwrap();
        assert_eq!((pad.dimension.as_str(), &pad.to[..]), ("sequence", &[16, 32][..]));
        assert!(card("max-batch = 0").is_err());
        assert!(card("max-queue-delay = \"2s\"").is_err());
        assert!(card("pad = { dimension = \"sequence\", to = [32, 16] }").is_err());
        assert!(card("pad = { dimension = \"\", to = [16] }").is_err());
    }

    #[test]
    fn an_ir_is_two_files_and_precision_is_openvinos() {
        let card = |backend: &str, rest: &str| {
            ModelCard::from_toml(&format!("[model]\nname = \"m\"\nbackend = \"{backend}\"\n{rest}"))
        };
        let ir = "files = [\"model.xml\", \"model.bin\"]";
        assert!(card("openvino", ir).unwrap().model.is_ir());
        assert!(card("onnx", ir).is_err());
        assert!(card("openvino", "files = [\"model.xml\"]").is_err());
        let precise = |p: &str| format!("files = [\"model.onnx\"]\nprecision = \"{p}\"");
        assert!(card("openvino", &precise("bf16")).is_ok() && card("onnx", &precise("f32")).is_ok());
        assert!(card("openvino", &precise("f8")).is_err() && card("onnx", &precise("bf16")).is_err());
    }
}
