//! What a graph must be before an engine resolves it: every value comes from somewhere and before its use, and
//! every operator is one that the engines have by themselves.

use std::collections::{HashMap, HashSet};

use super::{
    MAX_GRAPH_DEPTH, MAX_NODES,
    onnx::{Function, Graph, Model, Node},
    refused::{Kind, Refused, shown},
};

/// Domains of operators that ONNX Runtime ships.
const DOMAINS: [&str; 3] = ["", "ai.onnx.ml", "com.microsoft"];

/// Operators of these domains that load what lies outside of the model.
const FOREIGN: [&str; 4] = ["EPContext", "Snpe", "PythonOp", "PythonOpGrad"];

type Functions<'m, 'a> = HashMap<(&'a str, &'a str), (&'m Function<'a>, Option<usize>)>;

/// Checks all graphs; gives the number of nodes with functions expanded.
pub(super) fn check(model: &Model<'_>) -> Result<usize, Refused> {
    let mut functions: Functions<'_, '_> = HashMap::new();
    for function in &model.functions {
        let domain = if function.domain == "ai.onnx" { "" } else { function.domain };
        if DOMAINS.contains(&domain) {
            let what = format!("function {} would replace an operator of the engine", shown(function.name));
            return Err(Refused::new(Kind::Operator, what, "give it a domain of its own"));
        }
        if functions.insert((domain, function.name), (function, None)).is_some() {
            let what = format!("function {} is defined twice", shown(function.name));
            return Err(Refused::new(Kind::Graph, what, "export the model again"));
        }
    }
    for function in &model.functions {
        let mut scopes = vec![function.inputs.iter().copied().collect()];
        nodes(&function.nodes, &mut scopes, &functions)?;
        outputs(function.outputs.iter().copied(), &scopes)?;
        expanded(&function.nodes, &mut functions, 0)?;
    }
    graph(&model.graph, &mut Vec::new(), &functions)?;
    expanded(&model.graph.nodes, &mut functions, 0)
}

fn graph<'a>(
    graph: &Graph<'a>,
    scopes: &mut Vec<HashSet<&'a str>>,
    functions: &Functions<'_, '_>,
) -> Result<(), Refused> {
    let mut known: HashSet<&str> = graph.inputs.iter().map(|input| input.name).collect();
    known.extend(graph.initializers.iter().map(|tensor| tensor.name));
    known.extend(&graph.sparse);
    scopes.push(known);
    nodes(&graph.nodes, scopes, functions)?;
    outputs(graph.outputs.iter().map(|output| output.name), scopes)?;
    scopes.pop();
    Ok(())
}

fn outputs<'a>(names: impl Iterator<Item = &'a str>, scopes: &[HashSet<&str>]) -> Result<(), Refused> {
    for name in names {
        if !name.is_empty() && !scopes.iter().any(|scope| scope.contains(name)) {
            let what = format!("nothing produces the output {}", shown(name));
            return Err(Refused::new(Kind::Graph, what, "export the model again"));
        }
    }
    Ok(())
}

/// Walks nodes in their order; the innermost scope takes their outputs.
fn nodes<'a>(
    nodes: &[Node<'a>],
    scopes: &mut Vec<HashSet<&'a str>>,
    functions: &Functions<'_, '_>,
) -> Result<(), Refused> {
    for (index, node) in nodes.iter().enumerate() {
        operator(node, functions)?;
        for input in node.inputs.iter().filter(|name| !name.is_empty()) {
            if !scopes.iter().any(|scope| scope.contains(input)) {
                let later = nodes[index..].iter().any(|node| node.outputs.contains(input));
                let what = if later {
                    format!("{} uses {} before any node produces it", node.shown(), shown(input))
                } else {
                    format!("{} uses {}, which nothing produces", node.shown(), shown(input))
                };
                let advice = "the graph is cyclic or unsorted: export the model again";
                return Err(Refused::new(Kind::Graph, what, advice));
            }
        }
        for inner in node.attributes.iter().flat_map(|attribute| &attribute.graphs) {
            graph(inner, scopes, functions)?;
        }
        for output in node.outputs.iter().filter(|name| !name.is_empty()) {
            if !scopes.last_mut().is_some_and(|scope| scope.insert(output)) {
                let what = format!("{} produces {}, which exists already", node.shown(), shown(output));
                return Err(Refused::new(Kind::Graph, what, "export the model again"));
            }
        }
    }
    Ok(())
}

fn operator(node: &Node<'_>, functions: &Functions<'_, '_>) -> Result<(), Refused> {
    let mut names = HashSet::new();
    if !node.attributes.iter().all(|attribute| names.insert(attribute.name)) {
        let what = format!("{} has an attribute twice", node.shown());
        return Err(Refused::new(Kind::Graph, what, "export the model again"));
    }
    if functions.contains_key(&(node.domain(), node.op)) {
        return Ok(());
    }
    if !DOMAINS.contains(&node.domain()) {
        let what = format!("{} is of the custom domain {}", node.shown(), shown(node.domain));
        let advice = "use operators of ai.onnx, ai.onnx.ml and com.microsoft only";
        return Err(Refused::new(Kind::Operator, what, advice));
    }
    if FOREIGN.contains(&node.op) {
        let what = format!("{} runs what lies outside of the model", node.shown());
        return Err(Refused::new(Kind::Operator, what, "export the model without it"));
    }
    Ok(())
}

/// Nodes when every call of a function is replaced by its body, as engines do: a few lines can stand for
/// any number.
fn expanded<'a>(
    nodes: &[Node<'a>],
    functions: &mut Functions<'_, 'a>,
    depth: usize,
) -> Result<usize, Refused> {
    if depth > MAX_GRAPH_DEPTH * 2 {
        let what = "functions call each other too deeply or in a circle";
        return Err(Refused::new(Kind::Limit, what, "inline the functions"));
    }
    let mut total = 0usize;
    for node in nodes {
        let mut own = 1;
        if let Some((function, size)) = functions.get(&(node.domain(), node.op)).copied() {
            own = match size {
                Some(size) => size,
                None => {
                    let size = expanded(&function.nodes, functions, depth + 1)?;
                    functions.insert((node.domain(), node.op), (function, Some(size)));
                    size
                }
            };
        }
        for inner in node.attributes.iter().flat_map(|attribute| &attribute.graphs) {
            own += expanded(&inner.nodes, functions, depth + 1)?;
        }
        total += own;
        if total > MAX_NODES {
            let what = format!("the model's functions stand for more than {MAX_NODES} nodes");
            return Err(Refused::new(Kind::Limit, what, "simplify it"));
        }
    }
    Ok(total)
}
