"""Callers of HTTP/1.1 and HTTP/2 that retry nothing and write down every call, connection and end that was not due."""

import collections
import socket
import ssl
import threading

import hpack
import hyperframe.frame as frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Caller(threading.Thread):
    """Calls without a pause until it is told that all is over.

    With `fresh` every call has a connection of its own. With `leaves` it goes when it is told so (`Connection: close`,
    GOAWAY) or when the port has closed, as behind a balancer that sends it elsewhere.
    """

    def __init__(self, port, trust, key, fresh=False, leaves=False):
        super().__init__(daemon=True)
        self.port, self.key, self.fresh, self.leaves = port, key, fresh, leaves
        self.context = ssl.create_default_context(cafile=trust)
        self.context.set_alpn_protocols([self.protocol])
        self.answered, self.connections = 0, 0
        self.failures = collections.Counter()
        self.over = False
        self.start()

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.line = self.context.wrap_socket(plain, server_hostname="localhost")
        self.connections += 1

    def run(self):
        while not self.over:
            try:
                self.connect()
            except ConnectionRefusedError:
                if self.leaves:
                    return
                self.failures["refused"] += 1
                continue
            except OSError as end:
                self.failures[f"no connection: {end!r}"] += 1
                continue
            try:
                self.talk()
            except (OSError, EOFError) as end:
                self.failures[repr(end)] += 1
            self.line.close()
            if self.leaves and not self.fresh:
                return

    def finish(self):
        self.over = True
        self.join(30)
        if self.is_alive():
            self.failures["hangs"] += 1


class Caller1(Caller):
    protocol = "http/1.1"

    def talk(self):
        stream = self.line.makefile("rb")
        request = f"GET /1k HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n\r\n".encode()
        goes_on = True
        while goes_on:
            self.line.sendall(request)
            words = stream.readline().split()
            if len(words) < 2:
                raise EOFError("closed without an answer")
            fields = {}
            while line := stream.readline().strip():
                name, _, value = line.partition(b":")
                fields[name.lower()] = value.strip()
            length = int(fields[b"content-length"])
            if len(stream.read(length)) != length:
                raise EOFError("closed in the middle of an answer")
            if words[1] == b"200":
                self.answered += 1
            else:
                self.failures[words[1].decode()] += 1
            goes_on = not self.over and not self.fresh and fields.get(b"connection") != b"close"


class Caller2(Caller):
    """Four calls at once on a connection."""

    protocol = "h2"

    def talk(self):
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.buffer, self.waiting, self.next, self.last = b"", {}, 1, None
        # Windows so large that they never close.
        update = frames.WindowUpdateFrame(0)
        update.window_increment = (1 << 31) - 65_536
        self.line.sendall(PREFACE + frames.SettingsFrame(0).serialize() + update.serialize())
        while True:
            ends = self.over or self.last is not None or (self.fresh and self.next > 1)
            while not ends and len(self.waiting) < (1 if self.fresh else 4):
                self.ask()
                ends = self.fresh
            if ends and not self.waiting:
                return
            self.take(self.receive())

    def ask(self):
        frame = frames.HeadersFrame(self.next)
        frame.data = self.encoder.encode([
            (":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/1k"),
            ("authorization", f"Bearer {self.key}")])
        frame.flags |= {"END_HEADERS", "END_STREAM"}
        self.waiting[self.next] = 0
        self.next += 2
        self.line.sendall(frame.serialize())

    def receive(self):
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            part = self.line.recv(65_536)
            if not part:
                raise EOFError(f"closed with {len(self.waiting)} calls under way")
            self.buffer += part
        frame, length = frames.Frame.parse_frame_header(memoryview(self.buffer[:9]))
        frame.parse_body(memoryview(self.buffer[9:9 + length]))
        self.buffer = self.buffer[9 + length:]
        return frame

    def take(self, frame):
        stream = frame.stream_id
        if isinstance(frame, frames.HeadersFrame):
            self.waiting[stream] = int(dict(self.decoder.decode(frame.data))[":status"])
        elif isinstance(frame, frames.RstStreamFrame):
            self.failures[f"reset {frame.error_code}"] += 1
            self.waiting.pop(stream, None)
        elif isinstance(frame, frames.GoAwayFrame):
            self.last = frame.last_stream_id
            for each in [s for s in self.waiting if s > self.last]:
                self.failures["not served before GOAWAY"] += 1
                del self.waiting[each]
        elif isinstance(frame, frames.SettingsFrame) and "ACK" not in frame.flags:
            answer = frames.SettingsFrame(0)
            answer.flags.add("ACK")
            self.line.sendall(answer.serialize())
        elif isinstance(frame, frames.PingFrame) and "ACK" not in frame.flags:
            answer = frames.PingFrame(0, frame.opaque_data)
            answer.flags.add("ACK")
            self.line.sendall(answer.serialize())
        if "END_STREAM" in frame.flags and stream in self.waiting:
            status = self.waiting.pop(stream)
            if status == 200:
                self.answered += 1
            else:
                self.failures[str(status)] += 1


def gather(callers):
    """What came of all of them."""
    for caller in callers:
        caller.over = True
    for caller in callers:
        caller.finish()
    failures = sum((caller.failures for caller in callers), collections.Counter())
    count = lambda kind, what: sum(getattr(c, what) for c in callers if isinstance(c, kind))
    return {
        "calls_http1": count(Caller1, "answered"), "calls_http2": count(Caller2, "answered"),
        "connections_http1": count(Caller1, "connections"), "connections_http2": count(Caller2, "connections"),
        "failed": sum(failures.values()), "failures": dict(failures),
    }
