//! Loading a model and calling it.

use crate::nn::{Element, Error, Tensor};
use crate::raw::wasi::nn::graph::load_by_name;
use crate::raw::wasi::nn::inference::GraphExecutionContext;
use crate::raw::wasi::nn::tensor::Tensor as Resource;

/// A model that the manifest's `[models] allow` names, ready to be called.
pub struct Model {
    context: GraphExecutionContext,
}

impl Model {
    /// Opens a model by its name. This reads nothing: the model is loaded on the device already,
    /// or at the first call.
    ///
    /// # Errors
    /// `not-found` for a model that does not exist or is not allowed to this function.
    pub fn load(name: &str) -> Result<Self, Error> {
        let graph = load_by_name(name)?;
        let context = graph.init_execution_context()?;
        Ok(Self { context })
    }

    /// Calls the model with named inputs and waits for its outputs.
    ///
    /// # Errors
    /// `invalid-argument` for inputs that the model does not take, `timeout`, `runtime-error` and
    /// what else the host says.
    pub fn compute<N: Into<String>>(
        &self,
        inputs: impl IntoIterator<Item = (N, Tensor)>,
    ) -> Result<Outputs, Error> {
        let inputs = inputs.into_iter().map(|(name, tensor)| {
            let name = name.into();
            let (dimensions, ty, data) = tensor.into_parts(&name)?;
            Ok((name, Resource::new(&dimensions, ty, &data)))
        });
        let inputs = inputs.collect::<Result<Vec<_>, Error>>()?;
        Ok(Outputs { tensors: self.context.compute(inputs)? })
    }
}

/// What a model answered. Nothing is copied into the guest before it is asked for.
pub struct Outputs {
    tensors: Vec<(String, Resource)>,
}

impl Outputs {
    /// The names, in the model's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|(name, _)| name.as_str())
    }

    /// One output.
    ///
    /// # Errors
    /// `invalid-argument` with the names that there are.
    pub fn get(&self, name: &str) -> Result<Tensor, Error> {
        let Some((_, tensor)) = self.tensors.iter().find(|(n, _)| n == name) else {
            let names = self.names().collect::<Vec<_>>().join(", ");
            return Err(Error::invalid(format!("the model has no output {name:?}, only: {names}")));
        };
        Ok(Tensor::raw(tensor.dimensions(), tensor.ty(), tensor.data()))
    }

    /// The only output, whatever its name.
    ///
    /// # Errors
    /// `invalid-argument` if there are none or several.
    pub fn single(&self) -> Result<Tensor, Error> {
        match self.tensors.as_slice() {
            [(name, _)] => self.get(name),
            several => Err(Error::invalid(format!("the model has {} outputs, not one", several.len()))),
        }
    }

    /// The values of one output.
    ///
    /// # Errors
    /// `invalid-argument` if there is no such output or it holds another type.
    pub fn values<T: Element>(&self, name: &str) -> Result<Vec<T>, Error> {
        self.get(name)?.values()
    }

    /// The values of an `FP32` output; errors as [`Outputs::values`].
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, Error> {
        self.values(name)
    }

    /// The values of an `I64` output; errors as [`Outputs::values`].
    pub fn i64(&self, name: &str) -> Result<Vec<i64>, Error> {
        self.values(name)
    }

    /// The values of an `I32` output; errors as [`Outputs::values`].
    pub fn i32(&self, name: &str) -> Result<Vec<i32>, Error> {
        self.values(name)
    }
}
