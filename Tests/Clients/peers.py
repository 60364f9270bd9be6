"""Both sides of the gateway for the protocol cases: upstreams that do what the last part of a path says, and callers
that say exactly what a case wants, over HTTP/1.1 and HTTP/2."""

import socket
import ssl
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings


def read_head(stream, buffer=b""):
    while b"\r\n\r\n" not in buffer:
        part = stream.recv(65_536)
        if not part:
            raise EOFError(buffer)
        buffer += part
    head, _, rest = buffer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        name = name.lower()
        fields[name] = fields[name] + ", " + value.strip() if name in fields else value.strip()
    return lines[0], fields, rest


class Seen:
    """What upstreams have met, by the path that asked for it."""

    def __init__(self):
        self.values, self.condition = {}, threading.Condition()

    def put(self, path, name, value):
        with self.condition:
            self.values.setdefault((path, name), []).append(value)
            self.condition.notify_all()

    def get(self, path, name, seconds=5):
        with self.condition:
            self.condition.wait_for(lambda: (path, name) in self.values, seconds)
            found = self.values.get((path, name))
        if not found:
            raise AssertionError(f"upstream never saw {name} of {path}")
        return found[-1]

    def has(self, path, name):
        with self.condition:
            return (path, name) in self.values


seen = Seen()


def serve(handle):
    """An upstream of its own port; `handle` has each connection."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)

    def accept():
        while True:
            stream, _ = listener.accept()
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=guarded, args=(stream,), daemon=True).start()

    def guarded(stream):
        try:
            handle(stream)
        except (OSError, EOFError, h2.exceptions.ProtocolError):
            pass
        finally:
            stream.close()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


class Plain:
    """An upstream of HTTP/1.1: `scripts` are called with stream, path, fields and what came behind the head."""

    def __init__(self, scripts):
        self.scripts = scripts
        self.port = serve(self.handle)

    def handle(self, stream):
        rest = b""
        while True:
            line, fields, rest = read_head(stream, rest)
            if " " not in line:
                # What is left of a body that was answered early.
                return
            path = line.split(" ")[1]
            seen.put(path, "line", line)
            seen.put(path, "fields", fields)
            goes_on = self.scripts[path.rsplit("/", 1)[1].split("-")[0]](stream, path, fields, rest)
            if not goes_on:
                return
            rest = b""


def until_end(stream, path, data=b""):
    """Records all that comes until the end, and that it came."""
    try:
        while part := stream.recv(65_536):
            data += part
        seen.put(path, "end", data)
    except OSError:
        seen.put(path, "end", data)


class Multiplexed:
    """An upstream of HTTP/2 in clear: `scripts` are called with this, stream and fields when a head has come."""

    def __init__(self, scripts, connect=True):
        self.scripts, self.connect = scripts, connect
        self.port = serve(self.handle)

    def handle(self, stream):
        Multiplexed.Connection(self, stream).run()

    class Connection:
        def __init__(self, owner, stream):
            self.owner, self.socket, self.paths, self.lock = owner, stream, {}, threading.RLock()
            self.waiting, self.ended, self.totals = {}, set(), {}
            self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
                client_side=False, validate_inbound_headers=False, validate_outbound_headers=False,
                normalize_outbound_headers=False))
            if owner.connect:
                self.h2.local_settings = h2.settings.Settings(client=False, initial_values={
                    h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1,
                    h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100})
            self.h2.initiate_connection()
            self.flush()

        def flush(self):
            with self.lock:
                self.socket.sendall(self.h2.data_to_send())

        def run(self):
            while data := self.socket.recv(65_536):
                with self.lock:
                    events = self.h2.receive_data(data)
                for event in events:
                    try:
                        self.take(event)
                    except h2.exceptions.StreamClosedError:
                        # Its caller has left meanwhile.
                        continue
                self.flush()

        def take(self, event):
            if isinstance(event, h2.events.RequestReceived):
                fields = {name.decode(): value.decode() for name, value in event.headers}
                path = fields.get(":path", "")
                self.paths[event.stream_id] = path
                seen.put(path, "fields", fields)
                self.script(event.stream_id)(self, event.stream_id, "head", fields)
            elif isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.script(event.stream_id)(self, event.stream_id, "data", event.data)
            elif isinstance(event, h2.events.StreamEnded):
                seen.put(self.paths[event.stream_id], "end", True)
                self.script(event.stream_id)(self, event.stream_id, "end", None)
            elif isinstance(event, h2.events.StreamReset):
                seen.put(self.paths[event.stream_id], "reset", event.error_code)
                self.waiting.pop(event.stream_id, None)
            elif isinstance(event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged)):
                for stream in list(self.waiting):
                    try:
                        self.push(stream)
                    except h2.exceptions.StreamClosedError:
                        continue

        def script(self, stream):
            return self.owner.scripts[self.paths[stream].rsplit("/", 1)[1].split("-")[0]]

        def head(self, stream, *fields, ends=False):
            self.h2.send_headers(stream, list(fields), end_stream=ends)
            self.flush()

        def data(self, stream, content, ends=False):
            waiting, _ = self.waiting.get(stream, (b"", False))
            self.waiting[stream] = (waiting + content, ends)
            self.push(stream)

        def tail(self, stream, *fields):
            """Trailers, behind what still waits for the window."""
            if stream in self.waiting:
                self.waiting[stream] = (self.waiting[stream][0], fields)
            else:
                self.head(stream, *fields, ends=True)

        def push(self, stream):
            content, ends = self.waiting.pop(stream)
            while True:
                room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                part, content = content[:room], content[room:]
                if part or ends is True and not content:
                    self.h2.send_data(stream, part, end_stream=ends is True and not content)
                if not content or room <= 0:
                    break
            self.flush()
            if content:
                self.waiting[stream] = (content, ends)
                return
            if ends is True:
                self.ended.add(stream)
            elif ends:
                self.head(stream, *ends, ends=True)

        def has_ended(self, stream):
            return stream in self.ended or bool(self.waiting.get(stream, (b"", False))[1])


class Caller:
    """A connection of HTTP/1.1."""

    def __init__(self, port, trust):
        context = ssl.create_default_context(cafile=trust)
        plain = socket.create_connection(("127.0.0.1", port), 5)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
        self.socket.settimeout(8)
        self.buffer = b""

    def send(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode("latin-1"))

    def head(self):
        line, fields, self.buffer = read_head(self.socket, self.buffer)
        return int(line.split(" ")[1]), fields

    def take(self, count):
        while len(self.buffer) < count:
            part = self.socket.recv(65_536)
            if not part:
                raise EOFError(self.buffer)
            self.buffer += part
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def body(self, fields):
        """A whole body by its framing."""
        if "content-length" in fields:
            return self.take(int(fields["content-length"]))
        content = b""
        while True:
            while b"\r\n" not in self.buffer:
                self.buffer += self.take(len(self.buffer) + 1)
            size, _, self.buffer = self.buffer.partition(b"\r\n")
            if (count := int(size, 16)) == 0:
                self.take(2)
                return content
            content += self.take(count + 2)[:-2]

    def rest(self):
        """All that comes until the end, and whether the end was an orderly one."""
        data, self.buffer = self.buffer, b""
        try:
            while part := self.socket.recv(65_536):
                data += part
            return data, True
        except TimeoutError:
            raise AssertionError("no end") from None
        except OSError:
            return data, False

    def close(self):
        self.socket.close()


class Streams:
    """A connection of HTTP/2 with streams that are opened, fed and read one by one."""

    def __init__(self, port, trust):
        context = ssl.create_default_context(cafile=trust)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", port), 5)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        self.socket.settimeout(8)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False,
            validate_inbound_headers=False))
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 24)
        self.events = {}
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def open(self, fields, body=None, ends=True):
        stream = self.h2.get_next_available_stream_id()
        self.events[stream] = []
        self.h2.send_headers(stream, fields, end_stream=ends and body is None)
        self.flush()
        if body is not None:
            self.data(stream, body, ends)
        return stream

    def data(self, stream, content, ends=False):
        while True:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            part, content = content[:room], content[room:]
            self.h2.send_data(stream, part, end_stream=ends and not content)
            self.flush()
            if not content:
                return
            while self.h2.local_flow_control_window(stream) == 0:
                self.receive()
                over = (h2.events.StreamEnded, h2.events.StreamReset)
                if any(isinstance(event, over) for event in self.events[stream]):
                    return

    def reset(self, stream, code=8):
        self.h2.reset_stream(stream, code)
        self.flush()

    def receive(self):
        part = self.socket.recv(65_536)
        if not part:
            raise EOFError("the connection ended")
        for event in self.h2.receive_data(part):
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            stream = getattr(event, "stream_id", None)
            if stream in self.events:
                self.events[stream].append(event)
        self.flush()

    def find(self, stream, kind):
        """The next event of a kind, which is taken out."""
        while True:
            for event in self.events[stream]:
                if isinstance(event, kind):
                    self.events[stream].remove(event)
                    return event
                if isinstance(event, h2.events.StreamReset):
                    raise AssertionError(f"reset with {event.error_code}")
                if isinstance(event, h2.events.StreamEnded) and kind is not h2.events.StreamReset:
                    raise AssertionError(f"ended before {kind.__name__}")
            self.receive()

    def head(self, stream):
        event = self.find(stream, h2.events.ResponseReceived)
        fields = {name.decode(): value.decode("latin-1") for name, value in event.headers}
        return int(fields[":status"]), fields

    def take(self, stream, count):
        content = b""
        while len(content) < count:
            content += self.find(stream, h2.events.DataReceived).data
        return content

    def end(self, stream):
        """How a stream ends: the rest of its body, its trailers, and the code of its reset."""
        body, trailers = b"", {}
        while True:
            for event in self.events[stream]:
                if isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.TrailersReceived):
                    trailers = {n.decode(): v.decode("latin-1") for n, v in event.headers}
                elif isinstance(event, h2.events.StreamReset):
                    return body, trailers, event.error_code
                elif isinstance(event, h2.events.StreamEnded):
                    return body, trailers, None
            self.events[stream] = []
            self.receive()

    def close(self):
        self.socket.close()


def within(seconds, what):
    """Asks again and again until `what` holds."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
