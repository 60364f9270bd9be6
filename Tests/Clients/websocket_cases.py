# WebSocket and other upgrades; run by protocols.py, whose names it uses.


def opened(scene, script="echo", fields=UPGRADE, **more):
    path = scene.path("h1", script)
    caller = scene.ask(path, fields, **more)
    status, answered = caller.head()
    require(status == 101, status)
    return caller, path, answered


@case
def websocket_opens_and_echoes(scene):
    caller, path, answered = opened(scene)
    require(answered["upgrade"].lower() == "websocket" and "upgrade" in answered["connection"].lower(), answered)
    require(answered["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", answered)
    caller.send(b"\x81\x82\1\2\3\4ab")
    require(caller.take(8) == b"\x81\x82\1\2\3\4ab", "another frame")
    met = seen.get(path, "fields")
    require(met["sec-websocket-key"] == "dGhlIHNhbXBsZSBub25jZQ==" and met["sec-websocket-version"] == "13", met)
    require("authorization" not in met, "the key went on")


@case
def websocket_options_pass_both_ways(scene):
    path = scene.path("h1", "fields")
    caller = scene.ask(path, UPGRADE + "Sec-WebSocket-Protocol: chat, other\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nOrigin: https://a.example\r\n")
    status, answered = caller.head()
    require(status == 101 and answered["sec-websocket-protocol"] == "chat" and answered["x-odd"] == "1", answered)
    require(answered["sec-websocket-extensions"] == "permessage-deflate", answered)
    met = seen.get(path, "fields")
    require(met["sec-websocket-protocol"] == "chat, other" and met["origin"] == "https://a.example", met)


@case
def websocket_tokens_of_any_case_and_order(scene):
    for fields in [
        "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
        "connection: UPGRADE\r\nupgrade: WebSocket\r\n",
        "Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: chat, websocket\r\n",
    ]:
        opened(scene, fields=fields + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")


@case
def websocket_without_its_own_fields_is_the_upstreams_business(scene):
    caller, path, _ = opened(scene, fields="Connection: Upgrade\r\nUpgrade: websocket\r\n")
    caller.send("x")
    require(caller.take(1) == b"x", "no echo")


@case
def websocket_with_two_keys(scene):
    path = scene.path("h1", "echo")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    require(scene.ask(path, UPGRADE + key).head()[0] == 400, "not refused")
    require(not seen.has(path, "line"), "the upstream was asked")
    opened(scene, fields="Connection: Upgrade\r\nUpgrade: chat\r\n" + key + key, script="other")


@case
def websocket_of_another_version_gets_the_upstreams_refusal(scene):
    caller = scene.ask(scene.path("h1", "version"), UPGRADE.replace("13", "12"))
    status, answered = caller.head()
    require(status == 426 and answered["sec-websocket-version"] == "13", (status, answered))


@case
def websocket_declined_with_a_body(scene):
    caller = scene.ask(scene.path("h1", "declines"), UPGRADE)
    status, answered = caller.head()
    require(status == 403 and caller.body(answered) == b"no", status)
    caller.send(scene.text(scene.path("h1", "plain")))
    require(caller.head()[0] == 200, "the connection did not go on")


@case
def websocket_answered_with_success_is_no_tunnel(scene):
    caller = scene.ask(scene.path("h1", "success"), UPGRADE)
    status, answered = caller.head()
    require(status == 200 and caller.body(answered) == b"ok", status)
    caller.send(scene.text(scene.path("h1", "plain")))
    require(caller.head()[0] == 200, "the connection did not go on")


@case
def websocket_switch_that_names_nothing(scene):
    require(scene.ask(scene.path("h1", "bare"), UPGRADE).head()[0] == 502, "believed")


@case
def websocket_switch_to_another_protocol(scene):
    require(scene.ask(scene.path("h1", "other"), UPGRADE).head()[0] == 502, "believed")


@case
def websocket_switch_that_nobody_asked_for(scene):
    require(scene.ask(scene.path("h1", "unasked")).head()[0] == 502, "believed")


@case
def websocket_bytes_before_the_switch_wait(scene):
    path = scene.path("h1", "late")
    caller = scene.caller()
    caller.send(scene.text(path, UPGRADE) + "early bytes")
    require(caller.head()[0] == 101, "not opened")
    require(caller.take(11) == b"early bytes", "lost")
    require(not seen.has(path, "early"), "passed before the upstream had agreed")


@case
def websocket_bytes_before_a_refusal_are_no_request(scene):
    path, hidden = scene.path("h1", "declines"), scene.path("h1", "plain")
    caller = scene.caller()
    caller.send(scene.text(path, UPGRADE) + f"GET {hidden} HTTP/1.1\r\nHost: a\r\n\r\n" if scene.is_keyed else scene.text(path, UPGRADE))
    require(caller.head()[0] == 403, "not declined")


@case
def websocket_fragments_and_control_frames(scene):
    caller, path, _ = opened(scene)
    mask = b"\1\2\3\4"
    frames = b"".join([
        b"\x01\x83" + mask + b"abc", b"\x89\x84" + mask + b"ping", b"\x00\x81" + mask + b"d", b"\x80\x80" + mask,
        b"\x8a\x80" + mask, b"\x88\x82" + mask + b"\x02\xea",
    ])
    for byte in frames:
        caller.send(bytes([byte]))
    require(caller.take(len(frames)) == frames, "changed on the way")


@case
def websocket_of_many_megabytes(scene):
    caller, path, _ = opened(scene)
    content = bytes(range(256)) * 512
    for _ in range(32):
        caller.send(content)
        require(caller.take(len(content)) == content, "changed on the way")


@case
def websocket_upstream_ends_after_its_last_words(scene):
    caller, path, _ = opened(scene, "half")
    require(caller.rest() == (b"last words", True), "lost, or no orderly end")


@case
def websocket_upstream_that_breaks(scene):
    caller, path, _ = opened(scene, "breaks")
    caller.rest()


@case
def websocket_caller_that_leaves(scene):
    caller, path, _ = opened(scene, "sink")
    caller.send("last words")
    caller.close()
    require(seen.get(path, "end") == b"last words", "lost")


@case
def websocket_of_http_1_0_is_not_upgraded(scene):
    path = scene.path("h1", "success")
    status, _ = scene.ask(path, UPGRADE, version="1.0").head()
    require(status == 200 and "upgrade" not in seen.get(path, "fields"), seen.get(path, "fields"))


@case
def websocket_upgrade_that_connection_does_not_name(scene):
    path = scene.path("h1", "success")
    status, _ = scene.ask(path, "Upgrade: websocket\r\n").head()
    require(status == 200 and "upgrade" not in seen.get(path, "fields"), seen.get(path, "fields"))


@case
def websocket_connection_without_upgrade(scene):
    path = scene.path("h1", "success")
    status, _ = scene.ask(path, "Connection: Upgrade\r\n").head()
    require(status == 200 and "upgrade" not in seen.get(path, "fields").get("connection", ""), "a bare option")


@case
def websocket_never_h2c(scene):
    for protocol in ["h2c", "websocket, h2c", "HTTP/2.0", "TLS/1.0"]:
        path = scene.path("h1", "success")
        status, _ = scene.ask(path, f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n").head()
        met = seen.get(path, "fields")
        require(status == 200 and "h2c" not in met.get("upgrade", "") and "http2-settings" not in met, met)


@case
def websocket_with_a_body_before_it(scene):
    path = scene.path("h1", "body")
    caller = scene.ask(path, UPGRADE + "Content-Length: 3\r\n", method="POST")
    caller.send("abc")
    require(caller.head()[0] in (101, 200), "refused")


@case
def websocket_ends_after_silence(scene):
    scene.prefix = "/short" if not scene.is_keyed else "/keyed/short"
    caller, path, _ = opened(scene, "sink")
    start = time.monotonic()
    for _ in range(4):
        time.sleep(0.3)
        caller.send("x")
    caller.rest()
    require(1.2 < time.monotonic() - start < 4, time.monotonic() - start)


@case
def websocket_that_the_gate_refuses(scene):
    if not scene.is_keyed:
        return
    for path, key, status in [
        (scene.path("h1", "echo"), "sk_live_none", 401), (scene.path("h1", "echo"), None, 401),
        ("/keyed/scoped/h1/echo-x", "pro", 403), ("/keyed/nowhere", "all", 404),
    ]:
        caller = scene.ask(path, UPGRADE, key=key)
        require(caller.head()[0] == status, f"not {status}")
        require(not seen.has(path, "line"), "the upstream was asked")


@case
def websocket_counts_one_call(scene):
    if not scene.is_keyed:
        return
    caller, path, answered = opened(scene, key="counted")
    left = int(answered["ratelimit"].split("r=")[1].split(";")[0])
    for _ in range(20):
        caller.send("x" * 100)
        caller.take(100)
    again = opened(scene, key="counted")[2]
    require(int(again["ratelimit"].split("r=")[1].split(";")[0]) == left - 1, (answered, again))


@case
def websocket_to_nobody(scene):
    require(scene.ask("/down/x", UPGRADE).head()[0] in (502, 503), "answered")


def tunnelled(scene, upstream="h1", script="echo", *fields, **more):
    streams = scene.streams()
    path = scene.path(upstream, script)
    return streams, streams.open(scene.connect(path, *fields, **more), ends=False), path


VERSION = ("sec-websocket-version", "13")


@case
def connect_is_announced(scene):
    streams = scene.streams()
    streams.receive()
    require(within(3, lambda: streams.h2.remote_settings.get(8) == 1), "not announced")


@case
def connect_opens_and_echoes(scene):
    streams, stream, path = tunnelled(scene, "h1", "echo", VERSION, ("sec-websocket-protocol", "chat"))
    status, answered = streams.head(stream)
    require(status == 200, status)
    for name in ["sec-websocket-accept", "connection", "upgrade", "transfer-encoding", "content-length"]:
        require(name not in answered, answered)
    streams.data(stream, b"abc")
    require(streams.take(stream, 3) == b"abc", "no echo")
    met = seen.get(path, "fields")
    require(met["upgrade"] == "websocket" and len(met["sec-websocket-key"]) == 24, met)
    require(met["sec-websocket-version"] == "13" and seen.get(path, "line").startswith("GET "), met)
    streams.data(stream, b"", ends=True)
    require(seen.get(path, "end") == b"abc", "the upstream does not know of the end")
    require(streams.end(stream)[2] is None, "no regular end")


@case
def connect_of_many_megabytes(scene):
    streams, stream, path = tunnelled(scene)
    require(streams.head(stream)[0] == 200, "not opened")
    content = bytes(range(256)) * 4_096
    for start in range(0, len(content), 65_536):
        part = content[start : start + 65_536]
        streams.data(stream, part)
        got = streams.take(stream, len(part))
        require(got == part, "changed on the way")


@case
def connect_data_before_the_answer_waits(scene):
    streams, stream, path = tunnelled(scene, "h1", "late")
    streams.data(stream, b"early")
    require(streams.head(stream)[0] == 200 and streams.take(stream, 5) == b"early", "lost")
    require(not seen.has(path, "early"), "passed before the upstream had agreed")


@case
def connect_without_proof_of_agreement(scene):
    for script in ["unproved", "disproved", "overproved"]:
        streams, stream, path = tunnelled(scene, "h1", script, VERSION)
        require(streams.head(stream)[0] == 502, f"{script} is taken for a WebSocket")
    caller = scene.ask(scene.path("h1", "unproved"), UPGRADE)
    require(caller.head()[0] == 101, "callers of HTTP/1.1 look for themselves")


@case
def connect_with_a_key_of_its_own(scene):
    """It means nothing in HTTP/2 (RFC 8441 section 5): the one that the upstream sees is the gateway's."""
    for protocol in ["websocket", "WebSocket"]:
        streams = scene.streams()
        path = scene.path("h1", "echo")
        key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        stream = streams.open(scene.connect(path, VERSION, key, protocol=protocol), ends=False)
        require(streams.head(stream)[0] == 200, protocol)
        met = seen.get(path, "fields")["sec-websocket-key"]
        require(len(met) == 24 and met != key[1], met)


@case
def connect_declined(scene):
    streams, stream, path = tunnelled(scene, "h1", "declines")
    require(streams.head(stream)[0] == 403, "not declined")
    require(streams.end(stream)[0] == b"no", "no body")


@case
def connect_answered_with_plain_success_is_none(scene):
    streams, stream, path = tunnelled(scene, "h1", "success")
    require(streams.head(stream)[0] == 502, "taken for a tunnel")


@case
def connect_caller_resets(scene):
    streams, stream, path = tunnelled(scene, "h1", "sink")
    require(streams.head(stream)[0] == 200, "not opened")
    streams.data(stream, b"abc")
    streams.reset(stream)
    require(seen.get(path, "end") in (b"", b"abc"), "the upstream does not know")


@case
def connect_upstream_breaks(scene):
    streams, stream, path = tunnelled(scene, "h1", "breaks")
    require(streams.head(stream)[0] == 200, "not opened")
    body, _, code = streams.end(stream)
    require(code is not None, "a broken tunnel looks like one that ended")


@case
def connect_upstream_ends(scene):
    streams, stream, path = tunnelled(scene, "h1", "half")
    require(streams.head(stream)[0] == 200, "not opened")
    body, _, code = streams.end(stream)
    require(body == b"last words" and code in (None, 0), (body, code))


@case
def connect_malformed(scene):
    streams = scene.streams()
    path = scene.path("h1", "echo")
    for head in [
        scene.connect(path, leave=[":scheme"]), scene.connect(path, leave=[":path"]), scene.connect(path, leave=[":authority"]),
        [field for field in scene.connect(path) if field[0] != ":method"] + [],
        [(n, "GET" if n == ":method" else v) for n, v in scene.connect(path)],
        scene.connect(path, ("connection", "upgrade")), scene.connect(path, ("upgrade", "websocket")),
    ]:
        stream = streams.open(head, ends=False)
        event = streams.end(stream)
        require(event[2] == 1, event)
    require(not seen.has(path, "line"), "the upstream was asked")


@case
def connect_of_dangerous_protocols(scene):
    streams = scene.streams()
    for protocol in ["h2c", "HTTP/2.0", "tls/1.2", "a b", "web\tsocket", "websocket\r\nX: 1", ""]:
        path = scene.path("h1", "echo")
        stream = streams.open(scene.connect(path, protocol=protocol), ends=False)
        code = streams.end(stream)[2] if not refused(streams, stream) else 1
        require(code is not None and "upgrade" not in seen.values.get((path, "fields"), [{}])[-1], protocol)


def refused(streams, stream):
    try:
        return streams.head(stream)[0] >= 300
    except AssertionError:
        return False


@case
def connect_that_the_gate_refuses(scene):
    if not scene.is_keyed:
        return
    streams = scene.streams()
    for path, key, status in [
        (scene.path("h1", "echo"), "sk_live_none", 401), ("/keyed/scoped/h1/echo-x", "pro", 403), ("/keyed/nowhere", "all", 404),
    ]:
        stream = streams.open(scene.connect(path, key=key), ends=False)
        require(streams.head(stream)[0] == status, f"not {status}")
        require(not seen.has(path, "line"), "the upstream was asked")


@case
def connect_to_http2(scene):
    streams, stream, path = tunnelled(scene, "h2", "tunnel", VERSION)
    status, answered = streams.head(stream)
    require(status == 200 and answered.get("sec-websocket-protocol") == "chat", (status, answered))
    require(streams.take(stream, 6) == b"hello;", "nothing comes")
    streams.data(stream, b"one;bye.")
    body, _, code = streams.end(stream)
    require(body == b"one;bye." and code in (None, 0), (body, code))
    met = seen.get(path, "fields")
    require(met[":method"] == "CONNECT" and met[":protocol"] == "websocket" and met[":scheme"] == "http", met)
    require("sec-websocket-key" not in met and "upgrade" not in met and met["sec-websocket-version"] == "13", met)


@case
def connect_to_http2_ends_by_the_caller(scene):
    streams, stream, path = tunnelled(scene, "h2", "tunnel")
    require(streams.head(stream)[0] == 200 and streams.take(stream, 6) == b"hello;", "not opened")
    streams.data(stream, b"", ends=True)
    require(seen.get(path, "end"), "the upstream does not know")
    require(streams.end(stream)[0] == b"end.", "half an end ended both")
    streams, stream, path = tunnelled(scene, "h2", "tunnel")
    require(streams.head(stream)[0] == 200, "not opened")
    streams.reset(stream)
    require(seen.get(path, "reset") == 8, "the upstream does not know")


@case
def connect_to_http2_declined_and_broken(scene):
    streams, stream, path = tunnelled(scene, "h2", "declines")
    require(streams.head(stream)[0] == 403 and streams.end(stream)[0] == b"no", "not declined")
    streams, stream, path = tunnelled(scene, "h2", "breaks")
    require(streams.head(stream)[0] == 200, "not opened")
    streams.data(stream, b"x")
    require(streams.end(stream)[2] is not None, "a broken tunnel looks like one that ended")


@case
def connect_to_http2_that_cannot(scene):
    streams, stream, path = tunnelled(scene, "old", "tunnel")
    require(streams.head(stream)[0] in (501, 502), "answered")
    require(not seen.has(path, "fields"), "the upstream was asked")


@case
def websocket_to_http2(scene):
    path = scene.path("h2", "tunnel")
    caller = scene.ask(path, UPGRADE)
    status, answered = caller.head()
    require(status == 101 and answered["upgrade"] == "websocket", (status, answered))
    require(answered["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", answered)
    require(answered["sec-websocket-protocol"] == "chat", answered)
    require(caller.take(6) == b"hello;", "nothing comes")
    caller.send("one;bye.")
    require(caller.rest() == (b"one;bye.", True), "no orderly end")
    met = seen.get(path, "fields")
    require(met[":method"] == "CONNECT" and met[":protocol"] == "websocket" and met["sec-websocket-version"] == "13", met)
    require("sec-websocket-key" not in met and "connection" not in met, met)


@case
def websocket_to_http2_that_cannot(scene):
    path = scene.path("old", "tunnel")
    status, answered = scene.ask(path, UPGRADE).head()
    require(status in (501, 502), (status, answered))
    require(not seen.has(path, "fields"), "the upstream was asked")
