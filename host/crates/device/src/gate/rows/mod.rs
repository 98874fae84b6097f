//! Whether rows of several callers may share a run: a walk over the graph that follows where the batch lies in
//! every value. What an operator does to it is a table of rules; an operator, attribute or shape without a
//! rule ends the walk there, and a model whose outputs the walk does not reach is not batched.

mod arrange;
mod compute;
mod fact;
mod index;
mod integers;
mod size;
mod walk;

use wasmeter_inference::Batching;

use self::{
    fact::{Fact, Rows},
    walk::Walk,
};
use super::{
    onnx::{Dim, Graph, Model},
    refused::shown,
};

/// Finds out whether a model's batches can be put together from rows.
pub(super) fn batching(model: &Model<'_>) -> Batching {
    match rows(model) {
        Ok(()) => Batching::Rows,
        Err(reason) => Batching::Off(reason),
    }
}

fn rows(model: &Model<'_>) -> Result<(), String> {
    let graph = &model.graph;
    let batch = batch_dimension(graph)?;
    let opset = model.opsets.iter().find(|(domain, _)| matches!(*domain, "" | "ai.onnx"));
    let mut walk = Walk::new(graph, batch, opset.map_or(1, |(_, version)| *version));
    for node in &graph.nodes {
        walk.node(node);
    }
    for output in &graph.outputs {
        let name = shown(output.name);
        let Some(Fact { shape, rows, .. }) = walk.fact(output.name) else {
            return Err(format!("output {name} comes from nowhere"));
        };
        match (rows, shape.as_deref()) {
            (Rows::Along(0), Some([first, ..])) if first.is_batch() => {}
            (Rows::Mixed(reason), _) => return Err(reason.to_string()),
            (Rows::Free, _) => return Err(format!("output {name} does not depend on the batch")),
            _ => return Err(format!("dimension 0 of output {name} is not the batch")),
        }
    }
    if graph.outputs.is_empty() { Err("the model has no outputs".to_owned()) } else { Ok(()) }
}

/// The name of dimension 0 of all inputs, if it has one.
fn batch_dimension<'a>(graph: &Graph<'a>) -> Result<Option<&'a str>, String> {
    let mut found: Option<Dim<'a>> = None;
    for input in walk::inputs(graph) {
        let name = shown(input.name);
        let first = match input.dims.as_deref() {
            None => return Err(format!("input {name} has no declared shape")),
            Some([]) => return Err(format!("input {name} is a scalar")),
            Some([Dim::Fixed(size), ..]) => {
                return Err(format!("dimension 0 of input {name} is fixed to {size}"));
            }
            Some([first, ..]) => *first,
        };
        match found {
            Some(other) if other != first => {
                return Err(format!("dimension 0 of input {name} is another one than that of the others"));
            }
            _ => found = Some(first),
        }
    }
    match found {
        None => Err("the model has no inputs".to_owned()),
        Some(Dim::Named(name)) => Ok(Some(name)),
        Some(_) => Ok(None),
    }
}
