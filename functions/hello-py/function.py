"""Greets, and asks a model."""

import math

import wasmeter


def greet(request: wasmeter.Request) -> wasmeter.Response:
    greeting = wasmeter.env().get("GREETING", "hello")
    return wasmeter.Response(f"{greeting} {request.query.get('name', 'world')}\n")


def row_of(request: wasmeter.Request) -> list[float]:
    try:
        row = [float(n) for n in request.json()["row"]]
        if len(row) == 8 and all(map(math.isfinite, row)):
            return row
    except (ValueError, TypeError, KeyError, OverflowError):
        pass
    raise ValueError('the body is not {"row": a list of 8 numbers}')


def score(request: wasmeter.Request) -> wasmeter.Response:
    try:
        row = row_of(request)
    except ValueError as error:
        return wasmeter.json({"error": str(error)}, 400)
    outputs = wasmeter.load("tiny")({"x": wasmeter.tensor([1, 8], row)})
    return wasmeter.json({"scores": wasmeter.values(outputs["y"])})


def handle(request: wasmeter.Request) -> wasmeter.Response:
    match request.method:
        case "GET" | "HEAD":
            return greet(request)
        case "POST":
            return score(request)
        case _:
            return wasmeter.json({"error": "GET or POST"}, 405)


IncomingHandler = wasmeter.serve(handle)
