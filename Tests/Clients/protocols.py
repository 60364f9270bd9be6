"""Protocol cases: WebSocket, gRPC and event streams through the gateway, as odd callers and upstreams play them.

Prints the ports of its upstreams as one JSON line and reads one with what the cases need: {"port", "trust", "keys",
"prefixes"}. Runs every case with each prefix, with the key check off and on, and prints one JSON line with their
number and what failed. Arguments: words that names must contain.
"""

import base64
import hashlib
import itertools
import json
import socket
import struct
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

from peers import Caller, Multiplexed, Plain, Streams, seen, until_end, within

UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
AGREES = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def require(holds, what):
    if not holds:
        raise AssertionError(what)


def proof(fields):
    """RFC 6455 section 4.2.2."""
    key = fields.get("sec-websocket-key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return b"Sec-WebSocket-Accept: " + base64.b64encode(hashlib.sha1(key.encode()).digest()) + b"\r\n"


def switch(fields):
    return AGREES + proof(fields) + b"\r\n"


def echo(stream, path, fields, rest):
    stream.sendall(switch(fields) + rest)
    data = rest
    while part := stream.recv(65_536):
        data += part
        stream.sendall(part)
    seen.put(path, "end", data)


def answering(content):
    def script(stream, path, fields, rest):
        stream.sendall(content)
        return True

    return script


def switching(content, *more):
    def script(stream, path, fields, rest):
        stream.sendall(content + b"".join(part(fields) if callable(part) else part for part in more))
        until_end(stream, path, rest)

    return script


def sinks(stream, path, fields, rest):
    stream.sendall(switch(fields))
    until_end(stream, path, rest)


def late(stream, path, fields, rest):
    """Switches only after it has looked for early bytes."""
    stream.settimeout(0.3)
    try:
        rest += stream.recv(65_536)
        seen.put(path, "early", rest)
    except TimeoutError:
        pass
    stream.settimeout(None)
    echo(stream, path, fields, rest)


def half(stream, path, fields, rest):
    stream.sendall(switch(fields) + b"last words")
    stream.shutdown(socket.SHUT_WR)
    until_end(stream, path, rest)


def breaks(stream, path, fields, rest):
    stream.sendall(switch(fields) + b"x")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def sinks_body(stream, path, fields, rest):
    """Takes a body, and never answers."""
    until_end(stream, path, rest)


def plain(stream, path, fields, rest):
    stream.sendall(OK)
    return True


def echo_body(stream, path, fields, rest):
    count = int(fields.get("content-length", 0))
    while len(rest) < count:
        rest += stream.recv(65_536)
    echo(stream, path, fields, b"") if "upgrade" in fields else stream.sendall(OK)


gates = {}


def gate(path):
    return gates.setdefault(path, threading.Semaphore(0))


def events(framing, parts=(b"data: a\n\n", b": beat\n\n", b"id: 1\ndata: b\n\n"), ends=True, head=EVENTS):
    """Sends each event once its case has the one before."""
    is_chunked = b"chunked" in framing

    def script(stream, path, fields, rest):
        stream.sendall(head + framing + b"\r\n")
        for part in parts:
            stream.sendall(b"%x\r\n%s\r\n" % (len(part), part) if is_chunked else part)
            gate(path).acquire(timeout=8)
        if ends and is_chunked:
            stream.sendall(b"0\r\n\r\n")
        elif ends is False:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return script


def pours(stream, path, fields, rest):
    """Sends without end, and counts."""
    stream.sendall(EVENTS + b"\r\n")
    block = b"data: " + b"x" * 8_000 + b"\n\n"
    try:
        for count in range(100_000):
            stream.sendall(block)
            seen.put(path, "sent", count * len(block))
    except OSError:
        seen.put(path, "end", True)


def silent(stream, path, fields, rest):
    stream.sendall(EVENTS + b"\r\ndata: a\n\n")
    until_end(stream, path)


h1 = Plain({
    "echo": echo, "late": late, "half": half, "breaks": breaks, "plain": plain, "body": echo_body, "sink": sinks,
    "sinkbody": sinks_body,
    "declines": answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
    "version": answering(b"HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"),
    "bare": switching(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    "other": switching(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"),
    "unasked": switching(AGREES, proof, b"\r\n"),
    "unproved": switching(AGREES + b"\r\n"), "overproved": switching(AGREES, proof, proof, b"\r\n"),
    "disproved": switching(AGREES + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
    "success": answering(OK),
    "fields": switching(AGREES, proof, b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\nX-Odd: 1\r\n\r\n"),
    "chunked": events(b"Transfer-Encoding: chunked\r\n"), "close": events(b"Connection: close\r\n"), "open": events(b""),
    "old": events(b"", head=EVENTS.replace(b"1.1", b"1.0")),
    "cut": events(b"Transfer-Encoding: chunked\r\n", parts=(b"data: a\n\n",), ends=False),
    "halved": events(b"Transfer-Encoding: chunked\r\n", parts=(b"data: a\n\n",), ends=None),
    "zipped": events(b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", parts=(b"\x1f\x8b\x08\0\0", b"\xff\xfe\0")),
    "poll": events(b"Transfer-Encoding: chunked\r\n", parts=(b"{}",), head=EVENTS.replace(b"text/event-stream", b"application/json")),
    "pours": pours, "silent": silent,
    "headed": answering(EVENTS + b"\r\n"),
    "none": answering(b"HTTP/1.1 204 No Content\r\n\r\n"),
})


# Upstreams of HTTP/2

GRPC = [(":status", "200"), ("content-type", "application/grpc")]
message = lambda content: b"\0" + len(content).to_bytes(4, "big") + content


def unary(link, stream, what, value):
    if what == "end":
        link.head(stream, *GRPC, ("x-first-bin", "AAE="))
        link.data(stream, message(b"hi"))
        link.head(stream, ("grpc-status", "0"), ("grpc-message", ""), ("x-last-bin", "AAE="), ends=True)


def bidi(link, stream, what, value):
    if what == "head":
        link.head(stream, *GRPC)
    elif what == "data":
        link.data(stream, value)
    else:
        link.tail(stream, ("grpc-status", "0"))


def down(link, stream, what, value):
    if what == "end":
        link.head(stream, *GRPC)
        for number in range(50):
            link.data(stream, message(b"%d" % number))
        link.head(stream, ("grpc-status", "0"), ends=True)


def fails(link, stream, what, value):
    if what == "end":
        link.head(stream, *GRPC, ("grpc-status", "5"), ("grpc-message", "no%20such"), ("x-why", "asked"), ends=True)


def fails_late(link, stream, what, value):
    if what == "end":
        link.head(stream, *GRPC)
        link.data(stream, message(b"part"))
        link.head(stream, ("grpc-status", "10"), ("grpc-message", "aborted"), ends=True)


def details(link, stream, what, value):
    if what == "end":
        link.head(stream, *GRPC)
        link.data(stream, message(b"part"))
        more = [(f"x-last-{number}", f"{number}") for number in range(90)]
        link.tail(stream, ("grpc-status", "3"), ("grpc-status-details-bin", "A" * 20_000), *more)


def counts(link, stream, what, value):
    if what == "data":
        link.totals[stream] = link.totals.get(stream, 0) + len(value)
    if what == "end":
        link.head(stream, *GRPC)
        link.data(stream, message(b"%d" % link.totals[stream]))
        link.tail(stream, ("grpc-status", "0"))


def huge(link, stream, what, value):
    if what == "end":
        link.head(stream, *GRPC)
        link.data(stream, message(b"x" * 3_000_000))
        link.tail(stream, ("grpc-status", "0"))


def hangs(link, stream, what, value):
    pass


def dies(link, stream, what, value):
    if what == "end":
        link.head(stream, *GRPC)
        link.data(stream, message(b"part"))
        link.socket.shutdown(socket.SHUT_RDWR)


def resets(link, stream, what, value):
    if what == "end":
        link.head(stream, *GRPC)
        link.data(stream, message(b"part"))
        link.h2.reset_stream(stream, 2)


def tunnel(link, stream, what, value):
    if what == "head" and value.get(":protocol") is None:
        link.head(stream, (":status", "200"), ("content-length", "0"), ends=True)
    elif what == "head":
        link.head(stream, (":status", "200"), ("sec-websocket-protocol", "chat"))
        link.data(stream, b"hello;")
    elif what == "data":
        link.data(stream, value, ends=value.endswith(b"bye."))
    elif what == "end" and not link.has_ended(stream):
        link.data(stream, b"end.", ends=True)


def tunnel_declined(link, stream, what, value):
    if what == "head":
        link.head(stream, (":status", "403"), ("content-length", "2"))
        link.data(stream, b"no", ends=True)


def tunnel_reset(link, stream, what, value):
    if what == "head":
        link.head(stream, (":status", "200"))
    elif what == "data":
        link.h2.reset_stream(stream, 8)


SCRIPTS = {
    "unary": unary, "bidi": bidi, "down": down, "fails": fails, "failslate": fails_late, "details": details,
    "counts": counts,
    "hangs": hangs, "huge": huge, "dies": dies, "resets": resets, "tunnel": tunnel, "declines": tunnel_declined,
    "breaks": tunnel_reset,
}
h2c = Multiplexed(SCRIPTS)
frail = Multiplexed(SCRIPTS)
no_connect = Multiplexed(SCRIPTS, connect=False)

print(json.dumps({"h1": h1.port, "h2": h2c.port, "old": no_connect.port, "frail": frail.port}), flush=True)
given = json.loads(sys.stdin.readline())
numbers = itertools.count()


class Scene:
    """What one case works with."""

    def __init__(self, prefix):
        self.is_keyed = "keyed" in prefix
        self.prefix = prefix

    def path(self, upstream, script):
        return f"{self.prefix}/{upstream}/{script}-{next(numbers)}"

    def key(self, name="all"):
        return given["keys"][name] if self.is_keyed or name != "all" else None

    def caller(self):
        return Caller(given["port"], given["trust"])

    def streams(self):
        return Streams(given["port"], given["trust"])

    def text(self, path, fields="", method="GET", version="1.1", key="all"):
        secret = self.key(key) if key in given["keys"] else key
        authorization = f"Authorization: Bearer {secret}\r\n" if secret else ""
        return f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n{authorization}{fields}\r\n"

    def ask(self, path, fields="", **more):
        caller = self.caller()
        caller.send(self.text(path, fields, **more))
        return caller

    def fields(self, path, *fields, method="GET", key="all", leave=()):
        secret = self.key(key) if key in given["keys"] else key
        base = [(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)]
        if secret:
            fields = (*fields, ("authorization", f"Bearer {secret}"))
        return [field for field in base if field[0] not in leave] + list(fields)

    def connect(self, path, *fields, protocol="websocket", **more):
        head = self.fields(path, (":protocol", protocol), *fields, method="CONNECT", **more)
        return sorted(head, key=lambda field: not field[0].startswith(":"))

    def call(self, path, *fields, content=b"", key="all", ends=True, te="trailers", streams=None):
        streams = streams or self.streams()
        head = self.fields(path, ("content-type", "application/grpc"), *fields, method="POST", key=key)
        if te:
            head.append(("te", te))
        return streams, streams.open(head, message(content), ends)


CASES = []


def case(function):
    CASES.append(function)
    return function


for module in ("websocket_cases", "grpc_cases", "event_cases"):
    exec(open(f"{sys.path[0]}/{module}.py").read())

wanted = sys.argv[1:]
failed, ran = [], 0


def play(function, prefix):
    name = f"{function.__name__.replace('_', ' ')} ({prefix})"
    start = time.monotonic()
    try:
        function(Scene(prefix))
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = next((f.lineno for f in traceback.extract_tb(error.__traceback__) if f.name == function.__name__), 0)
        return f"{name}: {type(error).__name__} {error} (line {line}, {where.name}, {time.monotonic() - start:.1f} s)"
    return None


chosen = [
    (function, prefix)
    for prefix in given["prefixes"]
    for function in CASES
    if all(word in function.__name__ for word in wanted)
]
with ThreadPoolExecutor(8) as pool:
    failed = [problem for problem in pool.map(lambda each: play(*each), chosen) if problem]
print(json.dumps({"cases": len(chosen), "failed": failed}), flush=True)
