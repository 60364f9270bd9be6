# Event streams and long polls; run by protocols.py, whose names it uses.

PARTS = [b"data: a\n\n", b": beat\n\n", b"id: 1\ndata: b\n\n"]


def events_of(scene, script, *more, **options):
    path = scene.path("h1", script)
    return path, scene.ask(path, *more, **options)


def each_at_once(scene, script):
    path, caller = events_of(scene, script)
    status, head = caller.head()
    require(status == 200 and head["content-type"] == "text/event-stream", head)
    require(head.get("transfer-encoding") == "chunked" and "content-length" not in head, head)
    for part in PARTS:
        chunk = b"%x\r\n%s\r\n" % (len(part), part)
        require(caller.take(len(chunk)) == chunk, "another event")
        gate(path).release()
    require(caller.take(5) == b"0\r\n\r\n", "no regular end")


@case
def events_of_chunks_come_at_once(scene):
    each_at_once(scene, "chunked")


@case
def events_until_close_come_at_once(scene):
    each_at_once(scene, "close")


@case
def events_of_http_1_0_upstream_come_at_once(scene):
    each_at_once(scene, "old")


@case
def events_without_framing_come_at_once(scene):
    each_at_once(scene, "open")


@case
def events_to_http_1_0_end_with_the_connection(scene):
    path, caller = events_of(scene, "chunked", version="1.0")
    status, head = caller.head()
    require("transfer-encoding" not in head and head.get("connection") == "close", head)
    for part in PARTS:
        require(caller.take(len(part)) == part, "another event")
        gate(path).release()
    require(caller.rest() == (b"", True), "no orderly end")


@case
def events_over_http2_come_at_once(scene):
    for script in ["chunked", "close"]:
        streams = scene.streams()
        path = scene.path("h1", script)
        stream = streams.open(scene.fields(path))
        status, head = streams.head(stream)
        require(status == 200 and head["content-type"] == "text/event-stream", head)
        require("transfer-encoding" not in head and "connection" not in head, head)
        for part in PARTS:
            require(streams.take(stream, len(part)) == part, "another event")
            gate(path).release()
        require(streams.end(stream) == (b"", {}, None), "no regular end")


@case
def events_long_polls_come_at_once(scene):
    path, caller = events_of(scene, "poll")
    caller.head()
    require(caller.take(7) == b"2\r\n{}\r\n", "held back")
    gate(path).release()
    require(caller.take(5) == b"0\r\n\r\n", "no end")


@case
def events_last_id_is_passed_on(scene):
    path, caller = events_of(scene, "chunked", "Last-Event-ID: 41\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n")
    caller.head()
    met = seen.get(path, "fields")
    require(met["last-event-id"] == "41" and met["accept"] == "text/event-stream" and met["cache-control"] == "no-cache", met)


@case
def events_cut_do_not_look_whole(scene):
    for script in ["cut", "halved"]:
        path, caller = events_of(scene, script)
        caller.head()
        require(caller.take(14) == b"9\r\ndata: a\n\n\r\n", "no event")
        gate(path).release()
        rest, is_orderly = caller.rest()
        require(rest == b"", rest)
        streams = scene.streams()
        path = scene.path("h1", script)
        stream = streams.open(scene.fields(path))
        require(streams.head(stream)[0] == 200 and streams.take(stream, 9) == PARTS[0], "no event")
        gate(path).release()
        require(streams.end(stream)[2] not in (None, 0), "a broken stream looks whole")


@case
def events_outlast_the_response_timeout(scene):
    path, caller = events_of(scene, "chunked")
    caller.head()
    require(caller.take(14) == b"9\r\ndata: a\n\n\r\n", "no event")
    time.sleep(1.5)
    gate(path).release()
    require(caller.take(13) == b"8\r\n: beat\n\n\r\n", "ended by a silence")


@case
def events_end_after_the_routes_silence(scene):
    scene.prefix = "/short" if not scene.is_keyed else "/keyed/short"
    path, caller = events_of(scene, "silent")
    caller.head()
    start = time.monotonic()
    rest, is_orderly = caller.rest()
    require(rest == b"9\r\ndata: a\n\n\r\n" and time.monotonic() - start < 3, (rest, is_orderly))
    require(seen.get(path, "end") == b"", "the upstream's connection stayed")


@case
def events_caller_leaves(scene):
    path, caller = events_of(scene, "silent")
    caller.head()
    caller.close()
    require(seen.get(path, "end") == b"", "the upstream does not know")
    streams = scene.streams()
    path = scene.path("h1", "silent")
    stream = streams.open(scene.fields(path))
    require(streams.head(stream)[0] == 200, "no answer")
    streams.reset(stream)
    require(seen.get(path, "end") == b"", "the upstream does not know of the reset")


@case
def events_slow_reader_slows_its_upstream(scene):
    path, caller = events_of(scene, "pours")
    caller.head()
    time.sleep(1.0)
    first = seen.get(path, "sent")
    time.sleep(0.5)
    require(seen.get(path, "sent") == first and first < 20_000_000, f"{first} and {seen.get(path, 'sent')}")
    caller.close()
    require(seen.get(path, "end"), "the upstream does not know")
    streams = scene.streams()
    path = scene.path("h1", "pours")
    stream = streams.open(scene.fields(path))
    time.sleep(1.0)
    first = seen.get(path, "sent")
    time.sleep(0.5)
    require(seen.get(path, "sent") == first and first < 20_000_000, f"{first} and {seen.get(path, 'sent')}")


@case
def events_no_content_ends_them(scene):
    path, caller = events_of(scene, "none")
    status, head = caller.head()
    require(status == 204 and "transfer-encoding" not in head and "content-length" not in head, (status, head))


@case
def events_asked_for_with_head(scene):
    path, caller = events_of(scene, "headed", method="HEAD")
    status, head = caller.head()
    require(status == 200 and head["content-type"] == "text/event-stream", head)
    caller.send(scene.text(scene.path("h1", "plain")))
    require(caller.head()[0] == 200, "the connection did not go on")


@case
def events_of_compressed_bytes_are_not_touched(scene):
    path, caller = events_of(scene, "zipped", "Accept-Encoding: gzip\r\n")
    status, head = caller.head()
    require(head["content-encoding"] == "gzip" and seen.get(path, "fields")["accept-encoding"] == "gzip", head)
    for part in (b"\x1f\x8b\x08\0\0", b"\xff\xfe\0"):
        chunk = b"%x\r\n%s\r\n" % (len(part), part)
        require(caller.take(len(chunk)) == chunk, "changed")
        gate(path).release()


@case
def events_many_streams_on_one_connection(scene):
    streams = scene.streams()
    opened = []
    for _ in range(20):
        path = scene.path("h1", "chunked")
        opened.append((path, streams.open(scene.fields(path))))
    for path, stream in reversed(opened):
        require(streams.head(stream)[0] == 200 and streams.take(stream, 9) == PARTS[0], "one waits for another")
    for path, stream in opened:
        gate(path).release()
        require(streams.take(stream, len(PARTS[1])) == PARTS[1], "one waits for another")


@case
def events_refused(scene):
    if not scene.is_keyed:
        return
    path, caller = events_of(scene, "chunked", "Accept: text/event-stream\r\n", key="sk_live_none")
    status, head = caller.head()
    require(status == 401 and head["content-type"] == "application/json", (status, head))
    require(not seen.has(path, "line"), "the upstream was asked")
