"""Sends requests of HTTP/2 frame by frame, valid or not, and says what came back.

Reads one JSON line a request: {"fields": [[name, value], ...], "data": [...], "trailers": [...] where there are any,
"ends": bool}, names, values and data in hexadecimal. Answers with one JSON line: {"status": int, "reset": int,
"goaway": int, "closed": bool}, -1 for what did not come. Arguments: port, certificate.
"""

import json
import socket
import ssl
import sys

import hpack
import hyperframe.frame as frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Connection:
    def __init__(self, port, trust):
        context = ssl.create_default_context(cafile=trust)
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", port), timeout=5)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.buffer = b""

    def send(self, *all_frames):
        self.socket.sendall(b"".join(frame.serialize() for frame in all_frames))

    def headers(self, stream, fields, ends):
        block = self.encoder.encode([hpack.NeverIndexedHeaderTuple(n, v) for n, v in fields])
        out = []
        for start in range(0, max(1, len(block)), 16_000):
            kind = frames.HeadersFrame if start == 0 else frames.ContinuationFrame
            frame = kind(stream)
            frame.data = block[start : start + 16_000]
            if start + 16_000 >= len(block):
                frame.flags.add("END_HEADERS")
            if start == 0 and ends:
                frame.flags.add("END_STREAM")
            out.append(frame)
        return out

    def data(self, stream, content, ends):
        frame = frames.DataFrame(stream)
        frame.data = content
        if ends:
            frame.flags.add("END_STREAM")
        return [frame]

    def receive(self):
        """The next frame; None at the end."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            part = self.socket.recv(65_536)
            if not part:
                return None
            self.buffer += part
        frame, length = frames.Frame.parse_frame_header(memoryview(self.buffer[:9]))
        frame.parse_body(memoryview(self.buffer[9 : 9 + length]))
        self.buffer = self.buffer[9 + length :]
        return frame


def play(port, trust, request):
    result = {"status": -1, "reset": -1, "goaway": -1, "closed": False, "body": 0, "trailers": []}
    connection = Connection(port, trust)
    pairs = lambda fields: [(bytes.fromhex(n), bytes.fromhex(v)) for n, v in fields]
    data = [bytes.fromhex(part) for part in request["data"]]
    trailers = request.get("trailers")
    try:
        connection.socket.sendall(PREFACE)
        out = [frames.SettingsFrame(0)]
        ends = request["ends"]
        out += connection.headers(1, pairs(request["fields"]), ends and not data and trailers is None)
        for number, part in enumerate(data):
            out += connection.data(1, part, ends and number + 1 == len(data) and trailers is None)
        if trailers is not None:
            out += connection.headers(1, pairs(trailers), ends)
        connection.send(*out)
        while (frame := connection.receive()) is not None:
            if isinstance(frame, frames.SettingsFrame) and "ACK" not in frame.flags:
                acknowledgement = frames.SettingsFrame(0)
                acknowledgement.flags.add("ACK")
                connection.send(acknowledgement)
            elif isinstance(frame, frames.HeadersFrame):
                fields = connection.decoder.decode(bytes(frame.data), raw=True)
                statuses = [int(value) for name, value in fields if name == b":status"]
                if statuses:
                    result["status"] = statuses[0]
            elif isinstance(frame, frames.DataFrame):
                result["body"] += len(frame.data)
            elif isinstance(frame, frames.RstStreamFrame):
                result["reset"] = frame.error_code
                break
            elif isinstance(frame, frames.GoAwayFrame):
                result["goaway"] = frame.error_code
                if frame.error_code != 0:
                    break
            if "END_STREAM" in frame.flags and frame.stream_id == 1 and result["status"] >= 200:
                break
        else:
            result["closed"] = True
    except (OSError, ssl.SSLError):
        result["closed"] = True
    finally:
        connection.socket.close()
    return result


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(play(int(sys.argv[1]), sys.argv[2], json.loads(line))) + "\n")
        sys.stdout.flush()
