"""A quiet tenant's calls alone and beside a neighbour with fifty times its load; neighbour.sh starts it.

The quiet tenant has one connection and calls at a fixed pace. What is taken from it shall be the host's doing and not the
load's, which runs on the same processors: so the load is a process of its own at niceness 19, and the quiet caller goes
before all others where the system lets it (SCHED_FIFO), as one on a machine of its own. The standard library alone."""

import argparse
import multiprocessing
import os
import socket
import threading
import time

CONNECTIONS = 50


def connect(address):
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_answer(connection):
    """Status of one answer, or 0 where the host closed the connection."""
    text = b""
    while b"\r\n\r\n" not in text:
        piece = connection.recv(1 << 18)
        if not piece:
            return 0
        text += piece
    head, body = text.split(b"\r\n\r\n", 1)
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    while lengths and len(body) < lengths[0]:
        piece = connection.recv(1 << 18)
        if not piece:
            return 0
        body += piece
    return int(head.split()[1])


def repeat(address, request, count):
    """One connection of the neighbour: calls without a pause."""
    connection = None
    while True:
        try:
            connection = connection or connect(address)
            connection.sendall(request)
            status = read_answer(connection)
        except OSError:
            status = 0
        if status == 0:
            connection = None
        else:
            count[0] += 1


def reconnect(address, request, count):
    """A connection for each call."""
    while True:
        try:
            with connect(address) as connection:
                connection.sendall(request)
                status = read_answer(connection)
            # Not in one step with the answer: the threads share it.
            count[0] += status > 0
        except OSError:
            pass


def load(how, address, requests, counted):
    os.nice(19)
    # Kept open to the end of the process.
    idle = [connect(address) for _ in range(1000 if how is reconnect else 0)]
    count = [0]
    for n in range(CONNECTIONS):
        threading.Thread(target=how, args=(address, requests[n % len(requests)], count), daemon=True).start()
    while len(idle) >= 0:
        time.sleep(0.05)
        counted.value = count[0]


def go_first(yes):
    """Whether this process goes before all others from now on, as far as it may."""
    policy, priority = (os.SCHED_FIFO, 1) if yes else (os.SCHED_OTHER, 0)
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except PermissionError:
        return False
    return yes


def quiet(address, request, seconds, pause):
    """Milliseconds of each call, sorted."""
    go_first(True)
    try:
        return calls(address, request, seconds, pause)
    finally:
        go_first(False)


def calls(address, request, seconds, pause):
    connection, took = connect(address), []
    begun = time.perf_counter()
    next_at = begun
    while next_at < begun + seconds:
        time.sleep(max(0, next_at - time.perf_counter()))
        began = time.perf_counter()
        connection.sendall(request)
        status = read_answer(connection)
        took.append((time.perf_counter() - began) * 1000)
        if status != 200:
            raise SystemExit(f"neighbour: the quiet tenant got {status}")
        next_at = max(next_at + pause, time.perf_counter() - pause)
    return sorted(took)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)
    address = (host, int(port))

    def get(path, body=b"", more=""):
        method = "POST" if body else "GET"
        return f"{method} {path} HTTP/1.1\r\nhost: {options.address}\r\n{more}content-length: {len(body)}\r\n\r\n".encode() + body

    calm = get("/fn/quiet/echo/hello", more=f"authorization: Bearer {options.token}\r\n")
    ways = [
        ("CPU: endless loops", repeat, [get("/fn/dev/spin/")]),
        ("memory: grown to the limit and touched", repeat, [get("/fn/dev/hostile/grow-and-touch")]),
        ("log: 2000 lines of 100 bytes a call", repeat, [get("/fn/dev/log/?lines=1000&width=100")]),
        ("upload: bodies of 1 MiB", repeat, [get("/fn/dev/echo/", b"x" * (1 << 20))]),
        ("connections: one a call, and 1000 idle", reconnect, [get("/fn/dev/echo/hello")]),
    ]
    at = lambda times, p: times[min(len(times) - 1, int(len(times) * p))]
    if not go_first(True):
        print("neighbour: no right to SCHED_FIFO: the quiet caller waits for the load's own processes, too")
    go_first(False)
    rows = {name: [] for name, *_ in ways}
    for _ in range(options.rounds):
        for name, how, requests in ways:
            alone = quiet(address, calm, options.seconds, 0.005)
            counted = multiprocessing.Value("q", 0)
            process = multiprocessing.Process(target=load, args=(how, address, requests, counted), daemon=True)
            process.start()
            time.sleep(1)
            before = counted.value
            beside = quiet(address, calm, options.seconds, 0.005)
            rate = (counted.value - before) / options.seconds
            process.kill()
            process.join()
            time.sleep(1)
            rows[name].append((at(alone, 0.5), at(alone, 0.99), at(beside, 0.5), at(beside, 0.99), rate))
    print(f"{'':<42} {'alone ms':>17} {'beside ms':>17} {'p99 allowed':>12} {'its calls/s':>12}")
    print(f"{'neighbour':<42} {'p50':>8} {'p99':>8} {'p50':>8} {'p99':>8}")
    for name, figures in rows.items():
        a50, a99, b50, b99, rate = (sorted(column)[len(figures) // 2] for column in zip(*figures))
        print(f"{name:<42} {a50:8.2f} {a99:8.2f} {b50:8.2f} {b99:8.2f} {1.3 * a99 + 2:12.2f} {rate:12.0f}")


main()
