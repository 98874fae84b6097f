use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use super::{
    super::{
        onnx::{Dim, Graph, Node, ValueInfo},
        refused::shown,
        tensor::{BOOL, INT32, INT64},
    },
    arrange, compute,
    fact::{Fact, Rows},
    index, integers,
    size::Size,
};

/// The inputs that a caller gives: a value with a default is a constant here.
pub(super) fn inputs<'g, 'a>(graph: &'g Graph<'a>) -> impl Iterator<Item = &'g ValueInfo<'a>> {
    let constants: HashSet<&str> =
        graph.initializers.iter().map(|tensor| tensor.name).chain(graph.sparse.iter().copied()).collect();
    graph.inputs.iter().filter(move |input| !constants.contains(input.name))
}

/// The walk: what is known of every value so far.
pub(super) struct Walk<'a> {
    facts: HashMap<&'a str, Fact>,
    pub(super) opset: i64,
    next: u32,
    /// Unknowns that are the smaller one of another unknown and a number above 1.
    clipped: HashMap<u32, u32>,
    /// What two different sizes give when one of them is stretched to the other.
    stretched: HashMap<(Size, Size), Size>,
}

/// One node under the rules.
pub(super) struct At<'w, 'g, 'a> {
    pub(super) walk: &'w mut Walk<'a>,
    pub(super) node: &'g Node<'a>,
}

/// What a rule gives: facts of the outputs, or why it cannot.
pub(super) type Given = Result<Vec<Fact>, String>;

impl<'a> Walk<'a> {
    pub(super) fn new(graph: &Graph<'a>, batch: Option<&str>, opset: i64) -> Self {
        let mut walk = Self {
            facts: HashMap::new(),
            opset,
            next: 0,
            clipped: HashMap::new(),
            stretched: HashMap::new(),
        };
        let mut named: HashMap<&str, Size> = HashMap::new();
        for input in inputs(graph) {
            let mut shape = vec![Size::batch()];
            let mut mixed = false;
            for dim in input.dims.iter().flatten().skip(1) {
                shape.push(match dim {
                    Dim::Fixed(size) => Size::number(*size),
                    Dim::Named(name) => {
                        mixed |= Some(*name) == batch;
                        named.entry(name).or_insert_with(|| walk.unknown()).clone()
                    }
                    Dim::Any => walk.unknown(),
                });
            }
            let fact = if mixed {
                Fact::lost(&format!("input {} has the batch dimension twice", shown(input.name)).into())
            } else {
                Fact::new(shape, Rows::Along(0))
            };
            walk.facts.insert(input.name, fact);
        }
        for tensor in &graph.initializers {
            walk.facts.insert(tensor.name, constant(tensor));
        }
        for name in &graph.sparse {
            walk.facts.insert(name, Fact { shape: None, rows: Rows::Free, elements: None });
        }
        walk
    }

    pub(super) fn fact(&self, name: &str) -> Option<&Fact> {
        self.facts.get(name)
    }

    /// A size that is not known, but the same beside any rows.
    pub(super) fn unknown(&mut self) -> Size {
        self.next += 1;
        Size::unknown(self.next)
    }

    /// The smaller one of a size and a number.
    pub(super) fn clip(&mut self, size: &Size, most: i64) -> Size {
        let clipped = self.unknown();
        if let (Some(of), Some(number), true) = (size.as_unknown(), clipped.as_unknown(), most > 1) {
            self.clipped.insert(number, of);
        }
        clipped
    }

    /// One dimension of two values that are stretched to each other.
    pub(super) fn stretch(&mut self, a: &Size, b: &Size) -> Result<Size, String> {
        if a == b || b.is(1) {
            return Ok(a.clone());
        }
        if a.is(1) {
            return Ok(b.clone());
        }
        if a.has_batch() || b.has_batch() {
            return Err("lays the batch beside a dimension that is none".to_owned());
        }
        match (a.as_number(), b.as_number()) {
            (Some(_), Some(_)) => return Err("has inputs whose shapes do not fit".to_owned()),
            // The other one is this number or 1.
            (Some(_), None) => return Ok(a.clone()),
            (None, Some(_)) => return Ok(b.clone()),
            (None, None) => {}
        }
        // The clipped one is either the same as the other, or a number that fits to nothing.
        for (size, other) in [(a, b), (b, a)] {
            let of = size.as_unknown().and_then(|number| self.clipped.get(&number));
            if of.is_some() && of.copied() == other.as_unknown() {
                return Ok(other.clone());
            }
        }
        let pair = (a.clone(), b.clone());
        if let Some(known) = self.stretched.get(&pair) {
            return Ok(known.clone());
        }
        let stretched = self.unknown();
        self.stretched.insert(pair, stretched.clone());
        Ok(stretched)
    }

    /// Follows one node.
    pub(super) fn node(&mut self, node: &Node<'a>) {
        let given = At { walk: self, node }.apply();
        let facts = match given {
            Ok(facts) => facts,
            Err(reason) => vec![Fact::lost(&reason.into())],
        };
        for (index, name) in node.outputs.iter().enumerate() {
            // What a rule says nothing about is lost.
            let fact = facts.get(index).cloned().unwrap_or_else(|| {
                let reason: Rc<str> = format!("{} gives more than is understood", node.shown()).into();
                match facts.first() {
                    Some(Fact { rows: Rows::Mixed(reason), .. }) => Fact::lost(reason),
                    _ => Fact::lost(&reason),
                }
            });
            if !name.is_empty() {
                self.facts.insert(name, fact);
            }
        }
    }
}

/// A tensor of the file.
pub(super) fn constant(tensor: &super::super::tensor::Tensor<'_>) -> Fact {
    let shape = tensor.dims.iter().map(|dim| Size::number(*dim)).collect();
    let integers = matches!(tensor.dtype, INT32 | INT64 | BOOL) && tensor.dims.len() < 2;
    let elements = tensor.ints.as_ref().filter(|_| integers);
    let elements = elements.map(|ints| ints.iter().map(|int| Some(Size::number(*int))).collect());
    Fact { shape: Some(shape), rows: Rows::Free, elements }
}

impl At<'_, '_, '_> {
    fn apply(&mut self) -> Given {
        let node = self.node;
        if node.attributes.iter().any(|attribute| !attribute.graphs.is_empty()) {
            return Err(format!("{} runs a graph of its own, which is not followed", node.shown()));
        }
        let result = integers::apply(self)
            .or_else(|| arrange::apply(self))
            .or_else(|| index::apply(self))
            .or_else(|| compute::apply(self))
            .unwrap_or_else(|| self.unknown_operator());
        result.map_err(|reason| {
            // What an earlier node has said already names that node.
            if reason.starts_with("operator ") || reason.starts_with("input ") {
                reason
            } else {
                format!("{} {reason}", node.shown())
            }
        })
    }

    /// An operator without a rule is harmless where nothing that it sees depends on the batch.
    fn unknown_operator(&mut self) -> Given {
        let random = ["RandomNormal", "RandomUniform", "Bernoulli", "Multinomial", "Dropout"];
        if random.iter().any(|name| self.node.op.starts_with(name)) {
            return Err("is random".to_owned());
        }
        self.all_known()?;
        for index in 0..self.node.inputs.len() {
            if self.input(index).is_some_and(|fact| !fact.is_free()) {
                return Err("is not known to keep rows apart".to_owned());
            }
        }
        let free = Fact { shape: None, rows: Rows::Free, elements: None };
        Ok(vec![free; self.node.outputs.len()])
    }

    pub(super) fn input(&self, index: usize) -> Option<&Fact> {
        let name = self.node.inputs.get(index).filter(|name| !name.is_empty())?;
        self.walk.facts.get(name)
    }

    /// An input that must be there, with its shape.
    pub(super) fn shaped(&self, index: usize) -> Result<(Vec<Size>, Rows), String> {
        let fact = self.input(index).ok_or_else(|| format!("has no input {index}"))?;
        match (&fact.shape, &fact.rows) {
            (Some(shape), rows) => Ok((shape.clone(), rows.clone())),
            (None, Rows::Mixed(reason)) => Err(reason.to_string()),
            (None, _) => Err(format!("has input {index} of a shape that is not known")),
        }
    }

    /// Refuses to go on with a value that depends on the batch in an unknown way.
    pub(super) fn all_known(&self) -> Result<(), String> {
        for index in 0..self.node.inputs.len() {
            match self.input(index).map(|fact| &fact.rows) {
                Some(Rows::Mixed(reason)) => return Err(reason.to_string()),
                Some(Rows::Number(_) | Rows::Tuple(_)) => {
                    return Err("computes with the number of the row".to_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Inputs from `first` on must not depend on the batch.
    pub(super) fn free_from(&self, first: usize) -> Result<(), String> {
        for index in first..self.node.inputs.len() {
            if self.input(index).is_some_and(|fact| !fact.is_free()) {
                return Err(format!("takes input {index} from the batch"));
            }
        }
        Ok(())
    }

    /// A dimension number, which may count from the end.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize, String> {
        let rank = i64::try_from(rank).unwrap_or(i64::MAX);
        let axis = if axis < 0 { axis.saturating_add(rank) } else { axis };
        usize::try_from(axis).ok().filter(|_| axis < rank).ok_or_else(|| "has an axis outside".to_owned())
    }

    pub(super) fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, String> {
        axes.iter().map(|axis| self.axis(*axis, rank)).collect()
    }
}
