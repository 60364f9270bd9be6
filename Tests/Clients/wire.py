"""Frames of HTTP/2 as bytes, and a connection that sends them as they are."""

import socket
import ssl

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20
PROTOCOL, INTERNAL, FLOW, TIMEOUT, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION = range(1, 10)


def number(value, size=4):
    return value.to_bytes(size, "big")


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    size = len(payload) if length is None else length
    return number(size, 3) + bytes([kind, flags]) + number(stream) + payload


class Link:
    def __init__(self, port, trust):
        context = ssl.create_default_context(cafile=trust)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", port), 5)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False)
        self.socket.settimeout(2)
        self.decoder, self.buffer, self.has_ended, self.seen = hpack.Decoder(), b"", False, []

    def send(self, content):
        try:
            self.socket.sendall(content)
        except OSError:
            # What came before still counts.
            pass

    def event(self):
        """The next frame, or the end. None when none came in time, or the end was no orderly one."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            try:
                part = self.socket.recv(65_536)
            except OSError as error:
                self.seen.append(f"{type(error).__name__}")
                return None
            if not part:
                self.seen.append("end")
                return ("end", None, {})
            self.buffer += part
        length, kind, flags = int.from_bytes(self.buffer[:3], "big"), self.buffer[3], self.buffer[4]
        stream_id = int.from_bytes(self.buffer[5:9], "big")
        payload, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
        value = None
        if kind == HEADERS:
            value = int(dict(self.decoder.decode(payload, raw=True)).get(b":status", b"0"))
        elif kind == PING:
            value = payload
        elif kind == RST:
            value = int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            value = int.from_bytes(payload[4:8], "big")
        names = {DATA: "data", HEADERS: "headers", RST: "reset", SETTINGS: "settings", PING: "ping", GOAWAY: "goaway"}
        name = names.get(kind, kind)
        self.seen.append((name, value if kind != DATA else length, flags, stream_id))
        return (name, value, {"flags": flags, "stream": stream_id, "length": length})

    def wait(self, wanted):
        while (event := self.event()) is not None:
            decision = wanted(*event)
            if decision is not None or event[0] == "end":
                return decision is True
        return False

    def shake_hands(self):
        self.send(PREFACE)
        self.send(frame(SETTINGS, 0, 0, number(4, 2) + number(65_535)))
        local = remote = False
        while not (local and remote):
            event = self.event()
            if event is None or event[0] == "end":
                return False
            if event[0] == "settings" and event[2]["flags"] & ACK:
                local = True
            elif event[0] == "settings":
                remote = True
                self.send(frame(SETTINGS, ACK))
        return True
