// The platform, for functions in JavaScript: `import { env, json, load, tensor, values } from 'wasmeter'`.
import { getEnvironment } from 'wasi:cli/environment@0.2.10';
import { loadByName } from 'wasi:nn/graph@0.2.0-rc-2024-10-28';
import { Tensor } from 'wasi:nn/tensor@0.2.0-rc-2024-10-28';

const ARRAYS = {
  FP32: Float32Array,
  FP64: Float64Array,
  U8: Uint8Array,
  I32: Int32Array,
  I64: BigInt64Array,
};

/** What went wrong at a model; `code` is wasi:nn's, such as `not-found`, `security` or `invalid-argument`. */
export class ModelError extends Error {
  constructor(code, message) {
    super(message);
    this.name = 'ModelError';
    this.code = code;
  }
}

/** wasi:nn's errors are resources in `payload`: makes them errors that say something. */
function told(call) {
  try {
    return call();
  } catch (error) {
    const reason = error.payload;
    if (typeof reason?.code !== 'function') throw error;
    throw new ModelError(reason.code(), `${reason.code()}: ${reason.data()}`);
  }
}

/**
 * A tensor from a typed array, row by row; its kind of numbers is the array's.
 * @param {number[]} shape sizes of the dimensions
 * @param {Float32Array | Float64Array | Uint8Array | Int32Array | BigInt64Array} numbers as many as the shape holds
 */
export function tensor(shape, numbers) {
  const found = Object.entries(ARRAYS).find(([, array]) => numbers instanceof array);
  if (!found) throw new TypeError('a tensor takes a Float32Array, Float64Array, Uint8Array, Int32Array or BigInt64Array');
  const count = shape.reduce((a, b) => a * b, 1);
  if (count !== numbers.length) throw new RangeError(`the shape [${shape}] holds ${count} numbers, not ${numbers.length}`);
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  return new Tensor(new Uint32Array(shape), found[0], bytes);
}

/** The numbers of a tensor, as a typed array. */
export function values(tensor) {
  const array = ARRAYS[tensor.ty()];
  if (!array) throw new TypeError(`JavaScript has no array for tensors of ${tensor.ty()}`);
  // A copy: what the host gave may lie at an odd place.
  return new array(tensor.data().slice().buffer);
}

/**
 * A model by a name from the manifest's `[models] allow`.
 * @returns {(inputs: Record<string, Tensor>) => Record<string, Tensor>} computes outputs by name from inputs by name
 * @throws {ModelError}
 */
export function load(name) {
  const context = told(() => loadByName(name).initExecutionContext());
  return (inputs) => Object.fromEntries(told(() => context.compute(Object.entries(inputs))));
}

/** The manifest's `[env]`. To be asked while a request is handled: at build time there is none. */
export function env() {
  return Object.fromEntries(getEnvironment());
}

/** An answer in JSON. */
export function json(value, status = 200) {
  return new Response(`${JSON.stringify(value)}\n`, { status, headers: { 'content-type': 'application/json' } });
}
