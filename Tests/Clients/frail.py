"""An upstream of HTTP/2, frame by frame, that does what the last part of the path says, right or wrong.

Arguments: how many calls it takes at once on a connection ("any" says nothing of it), and after how many milliseconds
it says so. What comes over that is refused. Prints its port, then answers each line on standard input with what it has
seen so far, as JSON.
"""

import json
import socket
import sys
import threading

import hpack

from wire import *

limit = None if sys.argv[1] == "any" else int(sys.argv[1])
delay = int(sys.argv[2]) / 1_000
seen = {"connections": 0, "early": 0, "most": 0, "refused": 0, "calls": [], "bodies": [], "goaways": []}
refused = set()


def fields(*pairs):
    """Literals without indexing and as they are, whatever stands in them."""
    out = b""
    for name, value in pairs:
        out += b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
    return out


def later(seconds, function, *arguments):
    timer = threading.Timer(seconds, function, arguments)
    timer.daemon = True
    timer.start()


OK = fields((b":status", b"200"))
SINS = {
    "garbage": lambda stream: b"HTTP/1.1 400 Bad Request\r\n\r\n" * 5,
    "compression": lambda stream: frame(HEADERS, END_HEADERS, stream, b"\xff" * 8),
    "window": lambda stream: frame(WINDOW, 0, 0, number(0)),
    "push": lambda stream: frame(PUSH, END_HEADERS, stream, number(2) + fields((b":method", b"GET"))),
    "content": lambda stream: frame(DATA, END_STREAM, stream, b"no head"),
    "settings": lambda stream: frame(SETTINGS, 0, 0, number(4, 2) + number(1 << 31)),
}
TRAILERS = {
    "lines": (b"x-sum", b"4\r\nx: y"), "feed": (b"x-sum", b"4\n"), "nul": (b"x-sum", b"4\0"), "space": (b"x-sum", b" 4"),
    "control": (b"x-sum", b"4\1"), "upper": (b"X-Sum", b"4"), "name": (b"x sum", b"4"), "nameless": (b"", b"4"),
    "good": (b"x-sum", b"4"),
}


class Connection:
    def __init__(self, stream):
        seen["connections"] += 1
        self.socket, self.decoder, self.buffer = stream, hpack.Decoder(), b""
        self.lock = threading.Lock()
        self.paths, self.bodies, self.open = {}, {}, set()
        self.is_mute, self.has_said = False, False

    def send(self, content):
        with self.lock:
            if not self.is_mute:
                self.socket.sendall(content)

    def say(self):
        """What it can, which comes before everything else (RFC 9113 section 3.4)."""
        self.has_said = True
        able = b"" if limit is None else number(3, 2) + number(limit)
        try:
            self.send(frame(SETTINGS, 0, 0, able) + frame(SETTINGS, ACK))
        except OSError:
            pass

    def read(self, count):
        while len(self.buffer) < count:
            part = self.socket.recv(65_536)
            if not part:
                raise EOFError
            self.buffer += part
        part, self.buffer = self.buffer[:count], self.buffer[count:]
        return part

    def serve(self):
        self.read(len(PREFACE))
        later(delay, self.say)
        while True:
            head = self.read(9)
            payload = self.read(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == PING and not flags & ACK:
                self.send(frame(PING, ACK, 0, payload))
            elif kind == GOAWAY:
                seen["goaways"].append(int.from_bytes(payload[4:8], "big"))
            elif kind == HEADERS:
                path = dict(self.decoder.decode(payload, raw=True))[b":path"].decode()
                self.paths[stream], self.bodies[stream] = path.split("?")[0], b""
                self.begin(stream)
            elif kind == DATA:
                self.bodies[stream] += payload
                if payload:
                    self.send(frame(WINDOW, 0, 0, number(len(payload))) + frame(WINDOW, 0, stream, number(len(payload))))
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                self.play(stream, self.paths[stream])

    def begin(self, stream):
        self.open.add(stream)
        seen["early"] += not self.has_said
        seen["most"] = max(seen["most"], len(self.open))
        seen["calls"].append(self.paths[stream])

    def answer(self, stream, content):
        self.open.discard(stream)
        head = fields((b":status", b"200"), (b"content-length", b"%d" % len(content)))
        parts = [content[start : start + 16_384] for start in range(0, len(content), 16_384)]
        body = b"".join(frame(DATA, 0, stream, part) for part in parts) + frame(DATA, END_STREAM, stream)
        try:
            self.send(frame(HEADERS, END_HEADERS, stream, head) + body)
        except OSError:
            pass

    def refuse(self, stream):
        self.open.discard(stream)
        self.send(frame(RST, 0, stream, number(REFUSED)))

    def play(self, stream, path):
        what = path.rsplit("/", 1)[1]
        seen["bodies"].append(len(self.bodies[stream]))
        is_first = path not in refused
        refused.add(path)
        if limit is not None and len(self.open) > limit:
            seen["refused"] += 1
            self.refuse(stream)
        elif what == "crowd" and len(self.open) > 3:
            seen["refused"] += 1
            self.refuse(stream)
        elif what in ("slow", "crowd"):
            later(0.02, self.answer, stream, b"slow")
        elif what == "refuse" and is_first:
            self.refuse(stream)
        elif what == "regret":
            self.send(frame(HEADERS, END_HEADERS, stream, OK))
            self.refuse(stream)
        elif what == "leave" and is_first:
            self.send(frame(GOAWAY, 0, 0, number(stream - 2 if stream > 2 else 0) + number(0)))
        elif what in ("refuse", "leave"):
            self.answer(stream, self.bodies[stream])
        elif what == "interim":
            # Few bytes on the wire: after the first, a head is fifteen references to one long field.
            head = [(b":status", b"103")] + [(b"x-long", b"x" * 4_000)] * 15
            coder = hpack.Encoder()
            self.send(b"".join(frame(HEADERS, END_HEADERS, stream, coder.encode(head, huffman=False)) for _ in range(40)))
        elif what in SINS:
            self.send(SINS[what](stream))
        elif what in TRAILERS:
            ends = END_HEADERS | END_STREAM
            self.send(
                frame(HEADERS, END_HEADERS, stream, OK) + frame(DATA, 0, stream, b"body")
                + frame(HEADERS, ends, stream, fields(TRAILERS[what], (b"x-after", b"1")))
            )
        elif what == "mute":
            self.is_mute = True
        elif what == "ok":
            self.answer(stream, b"ok")


def accept(listener):
    while True:
        stream, _ = listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def run(stream=stream):
            try:
                Connection(stream).serve()
            except (OSError, EOFError):
                pass
            finally:
                stream.close()

        threading.Thread(target=run, daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0), backlog=256)
threading.Thread(target=accept, args=(listener,), daemon=True).start()
print(listener.getsockname()[1], flush=True)
for line in sys.stdin:
    print(json.dumps(seen), flush=True)
