"""Conformance cases of RFC 9113 and RFC 7541, each on a connection of its own. Arguments: port, certificate, target.

A case sends frames and names what must come: an answer, an acknowledgement, an error of the stream, or an error of
the connection. Where an error of the stream is due, one of the connection will do; a closed connection will do for
either (RFC 9113 section 5.4). Prints one JSON line with the number of cases and what failed.
"""

import json
import socket
import ssl
import sys

import hpack

port, trust, target = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20
PROTOCOL, INTERNAL, FLOW, TIMEOUT, CLOSED, SIZE, REFUSED, CANCEL, COMPRESSION = range(1, 10)


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def block(*more, method=b"GET", path=None, base=True):
    fields = [(b":method", method), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", path or target)]
    return hpack.Encoder().encode((fields if base else []) + list(more), huffman=False)


def get(stream=1, flags=END_STREAM | END_HEADERS, payload=None):
    return frame(HEADERS, flags, stream, block() if payload is None else payload)


def post(stream=1, *more):
    return frame(HEADERS, END_HEADERS, stream, block(*more, method=b"POST"))


def number(value, size=4):
    return value.to_bytes(size, "big")


def setting(name, value):
    return frame(SETTINGS, 0, 0, number(name, 2) + number(value))


answer, pong, acknowledged, nothing = "answer", "pong", "acknowledged", "nothing"


def connection(*codes):
    return ("connection", codes)


def stream(*codes):
    return ("stream", codes)


PINGED = frame(PING, 0, 0, b"12345678")
BIG = b"x" * 16_385
CASES = [
    # Starting
    ("3.4 preface and settings", [], acknowledged),
    ("3.4 a request at once", [get()], answer),
    ("4.1 an unknown frame is ignored", [frame(0x77, 0xFF, 0, b"abc"), PINGED], pong),
    ("4.1 an unknown frame on a stream is ignored", [post(), frame(0x77, 0, 1, b"abc"), frame(DATA, 1, 1)], answer),
    ("4.1 unknown flags are ignored", [frame(PING, 0x16, 0, b"12345678")], pong),
    ("4.1 the reserved bit is ignored", [frame(PING, 0, 0x80000000, b"12345678")], pong),
    ("4.2 a frame over the size", [post(), frame(DATA, 0, 1, BIG)], stream(SIZE)),
    ("4.2 a head over the size", [frame(HEADERS, 5, 1, BIG)], connection(SIZE, COMPRESSION)),
    ("4.2 settings over the size", [frame(SETTINGS, 0, 0, b"\0\1\0\0\0\0" * 3_000)], connection(SIZE)),
    ("4.3 a block that cannot be read", [get(payload=b"\x40\xff\xff\xff\xff\xff\xff")], connection(COMPRESSION)),
    ("4.3 an index that is not there", [get(payload=block() + b"\xfe")], connection(COMPRESSION)),
    ("4.3 index zero", [get(payload=block() + b"\x80")], connection(COMPRESSION)),
    ("4.3 another frame inside a block", [get(flags=1), frame(PRIORITY, 0, 1, b"\0\0\0\0\1")], connection(PROTOCOL)),
    ("4.3 another stream's block inside a block", [get(flags=1), get(3)], connection(PROTOCOL)),
    ("4.3 a ping inside a block", [get(flags=1), PINGED], connection(PROTOCOL)),
    ("7541 2.3.3 a static entry beyond the table", [get(payload=block() + b"\xff\x80\x01")], connection(COMPRESSION)),
    ("7541 4.2 a table size at the end of a block", [get(payload=block() + b"\x3f\x00")], connection(COMPRESSION)),
    ("7541 5.2 huffman padding too long", [get(payload=block() + b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff")], connection(COMPRESSION)),
    ("7541 5.2 huffman with end of string", [get(payload=block() + b"\x00\x88\xf2\xb2\x4a\x84\xff\xff\xff\xff\x81\xff")], connection(COMPRESSION)),
    ("7541 6.3 a table size over the setting", [get(payload=b"\x3f\xe1\xff\x03" + block())], connection(COMPRESSION)),
    ("7541 2.2 a table size within the setting", [get(payload=b"\x20" + block())], answer),
    # Streams
    ("5.1 data on an idle stream", [frame(DATA, 1, 1, b"x")], connection(PROTOCOL, CLOSED)),
    ("5.1 a reset of an idle stream", [frame(RST, 0, 1, number(CANCEL))], connection(PROTOCOL)),
    ("5.1 a window of an idle stream", [frame(WINDOW, 0, 1, number(1))], connection(PROTOCOL)),
    ("5.1 a continuation of an idle stream", [frame(CONTINUATION, 4, 1, block())], connection(PROTOCOL)),
    ("5.1 priority of an idle stream", [frame(PRIORITY, 0, 1, b"\0\0\0\0\x0f"), PINGED], pong),
    ("5.1 data on a half-closed stream", [get(), frame(DATA, 1, 1, b"x")], stream(CLOSED, PROTOCOL)),
    ("5.1 a head on a half-closed stream", [get(), get()], stream(CLOSED, PROTOCOL)),
    ("5.1 a continuation on a half-closed stream", [get(), frame(CONTINUATION, 4, 1, block())], connection(PROTOCOL, CLOSED)),
    ("5.1 a window after a reset", [post(), frame(RST, 0, 1, number(CANCEL)), frame(WINDOW, 0, 1, number(1)), PINGED], pong),
    ("5.1 data after a reset", [post(), frame(RST, 0, 1, number(CANCEL)), frame(DATA, 1, 1, b"x"), PINGED], (pong, stream(CLOSED))),
    ("5.1.1 an even stream", [get(2)], connection(PROTOCOL)),
    ("5.1.1 a lower stream", [get(5), get(3)], connection(PROTOCOL, CLOSED)),
    ("5.1.1 a head on stream zero", [get(0)], connection(PROTOCOL)),
    ("5.1.2 more streams than allowed", [post(2 * n + 1) for n in range(200)], stream(REFUSED, PROTOCOL)),
    ("5.3.1 a stream that depends on itself", [frame(PRIORITY, 0, 1, b"\0\0\0\1\x0f"), PINGED], (pong, stream(PROTOCOL))),
    ("5.3.1 a head that depends on another", [get(flags=0x25, payload=b"\0\0\0\3\x0f" + block())], answer),
    ("5.4.1 a goaway with an error is read", [frame(GOAWAY, 0, 0, number(0) + number(0)), PINGED], (pong, connection(0))),
    # Frames
    ("6.1 data on stream zero", [frame(DATA, 1, 0, b"x")], connection(PROTOCOL)),
    ("6.1 padded data", [post(), frame(DATA, 9, 1, b"\3abc\0\0\0")], answer),
    ("6.1 padding longer than data", [post(), frame(DATA, 9, 1, b"\6abc")], connection(PROTOCOL)),
    ("6.1 padding of nothing", [post(), frame(DATA, 9, 1, b"\0")], answer),
    ("6.1 padding without its length", [post(), frame(DATA, 9, 1, b"")], connection(SIZE, PROTOCOL)),
    ("6.2 a padded head", [get(flags=0xD, payload=b"\2" + block() + b"\0\0")], answer),
    ("6.2 padding longer than a head", [get(flags=0xD, payload=b"\xff" + block())], connection(PROTOCOL)),
    ("6.2 a head in two frames", [get(flags=1, payload=block()[:9]), frame(CONTINUATION, 4, 1, block()[9:])], answer),
    ("6.2 a head byte by byte", [get(flags=1, payload=block()[:1])] + [frame(CONTINUATION, 0, 1, block()[n : n + 1]) for n in range(1, 6)] + [frame(CONTINUATION, 4, 1, block()[6:])], answer),
    ("6.3 priority on stream zero", [frame(PRIORITY, 0, 0, b"\0\0\0\1\x0f")], connection(PROTOCOL)),
    ("6.3 priority of another size", [get(), frame(PRIORITY, 0, 1, b"\0\0\0\1")], stream(SIZE)),
    ("6.4 a reset of stream zero", [frame(RST, 0, 0, number(CANCEL))], connection(PROTOCOL)),
    ("6.4 a reset of another size", [post(), frame(RST, 0, 1, b"\0\0\0")], connection(SIZE)),
    ("6.5 an acknowledgement with content", [frame(SETTINGS, ACK, 0, b"\0")], connection(SIZE)),
    ("6.5 settings on a stream", [frame(SETTINGS, 0, 1)], connection(PROTOCOL)),
    ("6.5 settings of another size", [frame(SETTINGS, 0, 0, b"\0\1\0")], connection(SIZE)),
    ("6.5.2 push neither on nor off", [setting(2, 2)], connection(PROTOCOL)),
    ("6.5.2 a window over its maximum", [setting(4, 0x80000000)], connection(FLOW)),
    ("6.5.2 a frame size below its minimum", [setting(5, 16_383)], connection(PROTOCOL)),
    ("6.5.2 a frame size over its maximum", [setting(5, 16_777_216)], connection(PROTOCOL)),
    ("6.5.2 an unknown setting", [setting(0x99, 1), PINGED], pong),
    ("6.5.3 settings are acknowledged", [setting(1, 0)], acknowledged),
    ("6.6 a push of a client", [get(), frame(PUSH, 4, 1, number(2) + block())], connection(PROTOCOL)),
    ("6.7 a ping is answered", [PINGED], pong),
    ("6.7 an answer to no ping is ignored", [frame(PING, ACK, 0, b"invalid!"), PINGED], pong),
    ("6.7 a ping on a stream", [frame(PING, 0, 1, b"12345678")], connection(PROTOCOL)),
    ("6.7 a ping of another size", [frame(PING, 0, 0, b"1234567")], connection(SIZE)),
    ("6.8 a goaway on a stream", [frame(GOAWAY, 0, 1, number(0) + number(0))], connection(PROTOCOL)),
    ("6.9 a window by zero", [frame(WINDOW, 0, 0, number(0))], connection(PROTOCOL)),
    ("6.9 a stream's window by zero", [post(), frame(WINDOW, 0, 1, number(0))], stream(PROTOCOL)),
    ("6.9 a window of another size", [frame(WINDOW, 0, 0, b"\0\0\1")], connection(SIZE)),
    ("6.9.1 a window over its maximum", [frame(WINDOW, 0, 0, number(0x7FFFFFFF)), frame(WINDOW, 0, 0, number(0x7FFFFFFF))], connection(FLOW)),
    ("6.9.1 a stream's window over its maximum", [post(), frame(WINDOW, 0, 1, number(0x7FFFFFFF)), frame(WINDOW, 0, 1, number(0x7FFFFFFF))], stream(FLOW)),
    ("6.9.2 a window of zero, then of enough", [setting(4, 0), get(), frame(WINDOW, 0, 1, number(1 << 20))], answer),
    ("6.9.2 a window of one byte", [setting(4, 1), get(), setting(4, 65_535)], answer),
    ("6.10 a continuation on stream zero", [get(flags=1), frame(CONTINUATION, 4, 0, b"")], connection(PROTOCOL)),
    ("6.10 a continuation behind a whole head", [post(), frame(CONTINUATION, 4, 1, b"")], connection(PROTOCOL)),
    ("6.10 a continuation behind data", [post(), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, 4, 1, b"")], connection(PROTOCOL)),
    ("7 an unknown error code of a reset", [post(), frame(RST, 0, 1, number(0xFF)), PINGED], pong),
    ("7 an unknown error code of a goaway", [frame(GOAWAY, 0, 0, number(0) + number(0xFF)), PINGED], (pong, connection(0))),
    # Messages
    ("8.1 a second head without end", [post(), frame(DATA, 0, 1, b"x"), post()], stream(PROTOCOL)),
    ("8.1 trailers with pseudo-header fields", [post(), frame(HEADERS, 5, 1, block())], stream(PROTOCOL)),
    ("8.1 a body in pieces", [post(), frame(DATA, 0, 1, b"a"), frame(DATA, 0, 1, b""), frame(DATA, 1, 1, b"b")], answer),
    ("8.1 trailers", [post(), frame(DATA, 0, 1, b"a"), frame(HEADERS, 5, 1, block((b"x-t", b"1"), base=False))], answer),
    ("8.1.1 more data than the length", [post(1, (b"content-length", b"1")), frame(DATA, 1, 1, b"abc")], stream(PROTOCOL)),
    ("8.1.1 less data than the length", [post(1, (b"content-length", b"9")), frame(DATA, 1, 1, b"abc")], stream(PROTOCOL)),
    ("8.1.1 data of several frames and another length", [post(1, (b"content-length", b"1")), frame(DATA, 0, 1, b"a"), frame(DATA, 1, 1, b"b")], stream(PROTOCOL)),
    ("8.2.1 an upper-case name", [get(payload=block((b"X-A", b"1")))], stream(PROTOCOL)),
    ("8.2.2 connection", [get(payload=block((b"connection", b"keep-alive")))], stream(PROTOCOL)),
    ("8.2.2 te", [get(payload=block((b"te", b"trailers, deflate")))], stream(PROTOCOL)),
    ("8.3 an unknown pseudo-header field", [get(payload=block((b":test", b"1")))], stream(PROTOCOL)),
    ("8.3 a pseudo-header field of answers", [get(payload=block((b":status", b"200")))], stream(PROTOCOL)),
    ("8.3 a pseudo-header field behind others", [get(payload=block((b"x", b"1"), (b":path", b"/")))], stream(PROTOCOL)),
    ("8.3.1 an empty path", [get(payload=block((b":method", b"GET"), (b":scheme", b"https"), (b":path", b""), base=False))], stream(PROTOCOL)),
    ("8.3.1 no method", [get(payload=block((b":scheme", b"https"), (b":path", b"/"), base=False))], stream(PROTOCOL)),
    ("8.3.1 no scheme", [get(payload=block((b":method", b"GET"), (b":path", b"/"), base=False))], stream(PROTOCOL)),
    ("8.3.1 no path", [get(payload=block((b":method", b"GET"), (b":scheme", b"https"), base=False))], stream(PROTOCOL)),
    ("8.3.1 two methods", [get(payload=block((b":method", b"GET")))], stream(PROTOCOL)),
    ("8.3.1 two schemes", [get(payload=block((b":scheme", b"https")))], stream(PROTOCOL)),
    ("8.3.1 two paths", [get(payload=block((b":path", b"/")))], stream(PROTOCOL)),
    ("8.1 HEAD has no body", [get(payload=block(method=b"HEAD"))], answer),
]


def matches(wanted, event):
    if isinstance(wanted, tuple) and wanted[0] in ("connection", "stream"):
        kind, codes = wanted
        if event == ("end", None):
            return True
        if event[0] == "goaway":
            return event[1] in codes or codes == (0,)
        # A refusal of the message by its status is an error of its stream.
        return kind == "stream" and (event[0] == "reset" and event[1] in codes or event[0] == "status" and 400 <= event[1] < 500)
    if isinstance(wanted, tuple):
        return any(matches(each, event) for each in wanted)
    return {
        answer: event == ("status", 200),
        pong: event == ("pong", b"12345678"),
        acknowledged: event == ("acknowledged", None),
    }[wanted]


def events(link):
    decoder, buffer = hpack.Decoder(), b""
    while True:
        try:
            part = link.recv(65_536)
        except TimeoutError:
            return
        except OSError:
            part = b""
        if not part:
            yield ("end", None)
            return
        buffer += part
        while len(buffer) >= 9 and len(buffer) >= 9 + int.from_bytes(buffer[:3], "big"):
            length, kind, flags = int.from_bytes(buffer[:3], "big"), buffer[3], buffer[4]
            payload, buffer = buffer[9 : 9 + length], buffer[9 + length :]
            if kind == SETTINGS and flags & ACK:
                yield ("acknowledged", None)
            elif kind == SETTINGS:
                link.sendall(frame(SETTINGS, ACK))
            elif kind == PING and flags & ACK:
                yield ("pong", payload)
            elif kind == HEADERS:
                yield ("status", int(dict(decoder.decode(payload, raw=True)).get(b":status", b"0")))
            elif kind == RST:
                yield ("reset", int.from_bytes(payload, "big"))
            elif kind == GOAWAY:
                yield ("goaway", int.from_bytes(payload[4:8], "big"))


def play(name, sent, wanted, preface=PREFACE):
    context = ssl.create_default_context(cafile=trust)
    context.set_alpn_protocols(["h2"])
    seen = []
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5), server_hostname="localhost") as link:
        link.settimeout(3)
        try:
            link.sendall(preface + frame(SETTINGS) + b"".join(sent))
            for event in events(link):
                seen.append(event)
                if matches(wanted, event):
                    return None
        except OSError:
            if matches(wanted, ("end", None)):
                return None
    return f"{name}: {wanted} did not come, but {seen}"


failed = [problem for case in CASES if (problem := play(*case))]
for text in [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", b"\0" * 24]:
    if problem := play(f"3.4 another preface {text[:9]}", [], connection(PROTOCOL), text):
        failed.append(problem)
print(json.dumps({"cases": len(CASES) + 3, "failed": failed}))
