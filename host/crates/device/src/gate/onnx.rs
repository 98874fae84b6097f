//! ONNX files (onnx.proto3 of the ONNX project, IR version 13) as far as the gate looks at them. Fields that
//! it does not know are skipped, as engines skip them; where an engine would merge two messages into one, the
//! file is refused, so that both always read the same.

use super::{
    MAX_DIMS, MAX_GRAPH_DEPTH, MAX_NODES, MAX_PARTS, MAX_STRING,
    protobuf::{Fields, Value, broken, text, varint},
    refused::{Kind, Refused, shown},
    tensor::{Tensor, bits, claimed},
};

#[derive(Default)]
pub(super) struct Model<'a> {
    pub(super) opsets: Vec<(&'a str, i64)>,
    pub(super) graph: Graph<'a>,
    pub(super) functions: Vec<Function<'a>>,
}

#[derive(Default)]
pub(super) struct Graph<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) initializers: Vec<Tensor<'a>>,
    pub(super) sparse: Vec<&'a str>,
    pub(super) inputs: Vec<ValueInfo<'a>>,
    pub(super) outputs: Vec<ValueInfo<'a>>,
}

#[derive(Default)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) domain: &'a str,
    pub(super) inputs: Vec<&'a str>,
    pub(super) outputs: Vec<&'a str>,
    pub(super) nodes: Vec<Node<'a>>,
}

#[derive(Default)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) op: &'a str,
    pub(super) domain: &'a str,
    pub(super) inputs: Vec<&'a str>,
    pub(super) outputs: Vec<&'a str>,
    pub(super) attributes: Vec<Attribute<'a>>,
}

#[derive(Default)]
pub(super) struct Attribute<'a> {
    pub(super) name: &'a str,
    pub(super) int: i64,
    pub(super) text: &'a [u8],
    pub(super) ints: Vec<i64>,
    pub(super) tensor: Option<Tensor<'a>>,
    pub(super) graphs: Vec<Graph<'a>>,
}

#[derive(Default)]
pub(super) struct ValueInfo<'a> {
    pub(super) name: &'a str,
    /// `None` where the file does not say how many.
    pub(super) dims: Option<Vec<Dim<'a>>>,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Dim<'a> {
    Fixed(i64),
    Named(&'a str),
    Any,
}

/// Reads messages and counts what it has read.
pub(super) struct Reader {
    file_bytes: u64,
    nodes: usize,
    parts: usize,
}

impl<'a> Reader {
    pub(super) fn new(file_bytes: usize) -> Self {
        Self { file_bytes: file_bytes as u64, nodes: 0, parts: 0 }
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub(super) fn model(&mut self, message: &'a [u8]) -> Result<Model<'a>, Refused> {
        let mut model = Model::default();
        let mut has_graph = false;
        let mut fields = Fields::new(message);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (7, Value::Bytes(_)) if has_graph => return Err(broken()),
                (7, Value::Bytes(inner)) => {
                    has_graph = true;
                    model.graph = self.graph(inner, 0)?;
                }
                (8, Value::Bytes(inner)) => {
                    self.part()?;
                    model.opsets.push(self.opset(inner)?);
                }
                (20, Value::Bytes(inner)) => self.training(inner)?,
                (25, Value::Bytes(inner)) => {
                    self.part()?;
                    model.functions.push(self.function(inner)?);
                }
                _ => {}
            }
        }
        if !has_graph {
            let what = "the file is not an ONNX model: it has no graph";
            return Err(Refused::new(Kind::Broken, what, "export it again as ONNX"));
        }
        Ok(model)
    }

    fn opset(&mut self, message: &'a [u8]) -> Result<(&'a str, i64), Refused> {
        let mut opset = ("", 0);
        let mut fields = Fields::new(message);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Bytes(domain)) => opset.0 = self.name(domain)?,
                (2, Value::Varint(version)) => opset.1 = version.cast_signed(),
                _ => {}
            }
        }
        Ok(opset)
    }

    /// Training graphs never run here, but they are held to the same rules.
    fn training(&mut self, message: &'a [u8]) -> Result<(), Refused> {
        let mut fields = Fields::new(message);
        while let Some((field, value)) = fields.next()? {
            if let (1 | 2, Value::Bytes(inner)) = (field, value) {
                self.graph(inner, 1)?;
            }
        }
        Ok(())
    }

    fn graph(&mut self, message: &'a [u8], depth: usize) -> Result<Graph<'a>, Refused> {
        if depth > MAX_GRAPH_DEPTH {
            let what = format!("the model nests graphs too deeply, at most {MAX_GRAPH_DEPTH} are allowed");
            return Err(Refused::new(Kind::Limit, what, "flatten its control flow"));
        }
        let mut graph = Graph::default();
        let mut fields = Fields::new(message);
        while let Some((field, value)) = fields.next()? {
            let Value::Bytes(inner) = value else { continue };
            match field {
                1 => graph.nodes.push(self.node(inner, depth)?),
                5 => {
                    self.part()?;
                    graph.initializers.push(self.tensor(inner)?);
                }
                11 => graph.inputs.push(self.value_info(inner)?),
                12 => graph.outputs.push(self.value_info(inner)?),
                13 => drop(self.value_info(inner)?),
                15 => {
                    self.part()?;
                    graph.sparse.push(self.sparse(inner)?);
                }
                _ => {}
            }
        }
        Ok(graph)
    }

    fn function(&mut self, message: &'a [u8]) -> Result<Function<'a>, Refused> {
        let mut function = Function::default();
        let mut fields = Fields::new(message);
        while let Some((field, value)) = fields.next()? {
            let Value::Bytes(inner) = value else { continue };
            match field {
                1 => function.name = self.name(inner)?,
                4 => function.inputs.push(self.name(inner)?),
                5 => function.outputs.push(self.name(inner)?),
                7 => function.nodes.push(self.node(inner, 0)?),
                10 => function.domain = self.name(inner)?,
                11 => drop(self.attribute(inner, 0)?),
                _ => {}
            }
        }
        Ok(function)
    }

    fn node(&mut self, message: &'a [u8], depth: usize) -> Result<Node<'a>, Refused> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(too_many("nodes", MAX_NODES));
        }
        let mut node = Node::default();
        let mut fields = Fields::new(message);
        while let Some((field, value)) = fields.next()? {
            let Value::Bytes(inner) = value else { continue };
            match field {
                1 => node.inputs.push(self.name(inner)?),
                2 => node.outputs.push(self.name(inner)?),
                3 => node.name = self.name(inner)?,
                4 => node.op = self.name(inner)?,
                5 => node.attributes.push(self.attribute(inner, depth)?),
                7 => node.domain = self.name(inner)?,
                _ => {}
            }
        }
        Ok(node)
    }

    fn attribute(&mut self, message: &'a [u8], depth: usize) -> Result<Attribute<'a>, Refused> {
        self.part()?;
        let mut attribute = Attribute::default();
        let mut has_graph = false;
        let mut fields = Fields::new(message);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Bytes(name)) => attribute.name = self.name(name)?,
                (3, Value::Varint(int)) => attribute.int = int.cast_signed(),
                (4, Value::Bytes(text)) => attribute.text = text,
                (5, Value::Bytes(_)) if attribute.tensor.is_some() => return Err(broken()),
                (5, Value::Bytes(inner)) => attribute.tensor = Some(self.tensor(inner)?),
                (6, Value::Bytes(_)) if has_graph => return Err(broken()),
                (6 | 11, Value::Bytes(inner)) => {
                    has_graph |= field == 6;
                    self.part()?;
                    attribute.graphs.push(self.graph(inner, depth + 1)?);
                }
                (8, value) => first_integers(value, &mut attribute.ints)?,
                (10, Value::Bytes(inner)) => {
                    self.part()?;
                    self.tensor(inner)?;
                }
                (22 | 23, Value::Bytes(inner)) => {
                    self.part()?;
                    self.sparse(inner)?;
                }
                _ => {}
            }
        }
        Ok(attribute)
    }

    fn value_info(&mut self, message: &'a [u8]) -> Result<ValueInfo<'a>, Refused> {
        self.part()?;
        let mut info = ValueInfo::default();
        let mut ty = None;
        let mut fields = Fields::new(message);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Bytes(name)) => info.name = self.name(name)?,
                (2, Value::Bytes(_)) if ty.is_some() => return Err(broken()),
                (2, Value::Bytes(inner)) => ty = Some(inner),
                _ => {}
            }
        }
        // Sequences, maps and optionals stay opaque: the engine says what they are, and it is no tensor.
        if let Some(tensor) = message_in(ty.unwrap_or_default(), 1)? {
            let (mut dtype, mut shape) = (0, None);
            let mut fields = Fields::new(tensor);
            while let Some((field, value)) = fields.next()? {
                match (field, value) {
                    (1, Value::Varint(number)) => dtype = i32::try_from(number).unwrap_or(-1),
                    (2, Value::Bytes(_)) if shape.is_some() => return Err(broken()),
                    (2, Value::Bytes(inner)) => shape = Some(inner),
                    _ => {}
                }
            }
            if let Some(shape) = shape {
                let dims = self.shape(shape)?;
                let fixed: Vec<i64> = dims
                    .iter()
                    .filter_map(|dim| if let Dim::Fixed(size) = dim { Some(*size) } else { None })
                    .collect();
                claimed(&fixed, bits(dtype).unwrap_or(8), info.name)?;
                info.dims = Some(dims);
            }
        }
        Ok(info)
    }

    fn shape(&mut self, message: &'a [u8]) -> Result<Vec<Dim<'a>>, Refused> {
        let mut dims = Vec::new();
        let mut fields = Fields::new(message);
        while let Some((field, value)) = fields.next()? {
            let (1, Value::Bytes(inner)) = (field, value) else { continue };
            self.part()?;
            let mut dim = Dim::Any;
            let mut fields = Fields::new(inner);
            while let Some((field, value)) = fields.next()? {
                dim = match (field, value) {
                    // Converters write -1 and 0 for "any".
                    (1, Value::Varint(size)) if size.cast_signed() <= 0 => Dim::Any,
                    (1, Value::Varint(size)) => Dim::Fixed(size.cast_signed()),
                    (2, Value::Bytes(name)) => match self.name(name)? {
                        "" => Dim::Any,
                        name => Dim::Named(name),
                    },
                    _ => dim,
                };
            }
            dims.push(dim);
        }
        Ok(dims)
    }

    /// A name, of which there may be many and which may not be long.
    pub(super) fn name(&mut self, bytes: &'a [u8]) -> Result<&'a str, Refused> {
        self.part()?;
        if bytes.len() > MAX_STRING {
            let start = String::from_utf8_lossy(&bytes[..40]);
            let what = format!(
                "the name that begins with {} has {} bytes, at most {MAX_STRING} are allowed",
                shown(&start),
                bytes.len()
            );
            return Err(Refused::new(Kind::Limit, what, "rename it"));
        }
        text(bytes)
    }

    /// A repeated integer field, packed or not.
    pub(super) fn integers(
        &mut self,
        value: Value<'_>,
        out: &mut Vec<i64>,
        most: usize,
    ) -> Result<(), Refused> {
        match value {
            Value::Varint(number) => {
                self.part()?;
                out.push(number.cast_signed());
            }
            Value::Bytes(mut packed) => {
                while !packed.is_empty() {
                    self.part()?;
                    out.push(varint(&mut packed)?.cast_signed());
                    if out.len() > most {
                        break;
                    }
                }
            }
            Value::Fixed32 | Value::Fixed64 => {}
        }
        if out.len() > most {
            return Err(too_many("dimensions of a tensor", most));
        }
        Ok(())
    }

    fn part(&mut self) -> Result<(), Refused> {
        self.parts += 1;
        if self.parts > MAX_PARTS { Err(too_many("parts", MAX_PARTS)) } else { Ok(()) }
    }
}

fn too_many(what: &str, most: usize) -> Refused {
    Refused::new(
        Kind::Limit,
        format!("the model has too many {what}, at most {most} are allowed"),
        "simplify it",
    )
}

/// The first integers of a list. Trees keep millions in such lists, and what the gate looks at is never long.
fn first_integers(value: Value<'_>, out: &mut Vec<i64>) -> Result<(), Refused> {
    let mut packed = match value {
        Value::Varint(number) if out.len() < MAX_DIMS => {
            out.push(number.cast_signed());
            return Ok(());
        }
        Value::Bytes(packed) => packed,
        _ => return Ok(()),
    };
    while !packed.is_empty() && out.len() < MAX_DIMS {
        out.push(varint(&mut packed)?.cast_signed());
    }
    Ok(())
}

/// The one message in a field.
fn message_in(message: &[u8], wanted: u32) -> Result<Option<&[u8]>, Refused> {
    let mut found = None;
    let mut fields = Fields::new(message);
    while let Some((field, value)) = fields.next()? {
        if let (true, Value::Bytes(inner)) = (field == wanted, value)
            && found.replace(inner).is_some()
        {
            return Err(broken());
        }
    }
    Ok(found)
}

impl<'a> Node<'a> {
    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute<'a>> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name).map(|attribute| attribute.int)
    }

    pub(super) fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    /// Domain, with the two names of the standard one made equal.
    pub(super) fn domain(&self) -> &'a str {
        if self.domain == "ai.onnx" { "" } else { self.domain }
    }

    /// As it stands in messages.
    pub(super) fn shown(&self) -> String {
        format!("operator {} of node {}", shown(self.op), shown(self.name))
    }
}
