"""Deploys many functions on one host and prints what they cost; density.sh starts it. The standard library alone."""

import argparse
import atexit
import http.client
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

TENANTS = 8
IDLE = 20  # seconds after which the host lets go of a component that nobody calls


def leb(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def variant(component, n):
    """The same component with a custom section at its end."""
    content = leb(7) + b"density" + str(n).encode()
    return component + b"\0" + leb(len(content)) + content


class Host:
    """`wasmeter serve` on a data directory."""

    def __init__(self, options, idle=IDLE):
        self.options, self.data, self.process = options, pathlib.Path(options.data), None
        atexit.register(self.stop)
        (self.data.parent / "density.toml").write_text(
            "[server]\ndata = %s\nlisten = \"127.0.0.1:0\"\nadmin-listen = \"127.0.0.1:0\"\n"
            "[functions]\nidle-after = \"%ds\"\n" % (json.dumps(str(self.data)), idle)
        )

    def start(self):
        (self.data / "url").unlink(missing_ok=True)
        began = time.monotonic()
        log = open(self.data.parent / "density.log", "a")
        env = dict(os.environ, WASMETER_LOG="info,wasmeter::access=off")
        self.process = subprocess.Popen(
            [self.options.wasmeter, "serve", "--config", str(self.data.parent / "density.toml")], stderr=log, env=env
        )
        while not (self.data / "url").exists():
            if self.process.poll() is not None:
                sys.exit("density: the host ended: see " + log.name)
            time.sleep(0.005)
        self.took = time.monotonic() - began
        self.address = (self.data / "url").read_text().strip().removeprefix("http://")
        self.token = (self.data / "operator-token").read_text().strip()
        connection = self.connect()
        while True:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                break
            time.sleep(0.05)

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
            self.process = None

    def connect(self):
        connection = http.client.HTTPConnection(self.address)
        connection.connect()
        return connection

    def ask(self, connection, method, path, body=None, token=True):
        """What one request took, in seconds; ends the program if it is refused."""
        headers = {"authorization": "Bearer " + self.token} if token else {}
        if body is not None:
            headers["content-type"] = "application/wasm"
        began = time.perf_counter()
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        took = time.perf_counter() - began
        if answer.status not in (200, 201):
            sys.exit(f"density: {method} {path}: {answer.status} {text[:300]}")
        return took

    def memory(self):
        """Resident kilobytes of the host's process alone: of its own, of files that it maps."""
        status = dict(line.split(":", 1) for line in open(f"/proc/{self.process.pid}/status"))
        return [int(status[name].split()[0]) for name in ("RssAnon", "RssFile", "RssShmem")]


def name(n):
    return f"t{n % TENANTS}", f"f{n:05}"


def deploy(host, connection, component, n):
    tenant, function = name(n)
    return host.ask(connection, "PUT", f"/api/v1/tenants/{tenant}/functions/{function}", variant(component, n))


def fill(host, component, numbers, connections=8):
    """Deploys in parallel."""
    left, lock = iter(numbers), threading.Lock()

    def work():
        connection = host.connect()
        while True:
            with lock:
                n = next(left, None)
            if n is None:
                return
            deploy(host, connection, component, n)

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def call(host, connection, n):
    tenant, function = name(n)
    return host.ask(connection, "GET", f"/fn/{tenant}/{function}/hello")


def percentile(times, p):
    return sorted(times)[min(len(times) - 1, int(len(times) * p))] * 1000


def row(what, times):
    print(f"{what:<58} p50 {percentile(times, .5):8.2f} ms  p99 {percentile(times, .99):8.2f} ms  max {max(times) * 1000:8.2f} ms")


def per(what, before, after, count):
    anon, file, shared = ((b - a) / count for a, b in zip(before, after))
    print(f"{what:<58} {anon + file + shared:8.1f} kB  (own {anon:.1f}, mapped files {file:.1f}, shared {shared:.1f})", flush=True)


def settled(host):
    """What it has once it gave back what it does not need: every ten seconds."""
    time.sleep(16)
    return host.memory()


def main():
    parser = argparse.ArgumentParser()
    for option in ("wasmeter", "data", "components"):
        parser.add_argument("--" + option, required=True)
    for option in ("functions", "cold"):
        parser.add_argument("--" + option, type=int, required=True)
    options = parser.parse_args()
    component = pathlib.Path(options.components, "echo.wasm").read_bytes()
    total = options.functions
    cold = min(options.cold, total)
    pathlib.Path(options.data).mkdir(parents=True, exist_ok=True, mode=0o700)
    host = Host(options)
    host.start()
    connection = host.connect()
    for n in range(TENANTS):
        host.ask(connection, "PUT", f"/api/v1/tenants/t{n}")
    there = 0
    for n in range(TENANTS):
        connection.request("GET", f"/api/v1/tenants/t{n}/functions", headers={"authorization": "Bearer " + host.token})
        there += len(json.loads(connection.getresponse().read())["functions"])
    print(f"component of {len(component)} bytes; {there} functions there, {total} wanted")
    alone = min(100, total - there)
    if there == 0 and alone:
        deploy(host, connection, component, 0)
        row("deploy of the Rust hello, alone, no functions there", [deploy(host, connection, component, n) for n in range(1, alone)])
    there = max(there, alone)
    before, began = settled(host), time.monotonic()
    fill(host, component, range(there, total))
    if total > there:
        took = time.monotonic() - began
        per(f"host's memory for each of {total - there} functions deployed", before, settled(host), total - there)
        print(f"{'deploys a second, 8 connections':<58} {(total - there) / took:8.1f}")
    connection = host.connect()  # the old one was silent for too long
    row(f"deploy of the Rust hello, alone, {total} functions there", [deploy(host, connection, component, total + n) for n in range(100)])
    host.stop()

    host.start()
    print(f"{f'start of a host with {total} functions':<58} {host.took * 1000:8.0f} ms")
    connection = host.connect()
    # Threads, pools and connections that any host has once it was called.
    deploy(host, connection, component, total + 100)
    for _ in range(200):
        call(host, connection, total + 100)
    before = settled(host)
    connection = host.connect()
    print(f"{'memory of that host at rest':<58} {sum(before):8d} kB  (own {before[0]}, mapped files {before[1]})")
    # Every tenth or so: neighbours in the list lie side by side on disk.
    chosen = [n * total // cold for n in range(cold)]
    first = [call(host, connection, n) for n in chosen]
    row(f"first call to a function that is not in memory, {cold} of them", first)
    loaded = host.memory()
    per("memory for each function that was called", before, loaded, cold)
    row("second call", [call(host, connection, n) for n in chosen])
    time.sleep(IDLE * 1.5 + 1)
    per(f"the same after {IDLE} s without a call", before, settled(host), cold)
    connection = host.connect()
    again = [call(host, connection, n) for n in chosen]
    row("first call after that", again)
    host.stop()


if __name__ == "__main__":
    main()
