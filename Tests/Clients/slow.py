"""Slow callers of HTTP/2: each is let go in time, by the time that it uses up, and an honest one is not.

Arguments: port, certificate, seconds that heads, bodies and idle connections have. Targets: /echo, whose upstream reads
a body before it answers, /large, whose answer has 300,000 bytes, and /late, of two bytes whose end comes later. Prints one JSON line with the number of kinds and
what failed.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import hpack
from wire import *

port, trust = int(sys.argv[1]), sys.argv[2]
HEAD, BODY, IDLE = map(float, sys.argv[3:6])
ALL = END_STREAM | END_HEADERS


def block(*more, method=b"GET", path=b"/echo"):
    fields = [(b":method", method), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", path)]
    return hpack.Encoder().encode([*fields, *more], huffman=False)


GET, POST, LARGE, LATE = block(), block(method=b"POST"), block(path=b"/large"), block(path=b"/late")
PINGED = frame(PING, 0, 0, bytes(8))
WINDOW_ZERO = frame(SETTINGS, 0, 0, number(4, 2) + number(0))


def window(count, stream=1):
    return frame(WINDOW, 0, stream, number(count))


def watch(link, parts, gap, seconds):
    """The events of a connection, while it says one part after the other."""
    parts, end = list(parts), time.monotonic() + seconds
    while time.monotonic() < end:
        link.socket.settimeout(gap if parts else max(0.05, end - time.monotonic()))
        event = link.event()
        if event is not None:
            yield event
        elif link.seen[-1] != "TimeoutError":
            return
        if parts and event is None:
            link.send(parts.pop(0))


def bytewise(content):
    return [bytes([byte]) for byte in content]


# Name, whether hands are shaken first, what is said at once, what drips and how fast, and the time it has.
KINDS = [
    ("silence behind the handshake of TLS", False, b"", [], 0, HEAD),
    ("half a preface", False, PREFACE[:10], [], 0, HEAD),
    ("a preface that drips", False, b"", bytewise(PREFACE), HEAD / 8, HEAD),
    ("a preface without settings", False, PREFACE, [], 0, HEAD),
    ("an idle connection", True, b"", [], 0, IDLE),
    ("an idle connection that pings", True, b"", [PINGED] * 100, IDLE / 8, IDLE),
    ("half the head of a frame", True, frame(HEADERS, ALL, 1, GET)[:5], [], 0, IDLE),
    ("half a head", True, frame(HEADERS, ALL, 1, GET)[:20], [], 0, HEAD),
    ("a head without its end", True, frame(HEADERS, END_STREAM, 1, GET), [], 0, HEAD),
    ("a head that drips", True, frame(HEADERS, END_STREAM, 1, GET[:1]), [frame(CONTINUATION, 0, 1, part) for part in bytewise(GET[1:])], HEAD / 8, HEAD),
    ("a frame that drips", True, b"", bytewise(frame(HEADERS, ALL, 1, block((b"x", b"a" * 200)))), HEAD / 8, HEAD + IDLE),
    ("a head without its end beside a call", True, frame(HEADERS, END_HEADERS, 1, POST) + frame(HEADERS, END_STREAM, 3, GET), [], 0, HEAD),
    ("no body", True, frame(HEADERS, END_HEADERS, 1, POST), [], 0, BODY),
    ("half a body", True, frame(HEADERS, END_HEADERS, 1, block((b"content-length", b"100"), method=b"POST")) + frame(DATA, 0, 1, b"x" * 50), [], 0, BODY),
    ("a body that drips", True, frame(HEADERS, END_HEADERS, 1, POST), [frame(DATA, 0, 1, b"x")] * 100, BODY / 8, BODY),
    ("a body of empty frames", True, frame(HEADERS, END_HEADERS, 1, POST), [frame(DATA, 0, 1)] * 100, BODY / 8, BODY),
    ("a window of zero", True, WINDOW_ZERO + frame(HEADERS, ALL, 1, LARGE), [], 0, BODY),
    ("a window that drips", True, WINDOW_ZERO + frame(HEADERS, ALL, 1, LARGE), [window(1)] * 200, BODY / 8, 2 * BODY),
    ("a window that the answer fills", True, frame(SETTINGS, 0, 0, number(4, 2) + number(2)) + frame(HEADERS, ALL, 1, LATE), [], 0, BODY),
    ("windows of others that drip", True, WINDOW_ZERO + frame(HEADERS, ALL, 1, LARGE), [window(1, 0)] * 200, BODY / 8, BODY),
]


def play(kind):
    name, shakes, said, parts, gap, allowed = kind
    link = Link(port, trust)
    if shakes and not link.shake_hands():
        return f"{name}: no handshake"
    start = time.monotonic()
    link.send(said)
    for event in watch(link, parts, gap, allowed + 5):
        # A refusal by status ends a stream too; other answers are what is not taken.
        is_refused = event[0] == "headers" and event[1] >= 400
        if event[0] in ("end", "goaway", "reset") or is_refused:
            took = time.monotonic() - start
            link.socket.close()
            return None if 0.6 * allowed < took < allowed + 1.5 else f"{name}: {took:.1f} s instead of {allowed}"
    link.socket.close()
    return f"{name}: never let go, but {link.seen}"


def honest():
    """Takes 300,000 bytes little by little, for several times as long as a body may stand still."""
    link = Link(port, trust)
    link.shake_hands()
    start = time.monotonic()
    link.send(WINDOW_ZERO + frame(HEADERS, ALL, 1, LARGE))
    link.send(window(1 << 20, 0))
    taken = 0
    for event in watch(link, [window(6_000)] * 60, BODY / 10, 12 * BODY):
        if event[0] in ("end", "goaway", "reset"):
            break
        taken += event[2]["length"] if event[0] == "data" else 0
        if taken == 300_000:
            return None
    return f"an honest reader lost its answer after {taken} bytes and {time.monotonic() - start:.1f} s: {link.seen[-3:]}"


def half_head_beside_output():
    """Half a head, while so much of other answers waits that the connection cannot be written to."""
    link = Link(port, trust)
    link.shake_hands()
    calls = b"".join(frame(HEADERS, ALL, number_, LARGE) for number_ in range(1, 81, 2))
    link.send(frame(SETTINGS, 0, 0, number(4, 2) + number(1 << 20)) + window(1 << 30, 0) + calls)
    time.sleep(HEAD / 3)
    start = time.monotonic()
    link.send(frame(HEADERS, END_STREAM, 101, GET))
    time.sleep(HEAD / 3)
    for event in watch(link, [], 0, HEAD + 5):
        if event[0] in ("end", "goaway"):
            took = time.monotonic() - start
            return None if took < HEAD + 1.5 else f"half a head beside output: {took:.1f} s instead of {HEAD}"
    return f"half a head beside output: never let go, but {link.seen[-3:]}"


OTHERS = [honest, half_head_beside_output]
with ThreadPoolExecutor(len(KINDS) + len(OTHERS)) as pool:
    others = [pool.submit(other) for other in OTHERS]
    failed = [problem for problem in pool.map(play, KINDS) if problem]
    failed += [other.result() for other in others if other.result()]
print(json.dumps({"cases": len(KINDS) + len(OTHERS), "failed": failed}))
