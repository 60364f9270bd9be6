"""Conformance cases of RFC 9113 and RFC 7541, each on a connection of its own.

Arguments: port, certificate, target, and where wanted the number of rounds and words that names must contain.

The first list has, section by section, the cases of the conformance suite that servers of HTTP/2 are judged by, with
exactly its tolerance: two seconds for each frame, the named codes and no others, an orderly close (of TLS and TCP)
where a close will do, and no answer of HTTP in place of an error. The second list has our own, where a refusal by
status is an error of its stream too. Prints one JSON line with the number of cases and what failed.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import hpack
from wire import *

port, trust, target = int(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 1
wanted_words = sys.argv[5:]
BASE = {":method": b"GET", ":scheme": b"https", ":path": target, ":authority": b"localhost:%d" % port}


def block(*more, front=(), leave=(), huffman=True, **changes):
    """A header block: the four fields of a request without `leave`, some with another value, then `more`."""
    fields = {**BASE, **{":" + name: value for name, value in changes.items()}}
    fields = [(name, value) for name, value in fields.items() if name not in leave]
    return hpack.Encoder().encode([*front, *fields, *more], huffman=huffman)


def only(*fields):
    return hpack.Encoder().encode(fields)


ALL = END_STREAM | END_HEADERS
DUMMY = only((b"x-dummy0", b"x" * 4_000))
LONG = block((b"x-long", b"x" * 4_000), huffman=False)
LARGE = block(*[(b"x-dummy%d" % n, b"x" * 4_000) for n in range(5)])


def head(payload=None, flags=ALL, stream=1):
    return frame(HEADERS, flags, stream, block() if payload is None else payload)


def post(*more, stream=1):
    return head(block(*more, method=b"POST"), END_HEADERS, stream)


def data(content=b"test", flags=END_STREAM, stream=1):
    return frame(DATA, flags, stream, content)


# Longer than five bytes, though what is left of it is not.
SPLIT = data(b"0123456789")


def reset(code=CANCEL, stream=1):
    return frame(RST, 0, stream, number(code))


def window(increment, stream=1):
    return frame(WINDOW, 0, stream, number(increment))


def priority(depends=0, weight=255, exclusive=0, stream=1):
    return frame(PRIORITY, 0, stream, number(depends | exclusive << 31) + bytes([weight]))


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(number(name, 2) + number(value) for name, value in pairs))


def initial_window(value):
    return settings((4, value))


def continuation(payload=DUMMY, flags=END_HEADERS, stream=1):
    return frame(CONTINUATION, flags, stream, payload)


def goaway(code, debug=b""):
    return frame(GOAWAY, 0, 0, number(0) + number(code) + debug)


PINGED = frame(PING, 0, 0, b"12345678")
NOTHING = frame(PING, 0, 0, bytes(8))
UNKNOWN = frame(0x16, 0, 0, bytes(8))


# What must come. Each takes an event and says True (met), False (missed) or None (not decided yet).


def connection(*codes):
    return lambda kind, value, *_: kind == "end" or kind == "goaway" and value in codes or None


def stream(*codes):
    return lambda kind, value, *_: kind == "end" or kind in ("goaway", "reset") and value in codes or None


def first(wanted, **facts):
    """The first frame of a kind, and what must hold for it."""

    def decide(kind, value, more):
        if kind != wanted:
            return None
        return all(more[name] == fact for name, fact in facts.items())

    return decide


def closes(kind, value, more):
    return kind == "end" or None


def ended(kind, value, more):
    return kind in ("data", "headers") and more["flags"] & END_STREAM != 0 or None


def pong(kind, value, more):
    return None if kind != "ping" else more["flags"] & ACK != 0 and value == b"12345678"


def pong_or_end(kind, value, more):
    return kind == "end" or pong(kind, value, more)


def other_pong(kind, value, more):
    """An answer to the one, and none to the other."""
    return None if kind != "ping" else value == b"12345678" and more["flags"] & ACK != 0


answer = first("headers", stream=1)
any_ping, any_answer, any_settings = first("ping"), first("headers"), first("settings")
acknowledged = first("settings", flags=ACK)
one_byte = first("data", length=1)

# Literals of RFC 7541: x-test: h2spec, with and without Huffman coding.
NAME, NAME_CODED = b"\x06x-test", b"\x85\xf2\xb2\x4a\x84\xff"
VALUE, VALUE_CODED = b"\x06h2spec", b"\x84\x9c\x48\xac\xa4"
AGENT, AGENT_CODED = b"\x0auser-agent", b"\x87\xb5\x05\xb1\x61\xcc\x5a\x93"

SUITE = [
    # A generic server
    ("generic 1 a preface is answered by settings first", ["bare", settings((4, 65_535))], lambda kind, value, more: kind == "settings" and not more["flags"] & ACK),
    ("generic 2 priority on an idle stream", [priority(), PINGED], pong),
    ("generic 2 a window on a half-closed stream", [initial_window(0), head(), window(1)], first("data")),
    ("generic 2 priority on a half-closed stream", [initial_window(0), head(), priority(), window(1)], first("data")),
    ("generic 2 a reset on a half-closed stream", [head(), reset(), PINGED], pong_or_end),
    ("generic 2 priority on a closed stream", [head(), ended, priority(), PINGED], pong),
    ("generic 3.1 data", [post(), data()], answer),
    ("generic 3.1 data in several frames", [post(), data(flags=0), data()], answer),
    ("generic 3.1 padded data", [post(), data(b"\x06testpadded", END_STREAM | PADDED)], answer),
    ("generic 3.2 a head", [head()], answer),
    ("generic 3.2 a padded head", [head(b"\x08" + block() + bytes(8), ALL | PADDED)], answer),
    ("generic 3.2 a head with priority", [head(b"\0\0\0\0\xff" + block(), ALL | PRIORITISED)], answer),
    ("generic 3.3 the lowest priority", [priority(weight=0), head()], answer),
    ("generic 3.3 the highest priority", [priority(), head()], answer),
    ("generic 3.3 a dependency", [priority(depends=1, weight=0, stream=3), head()], answer),
    ("generic 3.3 an exclusive dependency", [priority(weight=0, exclusive=1), head()], answer),
    ("generic 3.3 priority of a higher stream first", [priority(stream=3), head()], answer),
    ("generic 3.4 a reset", [head(flags=END_HEADERS), reset(), PINGED], pong_or_end),
    ("generic 3.5 settings", [settings((1, 4096), (2, 1), (3, 100), (4, 65_535), (5, 16_384), (6, 100))], acknowledged),
    ("generic 3.7 a ping", [PINGED], pong),
    ("generic 3.8 a goaway", [goaway(0, b"h2spec")], closes),
    ("generic 3.9 a window of the connection", [window(1, 0), NOTHING], any_ping),
    ("generic 3.9 a window of a stream", [head(), window(1)], any_answer),
    ("generic 3.10 a continuation", [head(block()[:5], END_STREAM), continuation(block()[5:])], answer),
    ("generic 3.10 several continuations", [head(block()[:5], END_STREAM), continuation(block()[5:10], 0), continuation(block()[10:])], answer),
    ("generic 4 GET", [head()], answer),
    ("generic 4 HEAD", [head(block(method=b"HEAD"))], answer),
    ("generic 4 POST", [post(), data()], answer),
    ("generic 4 POST with trailers", [post((b"trailer", b"x-test")), data(flags=0), head(only((b"x-test", b"ok")))], answer),
    ("generic 5 an indexed field", [head(block() + b"\xba")], answer),
    ("generic 5 indexing, indexed name", [head(block() + b"\x40" + AGENT + VALUE)], answer),
    ("generic 5 indexing, indexed name, coded", [head(block() + b"\x40" + AGENT_CODED + VALUE_CODED)], answer),
    ("generic 5 indexing, new name", [head(block() + b"\x40" + NAME + VALUE)], answer),
    ("generic 5 indexing, new name, coded", [head(block() + b"\x40" + NAME_CODED + VALUE_CODED)], answer),
    ("generic 5 no indexing, indexed name", [head(block() + b"\x00" + AGENT + VALUE)], answer),
    ("generic 5 no indexing, indexed name, coded", [head(block() + b"\x00" + AGENT_CODED + VALUE_CODED)], answer),
    ("generic 5 no indexing, new name", [head(block() + b"\x00" + NAME + VALUE)], answer),
    ("generic 5 no indexing, new name, coded", [head(block() + b"\x00" + NAME_CODED + VALUE_CODED)], answer),
    ("generic 5 never indexed, indexed name", [head(block() + b"\x10" + AGENT + VALUE)], answer),
    ("generic 5 never indexed, indexed name, coded", [head(block() + b"\x10" + AGENT_CODED + VALUE_CODED)], answer),
    ("generic 5 never indexed, new name", [head(block() + b"\x10" + NAME + VALUE)], answer),
    ("generic 5 never indexed, new name, coded", [head(block() + b"\x10" + NAME_CODED + VALUE_CODED)], answer),
    ("generic 5 a table size", [head(b"\x20" + block())], answer),
    ("generic 5 two table sizes", [head(b"\x20\x3f\xe1\x1f" + block())], answer),
    # HPACK
    ("hpack 2.3.3 an index beyond the tables", [head(block() + b"\xfe")], connection(COMPRESSION)),
    ("hpack 2.3.3 a literal with a name beyond the tables", [head(block() + b"\x7f\x3f\x01a")], connection(COMPRESSION)),
    ("hpack 4.2 a table size at the end", [head(block() + b"\x21")], connection(COMPRESSION)),
    ("hpack 5.2 padding of more than seven bits", [head(block() + b"\x00" + NAME_CODED + b"\x84\x49\x50\x9f\xff")], connection(COMPRESSION)),
    ("hpack 5.2 padding of zeros", [head(block() + b"\x00" + NAME_CODED + b"\x83\x49\x50\x90")], connection(COMPRESSION)),
    ("hpack 5.2 the end of string", [head(block() + b"\x00\x85\xf2\xb2\x4a\x87\xff\xff\xff\xfd\x25\x42\x7f")], connection(COMPRESSION)),
    ("hpack 6.1 index zero", [head(block() + b"\x80")], connection(COMPRESSION)),
    ("hpack 6.3 a table size over the setting", [head(b"\x3f\xe2\x1f" + block())], connection(COMPRESSION)),
    # HTTP/2
    ("http2 3.5 a preface", ["bare", settings((4, 65_535))], lambda kind, value, more: kind == "settings" and not more["flags"] & ACK),
    ("http2 3.5 another preface", ["none", b"INVALID CONNECTION PREFACE\r\n\r\n"], closes),
    ("http2 4.1 an unknown frame", [UNKNOWN[:9], UNKNOWN[9:], NOTHING], any_ping),
    ("http2 4.1 undefined flags", [frame(PING, 0x16, 0, bytes(8))], any_ping),
    ("http2 4.1 the reserved bit", [frame(PING, 0x16, 1 << 31, bytes(8))], any_ping),
    ("http2 4.2 the largest data", [post(), data(b"x" * 16_384)], any_answer),
    ("http2 4.2 data over the size", [post(), data(b"x" * 16_385)], stream(SIZE)),
    ("http2 4.2 a head over the size", [head(LARGE)], connection(SIZE)),
    ("http2 4.3 a block that cannot be read", [head(b"\x40")], connection(COMPRESSION)),
    ("http2 4.3 priority inside a block", [head(flags=0), priority(), continuation()], connection(PROTOCOL)),
    ("http2 4.3 another stream's head inside a block", [head(flags=0), head(stream=3), continuation()], connection(PROTOCOL)),
    ("http2 5.1 idle: data", [data()], connection(PROTOCOL)),
    ("http2 5.1 idle: reset", [reset()], connection(PROTOCOL)),
    ("http2 5.1 idle: window", [window(100)], connection(PROTOCOL)),
    ("http2 5.1 idle: continuation", [continuation(block())], connection(PROTOCOL)),
    ("http2 5.1 half-closed: data", [head(), data()], stream(CLOSED)),
    ("http2 5.1 half-closed: head", [head(), head()], stream(CLOSED)),
    ("http2 5.1 half-closed: continuation", [head(), continuation(block())], stream(CLOSED, PROTOCOL)),
    ("http2 5.1 reset: data", [head(flags=END_HEADERS), reset(), data()], stream(CLOSED)),
    ("http2 5.1 reset: head", [head(flags=END_HEADERS), reset(), head()], stream(CLOSED)),
    ("http2 5.1 reset: continuation", [head(flags=END_HEADERS), reset(), continuation()], stream(CLOSED, PROTOCOL)),
    ("http2 5.1 closed: data", [head(), ended, data()], connection(CLOSED)),
    ("http2 5.1 closed: head", [head(), ended, head()], connection(CLOSED)),
    ("http2 5.1 closed: continuation", [head(), ended, continuation()], connection(CLOSED, PROTOCOL)),
    ("http2 5.1.1 an even stream", [head(stream=2)], connection(PROTOCOL)),
    ("http2 5.1.1 a lower stream", [head(stream=5), head(stream=3)], connection(PROTOCOL)),
    ("http2 5.1.1 a half-closed stream", [head(stream=5), head(stream=5)], stream(CLOSED)),
    ("http2 5.1.2 more streams than allowed", [initial_window(0), *[head(stream=2 * n + 1) for n in range(129)]], stream(PROTOCOL, REFUSED)),
    ("http2 5.3.1 a head that depends on itself", [head(b"\0\0\0\1\xff" + block(), ALL | PRIORITISED)], stream(PROTOCOL)),
    ("http2 5.3.1 priority that depends on itself", [priority(depends=1)], stream(PROTOCOL)),
    ("http2 5.4.1 an error closes", [frame(PING, 0, 3, bytes(8))], closes),
    ("http2 5.4.1 an error says goaway", [frame(PING, 0, 3, bytes(8))], lambda kind, *_: kind == "goaway" or None),
    ("http2 5.5 an unknown frame", [UNKNOWN, NOTHING], any_ping),
    ("http2 5.5 an unknown frame inside a block", [head(flags=END_STREAM), UNKNOWN[:9], UNKNOWN[9:]], connection(PROTOCOL)),
    ("http2 6.1 data on stream zero", [data(stream=0)], connection(PROTOCOL)),
    ("http2 6.1 data on a half-closed stream", [head(block(method=b"POST")), data()], stream(CLOSED)),
    ("http2 6.1 padding longer than data", [post((b"content-length", b"4")), data(b"\x06Test", END_STREAM | PADDED)], connection(PROTOCOL)),
    ("http2 6.2 priority behind an open block", [head(flags=0), priority(), continuation()], connection(PROTOCOL)),
    ("http2 6.2 another head behind an open block", [head(flags=0), head(stream=3), continuation()], connection(PROTOCOL)),
    ("http2 6.2 a head on stream zero", [head(stream=0)], connection(PROTOCOL)),
    ("http2 6.2 padding longer than a head", [head(bytes([len(block()) + 2]) + block(), ALL | PADDED)], stream(PROTOCOL)),
    ("http2 6.3 priority on stream zero", [priority(stream=0)], connection(PROTOCOL)),
    ("http2 6.3 priority of another size", [head(), frame(PRIORITY, 0, 1, b"\x80\0\0\1")], stream(SIZE)),
    ("http2 6.3 priority of a higher stream first", [priority(stream=3), head()], any_answer),
    ("http2 6.4 a reset of stream zero", [reset(stream=0)], connection(PROTOCOL)),
    ("http2 6.4 a reset of an idle stream", [reset()], connection(PROTOCOL)),
    ("http2 6.4 a reset of another size", [head(), frame(RST, 0, 1, bytes(3))], stream(SIZE)),
    ("http2 6.5 an acknowledgement with content", [frame(SETTINGS, ACK, 0, b"\0")], connection(SIZE)),
    ("http2 6.5 settings on a stream", [frame(SETTINGS, 0, 1, b"\0\3\0\0\0\x64")], connection(PROTOCOL)),
    ("http2 6.5 settings of another size", [frame(SETTINGS, 0, 0, b"\0\3\0\0\0\x64\0\2", 9)], stream(PROTOCOL, SIZE)),
    ("http2 6.5.2 push neither on nor off", [settings((2, 2))], connection(PROTOCOL)),
    ("http2 6.5.2 a window over its maximum", [initial_window(1 << 31)], connection(FLOW)),
    ("http2 6.5.2 a frame size below its minimum", [settings((5, 16_383))], connection(PROTOCOL)),
    ("http2 6.5.2 a frame size over its maximum", [settings((5, 16_777_216))], connection(PROTOCOL)),
    ("http2 6.5.2 an unknown setting", [settings((0xFF, 1)), NOTHING], any_ping),
    ("http2 6.5.3 two windows in one frame", [settings((4, 100), (4, 1)), any_settings, head()], one_byte),
    ("http2 6.5.3 settings are acknowledged", [settings((2, 0))], acknowledged),
    ("http2 6.7 a ping is answered", [PINGED], pong),
    ("http2 6.7 an answer to no ping is ignored", [frame(PING, ACK, 0, b"invalid\0"), PINGED], other_pong),
    ("http2 6.7 a ping on a stream", [frame(PING, 0, 1, bytes(8))], connection(PROTOCOL)),
    ("http2 6.7 a ping of another size", [frame(PING, 0, 0, bytes(6))], connection(SIZE)),
    ("http2 6.8 a goaway on a stream", [frame(GOAWAY, 0, 1, bytes(8))], connection(PROTOCOL)),
    ("http2 6.9 a window by zero", [window(0, 0)], connection(PROTOCOL)),
    ("http2 6.9 a stream's window by zero", [head(flags=END_HEADERS), window(0)], stream(PROTOCOL)),
    ("http2 6.9 a window of another size", [frame(WINDOW, 0, 0, b"\0\0\1")], connection(SIZE)),
    ("http2 6.9.1 no more data than the window", [initial_window(1), any_settings, head()], one_byte),
    ("http2 6.9.1 a window over its maximum", [window(0x7FFFFFFF, 0), window(0x7FFFFFFF, 0)], lambda kind, value, *_: None if kind != "goaway" else value == FLOW),
    ("http2 6.9.1 a stream's window over its maximum", [head(flags=END_HEADERS), window(0x7FFFFFFF), window(0x7FFFFFFF)], lambda kind, value, *_: None if kind != "reset" else value == FLOW),
    ("http2 6.9.2 a window that opens later", [initial_window(0), any_settings, head(), initial_window(1), any_settings], one_byte),
    ("http2 6.9.2 a window below zero", [initial_window(3), any_settings, head(), first("data"), initial_window(2), any_settings, window(2)], one_byte),
    ("http2 6.9.2 an initial window over its maximum", [initial_window(1 << 31)], connection(FLOW)),
    ("6.10 a head in twenty continuations", [head(LONG[:200], END_STREAM), *[continuation(LONG[n : n + 200], 0) for n in range(200, 4_000, 200)], continuation(LONG[4_000:])], answer),
    ("http2 6.10 several continuations", [head(flags=END_STREAM), continuation(flags=0), continuation()], any_answer),
    ("http2 6.10 data behind a continuation", [head(block(method=b"POST"), 0), continuation(flags=0), data()], connection(PROTOCOL)),
    ("http2 6.10 data behind an open block of an ended stream", [head(flags=END_STREAM), continuation(flags=0), data()], connection(PROTOCOL)),
    ("http2 6.10 another head in an open block of its stream", [head(flags=END_STREAM), head()], connection(PROTOCOL)),
    ("http2 6.10 a continuation on stream zero", [head(flags=END_STREAM), continuation(stream=0)], connection(PROTOCOL)),
    ("http2 6.10 a continuation behind a whole head", [head(), continuation()], connection(PROTOCOL)),
    ("http2 6.10 a continuation behind the last one", [head(flags=END_STREAM), continuation(), continuation()], connection(PROTOCOL)),
    ("http2 6.10 a continuation behind data", [head(block(method=b"POST"), 0), data(), continuation(flags=0), continuation(stream=0)], connection(PROTOCOL)),
    ("http2 7 an unknown code of a goaway", [goaway(0xFF)], closes),
    ("http2 7 an unknown code of a reset", [post(), reset(0xFF), NOTHING], any_ping),
    ("http2 8.1 a second head that does not end", [post(), data(flags=0), head(only((b"x-test", b"ok")), END_HEADERS)], stream(PROTOCOL)),
    ("http2 8.1.2 an upper-case name", [head(block((b"X-TEST", b"ok")))], stream(PROTOCOL)),
    ("http2 8.1.2.1 an unknown pseudo-header field", [head(block((b":test", b"ok")))], stream(PROTOCOL)),
    ("http2 8.1.2.1 a pseudo-header field of answers", [head(block((b":status", b"200")))], stream(PROTOCOL)),
    ("http2 8.1.2.1 a pseudo-header field in trailers", [post(), data(flags=0), head(only((b":method", b"POST")), END_HEADERS)], stream(PROTOCOL)),
    ("http2 8.1.2.1 a pseudo-header field behind others", [head(block(front=[(b"x-test", b"ok")]))], stream(PROTOCOL)),
    ("http2 8.1.2.2 connection", [head(block((b"connection", b"keep-alive")))], stream(PROTOCOL)),
    ("http2 8.1.2.2 te", [head(block((b"trailers", b"test"), (b"te", b"trailers, deflate")))], stream(PROTOCOL)),
    ("http2 8.1.2.3 an empty path", [head(block(path=b""))], stream(PROTOCOL)),
    ("http2 8.1.2.3 no method", [head(block(leave=[":method"]))], stream(PROTOCOL)),
    ("http2 8.1.2.3 no scheme", [head(block(leave=[":scheme"]))], stream(PROTOCOL)),
    ("http2 8.1.2.3 no path", [head(block(leave=[":path"]))], stream(PROTOCOL)),
    ("http2 8.1.2.3 two methods", [head(block((b":method", b"GET")))], stream(PROTOCOL)),
    ("http2 8.1.2.3 two schemes", [head(block((b":scheme", b"https")))], stream(PROTOCOL)),
    ("http2 8.1.2.3 two paths", [head(block((b":path", target)))], stream(PROTOCOL)),
    ("http2 8.1.2.6 data over the length", [post((b"content-length", b"1")), data()], stream(PROTOCOL)),
    ("http2 8.1.2.6 several data over the length", [post((b"content-length", b"1")), data(flags=0), data()], stream(PROTOCOL)),
    ("http2 8.2 a push", [frame(PUSH, END_HEADERS, 1, number(3) + block())], connection(PROTOCOL)),
]

# Ours.


def message_error(*codes):
    """An error of a stream, or of its message: a refusal by status will do."""
    by_frame = stream(*codes)
    return lambda kind, value, more: by_frame(kind, value, more) or kind == "headers" and 400 <= value < 500 or None


def either(*all_wanted):
    return lambda *event: any(wanted(*event) for wanted in all_wanted) or None


OWN = [
    ("3.4 a request together with the preface", ["together", head()], answer),
    ("3.4 a request of HTTP/1.1", ["none", b"GET / HTTP/1.1\r\n\r\n"], connection(PROTOCOL)),
    ("3.4 an end of the preface that differs", ["none", PREFACE[:-1] + b"\r"], connection(PROTOCOL)),
    ("3.4 zeros", ["none", bytes(24)], connection(PROTOCOL)),
    ("3.4 no settings behind the preface", ["none", PREFACE + PINGED], connection(PROTOCOL)),
    ("4.1 an unknown frame on a stream", [post(), frame(0x77, 0, 1, b"abc"), data(b"")], answer),
    ("4.2 settings over the size", [frame(SETTINGS, 0, 0, b"\0\1\0\0\0\0" * 3_000)], connection(SIZE)),
    ("4.3 a length that does not end", [head(b"\x40\xff\xff\xff\xff\xff\xff")], connection(COMPRESSION)),
    ("4.3 a ping inside a block", [head(flags=END_STREAM), PINGED], connection(PROTOCOL)),
    ("4.3 a static entry beyond the table", [head(block() + b"\xff\x80\x01")], connection(COMPRESSION)),
    ("4.3 a block that ends inside a literal", [head(block() + b"\x40\x05ab")], connection(COMPRESSION)),
    ("4.3 an integer over 2^32", [head(block() + b"\xff\xff\xff\xff\xff\x7f")], connection(COMPRESSION)),
    ("5.1 priority of an idle stream", [priority(stream=99), PINGED], pong),
    ("5.1 a window after a reset", [post(), reset(), window(1), PINGED], pong),
    ("5.1 a window after the end", [head(), ended, window(1), PINGED], pong),
    ("5.1 a reset after the end", [head(), ended, reset(), PINGED], pong),
    ("5.1 a second reset", [post(), reset(), reset(), PINGED], pong),
    ("5.3.1 a head that depends on a stream to come", [head(b"\0\0\0\3\x0f" + block(), ALL | PRIORITISED)], answer),
    ("5.3.1 a padded head that depends on itself", [head(b"\2\0\0\0\1\x0f" + block() + b"\0\0", ALL | PRIORITISED | PADDED)], stream(PROTOCOL)),
    ("6.1 padding of nothing", [post(), data(b"\0", END_STREAM | PADDED)], answer),
    ("6.1 padding without its length", [post(), data(b"", END_STREAM | PADDED)], connection(SIZE, PROTOCOL)),
    ("6.2 a head byte by byte", [head(block()[:1], END_STREAM), *[continuation(block()[n : n + 1], 0) for n in range(1, 6)], continuation(block()[6:])], answer),
    ("6.2 priority without room", [head(b"\0\0", ALL | PRIORITISED)], connection(SIZE, PROTOCOL)),
    ("6.5 settings without content", [settings(), PINGED], pong),
    ("6.6 a push on a stream of ours", [head(), frame(PUSH, END_HEADERS, 1, number(2) + block())], connection(PROTOCOL)),
    ("6.9.2 a window of zero, then of enough", [initial_window(0), head(), window(1 << 20)], answer),
    ("6.9.2 a window of one byte", [initial_window(1), head(), initial_window(65_535)], answer),
    ("8.1 a body in pieces", [post(), data(b"a", 0), data(b"", 0), data(b"b")], answer),
    ("8.1 two trailers", [post(), data(b"a", 0), head(only((b"x-t", b"1"))), head(only((b"x-t", b"1")))], message_error(CLOSED, PROTOCOL)),
    ("8.1.1 less data than the length", [post((b"content-length", b"9")), data(b"abc")], message_error(PROTOCOL)),
    ("8.1.1 a length and no data", [head(block((b"content-length", b"9"), method=b"POST"))], message_error(PROTOCOL)),
    ("8.1.1 a length with a sign", [post((b"content-length", b"+4")), data()], message_error(PROTOCOL)),
    ("8.1.1 more data than the length, in pieces", [post((b"content-length", b"5")), SPLIT[:15], SPLIT[15:]], stream(PROTOCOL)),
    ("8.1.1 less data than the length, then trailers", [post((b"content-length", b"9")), data(b"abc", 0), head(only((b"x-t", b"1")))], stream(PROTOCOL)),
    ("8.2.1 a name with a space", [head(block((b"x a", b"1")))], message_error(PROTOCOL)),
    ("8.2.1 a value with a line feed", [head(block((b"x", b"a\nb")))], message_error(PROTOCOL)),
    ("8.2.1 a value with a NUL", [head(block((b"x", b"a\0b")))], message_error(PROTOCOL)),
    ("8.2.2 transfer-encoding", [post((b"transfer-encoding", b"chunked")), data()], message_error(PROTOCOL)),
    ("8.2.2 upgrade", [head(block((b"upgrade", b"h2c")))], message_error(PROTOCOL)),
    ("8.2.2 keep-alive", [head(block((b"keep-alive", b"5")))], message_error(PROTOCOL)),
    ("8.2.2 proxy-connection", [head(block((b"proxy-connection", b"close")))], message_error(PROTOCOL)),
    ("8.2.2 te: trailers", [head(block((b"te", b"trailers")))], answer),
    ("8.3.1 a path without its slash", [head(block(path=b"x"))], message_error(PROTOCOL)),
    ("8.3.1 two authorities", [head(block((b":authority", b"localhost")))], message_error(PROTOCOL)),
    ("8.5 connect without a protocol", [head(only((b":method", b"CONNECT"), (b":authority", b"a:1")), END_HEADERS)], message_error(PROTOCOL)),
]


def play(case):
    name, steps, wanted = case
    link = Link(port, trust)
    try:
        how, steps = (steps[0], steps[1:]) if isinstance(steps[0], str) else ("handshake", steps)
        if how == "together":
            link.send(PREFACE + settings() + b"".join(steps))
            steps = []
        elif how == "bare":
            link.send(PREFACE)
        elif how == "handshake" and not link.shake_hands():
            return f"{name}: no handshake, but {link.seen}"
        for step in steps:
            if isinstance(step, bytes):
                link.send(step)
            elif not link.wait(step):
                return f"{name}: stopped on the way with {link.seen}"
        if link.wait(wanted):
            return None
    finally:
        link.socket.close()
    return f"{name}: {link.seen}"


cases = [case for case in SUITE + OWN if all(word in case[0] for word in wanted_words)]
with ThreadPoolExecutor(4) as pool:
    failed = [problem for problem in pool.map(play, cases * rounds) if problem]
print(json.dumps({"cases": len(cases) * rounds, "failed": failed}))
