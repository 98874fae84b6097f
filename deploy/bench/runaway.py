"""Calls functions that never end and prints how long after its deadline each caller has its 504; runaway.sh starts it.

The time begins when the request is handed to the kernel and ends when the first byte of the answer can be read, both in one
thread that waits on all connections: what this thread itself was late counts against the host. How late it is without any
host is measured in turn with the calls: a timer beside as many loops, as nice as guest threads. The standard library alone."""

import argparse
import os
import select
import selectors
import signal
import socket
import time


def connections(address, count):
    made = []
    for _ in range(count):
        made.append(socket.create_connection(address))
        made[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def read_answer(connection):
    """The status of one whole answer."""
    text = b""
    while b"\r\n\r\n" not in text:
        piece = connection.recv(65536)
        if not piece:
            raise SystemExit(f"runaway: the host closed a connection after {text!r}")
        text += piece
    head, body = text.split(b"\r\n\r\n", 1)
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1])


def crowd(made, request):
    """Sends one request on each connection; seconds from each to its answer."""
    waiting, sent, took = selectors.DefaultSelector(), {}, []
    for connection in made:
        waiting.register(connection, selectors.EVENT_READ)
        sent[connection] = time.perf_counter()
        connection.sendall(request)
    while sent:
        ready = waiting.select(30)
        now = time.perf_counter()
        if not ready:
            raise SystemExit(f"runaway: {len(sent)} calls were not answered in 30 s")
        for key, _ in ready:
            took.append(now - sent.pop(key.fileobj))
            waiting.unregister(key.fileobj)
            status = read_answer(key.fileobj)
            if status != 504:
                raise SystemExit(f"runaway: status {status}, expected 504")
    return took


NICE = 5  # of guest threads


def loop(nice):
    """A process that never waits."""
    child = os.fork()
    if child == 0:
        os.nice(nice)
        while True:
            pass
    return child


def timers(loops, count):
    """How late timers of 20 ms are beside so many loops, in milliseconds."""
    children, late = [loop(NICE) for _ in range(loops)], []
    try:
        for _ in range(count):
            began = time.perf_counter()
            select.select([], [], [], 0.02)
            late.append((time.perf_counter() - began) * 1000 - 20)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return late


def row(what, late):
    late.sort()
    at = lambda p: late[min(len(late) - 1, int(len(late) * p))]
    print(f"{what:<44} {len(late):6} {late[0]:8.2f} {at(.5):8.2f} {at(.99):8.2f} {at(.999):8.2f} {late[-1]:8.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--deadline-ms", type=int, required=True)
    parser.add_argument("--few", type=int, required=True, help="as many as there are guest threads")
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--crowds", type=int, required=True)
    parser.add_argument("paths", nargs="+")
    options = parser.parse_args()
    host, port = options.address.rsplit(":", 1)
    address = (host, int(port))
    print(f"{'ms after a deadline of ' + str(options.deadline_ms) + ' ms':<44} {'calls':>6} {'least':>8} {'p50':>8} {'p99':>8} {'p99.9':>8} {'most':>8}")
    for path in options.paths:
        request = f"GET {path} HTTP/1.1\r\nhost: {options.address}\r\n\r\n".encode()
        for count, rounds in ((options.few, options.calls // options.few), (64, options.crowds)):
            made, late = connections(address, count), []
            for _ in range(rounds):
                late += [took * 1000 - options.deadline_ms for took in crowd(made, request)]
            for connection in made:
                connection.close()
            row(f"{path}, {count} at once", late)
        row(f"a timer beside {options.few} loops, no host", timers(options.few, options.calls))


main()
