"""First calls to functions that are not in memory; cold.sh starts it. The standard library alone."""

import argparse
import http.client
import pathlib
import sys
import time

from density import Host, percentile, row, variant


def loaded(host):
    """How many components the host holds, by its own count."""
    address = (host.data / "admin-url").read_text().strip().removeprefix("http://")
    connection = http.client.HTTPConnection(address)
    connection.request("GET", "/metrics")
    for line in connection.getresponse().read().decode().splitlines():
        if line.startswith("wasmeter_components_loaded "):
            return int(float(line.split()[1]))
    return 0


def let_go(host):
    # Its count is taken four times a second.
    time.sleep(0.5)
    until = time.monotonic() + 20
    while loaded(host) > 0:
        if time.monotonic() > until:
            sys.exit("cold: the host keeps components that nobody calls")
        time.sleep(0.1)


def spin(count):
    """Work of the processor alone, and what it took."""
    began = time.perf_counter()
    for _ in range(count):
        pass
    return time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser()
    for option in ("wasmeter", "data", "components"):
        parser.add_argument("--" + option, required=True)
    for option in ("rust", "rust-calls", "python", "python-calls"):
        parser.add_argument("--" + option, type=int, required=True)
    options = parser.parse_args()
    pathlib.Path(options.data).mkdir(parents=True, exist_ok=True, mode=0o700)
    step = min(spin(100_000) for _ in range(50)) / 100_000
    host = Host(options, idle=1)
    host.start()
    connection = host.connect()
    host.ask(connection, "PUT", "/api/v1/tenants/cold")
    for language, guest, count, calls, path in (
        ("Rust", "echo", options.rust, options.rust_calls, "/hello"),
        ("Python", "hello-py", options.python, options.python_calls, "/"),
    ):
        component = pathlib.Path(options.components, guest + ".wasm").read_bytes()
        for n in range(count):
            host.ask(connection, "PUT", f"/api/v1/tenants/cold/functions/{guest}-{n}", variant(component, n))
        first, second, loop = [], [], []
        # The first round reads the artifacts from disk.
        for counts in range(-1, -(-calls // count)):
            let_go(host)
            connection = host.connect()
            host.ask(connection, "GET", "/readyz", token=False)
            for n in range(count):
                address = f"/fn/cold/{guest}-{n}{path}"
                took = [host.ask(connection, "GET", address) for _ in range(2)]
                if counts >= 0:
                    first.append(took[0])
                    second.append(took[1])
                    loop.append(spin(int(percentile(first, 0.5) / 1000 / step)))
        row(f"{language} ({len(component)} bytes): first call, {len(first)} of them", first)
        row(f"{language}: the call after it", second)
        row(f"{language}: an empty loop as long as a first call, beside", loop)
    host.stop()


main()
