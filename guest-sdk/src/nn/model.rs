//! Loading a model and calling it.

use crate::nn::{Element, Error, Tensor, tensor};
use crate::raw::wasi::nn::graph::load_by_name;
use crate::raw::wasi::nn::inference::GraphExecutionContext;
use crate::raw::wasi::nn::tensor::Tensor as Resource;
use crate::raw::wasmeter::nn::inflight::{self, start};

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
        Ok(Outputs { tensors: self.context.compute(resources(inputs)?)? })
    }

    /// Starts a call and does not wait for it: several may be under way at one time, and the function can do
    /// other things meanwhile.
    ///
    /// ```no_run
    /// # use wasmeter_guest::nn::{Error, Model, Outputs, Tensor};
    /// # fn run(model: &Model, left: Tensor, right: Tensor) -> Result<(Outputs, Outputs), Error> {
    /// let (left, right) = (model.start([("x", left)])?, model.start([("x", right)])?);
    /// # Ok((left.wait()?, right.wait()?)) }
    /// ```
    ///
    /// # Errors
    /// `too-large` if too many calls are under way. What [`Model::compute`] refuses, [`Pending::wait`] says.
    pub fn start<N: Into<String>>(
        &self,
        inputs: impl IntoIterator<Item = (N, Tensor)>,
    ) -> Result<Pending, Error> {
        Ok(Pending { pending: start(&self.context, resources(inputs)?)? })
    }
}

fn resources<N: Into<String>>(
    inputs: impl IntoIterator<Item = (N, Tensor)>,
) -> Result<Vec<(String, Resource)>, Error> {
    let resource = |(name, tensor): (N, Tensor)| {
        let name = name.into();
        let (dimensions, ty, data) = tensor.into_parts(&name)?;
        Ok((name, Resource::new(&dimensions, ty, &data)))
    };
    inputs.into_iter().map(resource).collect()
}

/// A call that was started. Dropping it gives it up.
pub struct Pending {
    pending: inflight::Pending,
}

impl Pending {
    /// Whether [`Pending::wait`] would answer at once.
    pub fn is_ready(&mut self) -> bool {
        self.pending.subscribe().ready()
    }

    /// Waits for the outputs.
    ///
    /// # Errors
    /// As [`Model::compute`].
    pub fn wait(self) -> Result<Outputs, Error> {
        loop {
            if let Some(answer) = self.pending.get() {
                return Ok(Outputs { tensors: answer? });
            }
            self.pending.subscribe().block();
        }
    }

    /// The pollable of this call, to wait for several things at a time with [`crate::raw`]'s `wasi:io/poll`.
    /// Drop it before the call.
    pub fn subscribe(&self) -> crate::raw::wasi::io::poll::Pollable {
        self.pending.subscribe()
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
        let tensor = self.find(name)?;
        Ok(Tensor::raw(tensor.dimensions(), tensor.ty(), tensor.data()))
    }

    fn find(&self, name: &str) -> Result<&Resource, Error> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor).ok_or_else(|| {
            let names = self.names().collect::<Vec<_>>().join(", ");
            Error::invalid(format!("the model has no output {name:?}, only: {names}"))
        })
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
        let tensor = self.find(name)?;
        tensor::values(tensor.ty(), &tensor.data())
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
