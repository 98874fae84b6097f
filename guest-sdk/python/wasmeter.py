"""The platform, for functions in Python.

A function is a module with a handler, and this line: IncomingHandler = wasmeter.serve(handle)
"""

import array
import json as _json
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from urllib.parse import parse_qsl, urlsplit

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import environment, graph, types
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.tensor import Tensor, TensorType

_READ = 64 << 10
_CODES = {
    TensorType.FP32: "f",
    TensorType.FP64: "d",
    TensorType.U8: "B",
    TensorType.I32: "i",
    TensorType.I64: "q",
}


class ModelError(Exception):
    """What went wrong at a model. `code` is wasi:nn's, such as "not-found", "security" or "invalid-argument"."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True)
class Request:
    """A request, as a whole. `path` is what follows the function's name; of a query key that comes twice the last counts."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def json(self):
        """The body as JSON; ValueError where it is none."""
        return _json.loads(self.body)


@dataclass
class Response:
    """An answer. A body of several pieces is streamed: each goes to the caller when it is there."""

    body: bytes | str | Iterable[bytes] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/plain; charset=utf-8"})


def json(value, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(_json.dumps(value) + "\n", status, {"content-type": "application/json"})


def env() -> dict[str, str]:
    """The manifest's [env]. `os.environ` is that of the build, since the interpreter was started there."""
    return dict(environment.get_environment())


def tensor(shape: Sequence[int], numbers: Sequence[float], kind: TensorType = TensorType.FP32) -> Tensor:
    """A tensor from numbers, row by row."""
    if prod(shape) != len(numbers):
        raise ValueError(f"the shape {list(shape)} holds {prod(shape)} numbers, not {len(numbers)}")
    return Tensor(list(shape), kind, array.array(_code(kind), numbers).tobytes())


def values(tensor: Tensor) -> list[float]:
    """The numbers of a tensor, row by row."""
    return array.array(_code(tensor.ty()), tensor.data()).tolist()


def _code(kind: TensorType) -> str:
    if kind not in _CODES:
        raise ValueError(f"Python has no array for tensors of {kind.name}")
    return _CODES[kind]


def load(name: str) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """A model by a name from the manifest's [models] allow: computes outputs by name from inputs by name."""
    context = _told(lambda: graph.load_by_name(name).init_execution_context())
    return lambda inputs: dict(_told(lambda: context.compute(list(inputs.items()))))


def _told(call):
    try:
        return call()
    except Err as error:
        reason = error.value
        raise ModelError(reason.code().name.lower().replace("_", "-"), reason.data()) from None


def serve(handle: Callable[[Request], Response]):
    """What a function exports: its handler, called once for the one request of an instance."""

    class IncomingHandler(exports.IncomingHandler):
        def handle(self, request: types.IncomingRequest, response_out: types.ResponseOutparam) -> None:
            try:
                answer = handle(_request(request))
            except Exception as error:
                # Said in `wasmeter logs`, and to the caller as far as it is a model's.
                traceback.print_exc(file=sys.stderr)
                answer = json({"error": str(error) if isinstance(error, ModelError) else "the function failed"}, 500)
            _answer(answer, response_out)

    return IncomingHandler


def _request(request: types.IncomingRequest) -> Request:
    method = request.method()
    url = urlsplit(request.path_with_query() or "/")
    return Request(
        method=getattr(method, "value", None) or type(method).__name__.removeprefix("Method_").upper(),
        path=url.path,
        query=dict(parse_qsl(url.query, keep_blank_values=True)),
        headers=[(name.lower(), value.decode("latin-1")) for name, value in request.headers().entries()],
        body=_read(request.consume()),
    )


def _read(body: types.IncomingBody) -> bytes:
    pieces = []
    with body.stream() as stream:
        while True:
            try:
                pieces.append(stream.blocking_read(_READ))
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    return b"".join(pieces)
                raise OSError(f"the request's body broke off: {error.value}") from None


def _answer(answer: Response, response_out: types.ResponseOutparam) -> None:
    headers = [(name, value.encode("latin-1")) for name, value in answer.headers.items()]
    response = types.OutgoingResponse(types.Fields.from_list(headers))
    response.set_status_code(answer.status)
    body = response.body()
    types.ResponseOutparam.set(response_out, Ok(response))
    pieces = answer.body.encode() if isinstance(answer.body, str) else answer.body
    with body.write() as out:
        for piece in [pieces] if isinstance(pieces, bytes) else pieces:
            _write(out, piece)
    types.OutgoingBody.finish(body, None)


def _write(out, piece: bytes) -> None:
    at = 0
    while at < len(piece):
        room = out.check_write()
        if room == 0:
            with out.subscribe() as ready:
                ready.block()
            continue
        out.write(piece[at : at + room])
        at += room
    out.blocking_flush()
