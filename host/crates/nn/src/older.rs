//! `wasi:nn@0.2.0-rc-2024-08-19` and `-2024-06-25`. A pre-release matches by its exact version, so a guest that was built
//! against one needs it linked; both differ from 2024-10-28 only in that inputs and outputs are passed in steps.

/// One older version. The generated types of each are distinct, so each needs its implementations; the resources
/// behind them and all that they do are shared.
macro_rules! version {
    ($module:ident, $path:tt, $($error:tt)*) => {
        pub(crate) mod $module {
            #[allow(missing_docs, unreachable_pub, reason = "generated")]
            mod bindings {
                wasmtime::component::bindgen!({
                    path: $path,
                    world: "ml",
                    imports: { default: async | trappable },
                    with: {
                        "wasi:nn/errors.error": crate::errors::NnError,
                        "wasi:nn/tensor.tensor": crate::tensor::GuestTensor,
                        "wasi:nn/graph.graph": crate::graph::Graph,
                        "wasi:nn/inference.graph-execution-context": crate::steps::Steps,
                    },
                });
            }

            use wasmtime::component::{Linker, Resource};

            use bindings::wasi::nn::errors::{self, ErrorCode};
            use bindings::wasi::nn::graph::{self, ExecutionTarget, GraphBuilder, GraphEncoding};
            use bindings::wasi::nn::inference;
            use bindings::wasi::nn::tensor::{self, TensorType};

            use crate::bindings as newest;
            use crate::call::Count;
            use crate::ctx::{HasNn, NnCtx, NnCtxView, NnView};
            use crate::errors::NnError;
            use crate::graph::Graph;
            use crate::steps::Steps;
            use crate::tensor::GuestTensor;

            pub(crate) fn add_to_linker<T: NnView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
                errors::add_to_linker::<T, HasNn>(linker, T::nn)?;
                tensor::add_to_linker::<T, HasNn>(linker, T::nn)?;
                graph::add_to_linker::<T, HasNn>(linker, T::nn)?;
                inference::add_to_linker::<T, HasNn>(linker, T::nn)
            }

            impl errors::Host for NnCtxView<'_> {}

            impl errors::HostError for NnCtxView<'_> {
                $($error)*

                async fn code(&mut self, error: Resource<NnError>) -> wasmtime::Result<ErrorCode> {
                    use newest::errors::ErrorCode as New;
                    Ok(match self.table.get(&error)?.code {
                        New::InvalidArgument => ErrorCode::InvalidArgument,
                        New::InvalidEncoding => ErrorCode::InvalidEncoding,
                        New::Timeout => ErrorCode::Timeout,
                        New::RuntimeError => ErrorCode::RuntimeError,
                        New::UnsupportedOperation => ErrorCode::UnsupportedOperation,
                        New::TooLarge => ErrorCode::TooLarge,
                        New::NotFound => ErrorCode::NotFound,
                        New::Security => ErrorCode::Security,
                        New::Unknown => ErrorCode::Unknown,
                    })
                }

                async fn data(&mut self, error: Resource<NnError>) -> wasmtime::Result<String> {
                    newest::errors::HostError::data(self, error).await
                }

                async fn drop(&mut self, error: Resource<NnError>) -> wasmtime::Result<()> {
                    newest::errors::HostError::drop(self, error).await
                }
            }

            impl tensor::Host for NnCtxView<'_> {}

            impl tensor::HostTensor for NnCtxView<'_> {
                async fn new(
                    &mut self,
                    dims: Vec<u32>,
                    ty: TensorType,
                    data: Vec<u8>,
                ) -> wasmtime::Result<Resource<GuestTensor>> {
                    use newest::tensor::TensorType as New;
                    let ty = match ty {
                        TensorType::Fp16 => New::Fp16,
                        TensorType::Fp32 => New::Fp32,
                        TensorType::Fp64 => New::Fp64,
                        TensorType::Bf16 => New::Bf16,
                        TensorType::U8 => New::U8,
                        TensorType::I32 => New::I32,
                        TensorType::I64 => New::I64,
                    };
                    self.push_tensor(GuestTensor::new(dims, ty, data))
                }

                async fn dimensions(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<Vec<u32>> {
                    Ok(self.table.get(&tensor)?.dims().to_vec())
                }

                async fn ty(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<TensorType> {
                    use newest::tensor::TensorType as New;
                    Ok(match self.table.get(&tensor)?.kind() {
                        New::Fp16 => TensorType::Fp16,
                        New::Fp32 => TensorType::Fp32,
                        New::Fp64 => TensorType::Fp64,
                        New::Bf16 => TensorType::Bf16,
                        New::U8 => TensorType::U8,
                        New::I32 => TensorType::I32,
                        New::I64 => TensorType::I64,
                    })
                }

                async fn data(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<Vec<u8>> {
                    Ok(self.table.get(&tensor)?.data().to_vec())
                }

                async fn drop(&mut self, tensor: Resource<GuestTensor>) -> wasmtime::Result<()> {
                    newest::tensor::HostTensor::drop(self, tensor).await
                }
            }

            impl graph::Host for NnCtxView<'_> {
                async fn load(
                    &mut self,
                    builder: Vec<GraphBuilder>,
                    encoding: GraphEncoding,
                    target: ExecutionTarget,
                ) -> wasmtime::Result<Result<Resource<Graph>, Resource<NnError>>> {
                    use newest::graph::{ExecutionTarget as Target, GraphEncoding as Encoding};
                    let encoding = match encoding {
                        GraphEncoding::Openvino => Encoding::Openvino,
                        GraphEncoding::Onnx => Encoding::Onnx,
                        GraphEncoding::Tensorflow => Encoding::Tensorflow,
                        GraphEncoding::Pytorch => Encoding::Pytorch,
                        GraphEncoding::Tensorflowlite => Encoding::Tensorflowlite,
                        GraphEncoding::Ggml => Encoding::Ggml,
                        GraphEncoding::Autodetect => Encoding::Autodetect,
                    };
                    let target = match target {
                        ExecutionTarget::Cpu => Target::Cpu,
                        ExecutionTarget::Gpu => Target::Gpu,
                        ExecutionTarget::Tpu => Target::Tpu,
                    };
                    self.fail(NnCtx::refuse_load(builder.len(), encoding, target))
                }

                async fn load_by_name(
                    &mut self,
                    name: String,
                ) -> wasmtime::Result<Result<Resource<Graph>, Resource<NnError>>> {
                    newest::graph::Host::load_by_name(self, name).await
                }
            }

            impl graph::HostGraph for NnCtxView<'_> {
                async fn init_execution_context(
                    &mut self,
                    graph: Resource<Graph>,
                ) -> wasmtime::Result<Result<Resource<Steps>, Resource<NnError>>> {
                    let model = self.table.get(&graph)?.model.clone();
                    match self.ctx.take(Count::Context) {
                        Ok(()) => Ok(Ok(self.table.push(Steps::new(model))?)),
                        Err(error) => self.fail(error),
                    }
                }

                async fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
                    newest::graph::HostGraph::drop(self, graph).await
                }
            }

            impl inference::Host for NnCtxView<'_> {}

            impl inference::HostGraphExecutionContext for NnCtxView<'_> {
                async fn set_input(
                    &mut self,
                    context: Resource<Steps>,
                    name: String,
                    tensor: Resource<GuestTensor>,
                ) -> wasmtime::Result<Result<(), Resource<NnError>>> {
                    self.set_input(&context, name, tensor)
                }

                async fn compute(
                    &mut self,
                    context: Resource<Steps>,
                ) -> wasmtime::Result<Result<(), Resource<NnError>>> {
                    self.compute_steps(&context).await
                }

                async fn get_output(
                    &mut self,
                    context: Resource<Steps>,
                    name: String,
                ) -> wasmtime::Result<Result<Resource<GuestTensor>, Resource<NnError>>> {
                    self.output(&context, &name)
                }

                async fn drop(&mut self, context: Resource<Steps>) -> wasmtime::Result<()> {
                    self.drop_steps(context)
                }
            }
        }
    };
}

version!(august, "../../../wit/deps-nn-2024-08-19",);
version!(
    june,
    "../../../wit/deps-nn-2024-06-25",
    async fn new(&mut self, code: ErrorCode, data: String) -> wasmtime::Result<Resource<NnError>> {
        use newest::errors::ErrorCode as New;
        let code = match code {
            ErrorCode::InvalidArgument => New::InvalidArgument,
            ErrorCode::InvalidEncoding => New::InvalidEncoding,
            ErrorCode::Timeout => New::Timeout,
            ErrorCode::RuntimeError => New::RuntimeError,
            ErrorCode::UnsupportedOperation => New::UnsupportedOperation,
            ErrorCode::TooLarge => New::TooLarge,
            ErrorCode::NotFound => New::NotFound,
            ErrorCode::Security => New::Security,
            ErrorCode::Unknown => New::Unknown,
        };
        // No error of ours is longer; what a guest keeps on the host stays small.
        Ok(self.table.push(NnError::new(code, data.chars().take(1024).collect::<String>()))?)
    }
);

use wasmtime::component::Resource;

use crate::ctx::NnCtxView;
use crate::errors::NnError;
use crate::steps::Steps;
use crate::tensor::GuestTensor;

impl NnCtxView<'_> {
    pub(crate) fn set_input(
        &mut self,
        context: &Resource<Steps>,
        name: String,
        tensor: Resource<GuestTensor>,
    ) -> wasmtime::Result<Result<(), Resource<NnError>>> {
        // Its bytes go on counting: the context holds what the guest held.
        let guest = self.table.delete(tensor)?;
        let set = match guest.checked() {
            Ok(tensor) => self.table.get_mut(context)?.set_input(name, tensor).map_err(|(error, _)| error),
            Err(error) => {
                let shown: String = name.chars().take(64).collect();
                Err(NnError::new(error.code, format!("input {shown:?}: {}", error.data)))
            }
        };
        match set {
            Ok(freed) => {
                self.ctx.release(freed);
                Ok(Ok(()))
            }
            Err(error) => {
                self.ctx.release(guest.bytes());
                self.fail(error)
            }
        }
    }

    pub(crate) async fn compute_steps(
        &mut self,
        context: &Resource<Steps>,
    ) -> wasmtime::Result<Result<(), Resource<NnError>>> {
        let (model, inputs) = self.table.get(context)?.prepared();
        let answer = self.ctx.compute(&model, inputs).await;
        let kept = match answer {
            Ok(outputs) => self.table.get_mut(context)?.finish(self.ctx, outputs),
            Err(error) => Err(error),
        };
        match kept {
            Ok(()) => Ok(Ok(())),
            Err(error) => self.fail(error),
        }
    }

    pub(crate) fn output(
        &mut self,
        context: &Resource<Steps>,
        name: &str,
    ) -> wasmtime::Result<Result<Resource<GuestTensor>, Resource<NnError>>> {
        let tensor = self.table.get(context)?.output(name).cloned().map(GuestTensor::from_tensor);
        let held = tensor.and_then(|tensor| self.ctx.hold(tensor.bytes()).map(|()| tensor));
        match held {
            Ok(tensor) => Ok(Ok(self.table.push(tensor)?)),
            Err(error) => self.fail(error),
        }
    }

    pub(crate) fn drop_steps(&mut self, context: Resource<Steps>) -> wasmtime::Result<()> {
        let steps = self.table.delete(context)?;
        self.ctx.release(steps.bytes());
        self.ctx.give(crate::call::Count::Context);
        Ok(())
    }
}
