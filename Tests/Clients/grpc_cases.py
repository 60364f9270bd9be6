# gRPC over HTTP/2 in front of and behind the gateway, frame by frame; run by protocols.py, whose names it uses.


def outcome(streams, stream):
    """Head, body, trailers: how a call ends that is answered."""
    status, head = streams.head(stream)
    body, trailers, code = streams.end(stream)
    return status, head, body, trailers, code


def refusal(scene, path, status, *fields, key="all", content=b"", **more):
    """A refusal is one head that ends its stream, with what gRPC wants to know (gRPC over HTTP/2, Responses)."""
    streams, stream = scene.call(path, *fields, key=key, content=content, **more)
    http, head, body, trailers, code = outcome(streams, stream)
    require(http == 200 and head["content-type"].startswith("application/grpc"), (http, head))
    require(head.get("grpc-status") == str(status), head)
    require(body == b"" and trailers == {} and code in (None, 0), (body, trailers, code))
    require(all(32 <= ord(byte) < 127 for byte in head.get("grpc-message", "")), head)
    require("content-length" not in head, head)
    return head


@case
def grpc_unary_with_metadata(scene):
    path = scene.path("h2", "unary")
    streams, stream = scene.call(path, ("x-raw-bin", "AAECAw=="), ("x-raw-bin", "BA=="), ("grpc-accept-encoding", "gzip"), ("user-agent", "grpc-test/1"), content=b"hello")
    status, head, body, trailers, code = outcome(streams, stream)
    require(status == 200 and head["content-type"] == "application/grpc" and head["x-first-bin"] == "AAE=", head)
    require(body == message(b"hi") and code is None, (body, code))
    require(trailers["grpc-status"] == "0" and trailers["x-last-bin"] == "AAE=", trailers)
    met = seen.get(path, "fields")
    require(met["te"] == "trailers" and met["content-type"] == "application/grpc" and met["grpc-accept-encoding"] == "gzip", met)
    require(met["x-raw-bin"] in ("BA==", "AAECAw==, BA==") and met[":method"] == "POST" and "authorization" not in met, met)


@case
def grpc_messages_back_and_forth(scene):
    streams, stream = scene.call(scene.path("h2", "bidi"), content=b"0", ends=False)
    require(streams.head(stream)[0] == 200 and streams.take(stream, 6) == message(b"0"), "no first answer")
    for number in range(1, 50):
        content = message(b"%d" % number)
        streams.data(stream, content)
        require(streams.take(stream, len(content)) == content, number)
    streams.data(stream, b"", ends=True)
    require(streams.end(stream)[1]["grpc-status"] == "0", "no status")


@case
def grpc_windows_opened_for_every_message(scene):
    """More frames than a flood's, each for a message that has come."""
    streams, stream = scene.call(scene.path("h2", "bidi"), content=b"0", ends=False)
    require(streams.head(stream)[0] == 200 and streams.take(stream, 6) == message(b"0"), "no first answer")
    for number in range(500):
        streams.data(stream, message(b"%04d" % number))
        require(streams.take(stream, 9) == message(b"%04d" % number), number)
        for which in (stream, None) * 3:
            streams.h2.increment_flow_control_window(1, which)
    streams.data(stream, b"", ends=True)
    require(streams.end(stream)[1]["grpc-status"] == "0", "no status")


@case
def grpc_cancelled_in_the_middle_again_and_again(scene):
    streams = scene.streams()
    for number in range(230):
        _, stream = scene.call(scene.path("h2", "bidi"), content=b"0", ends=False, streams=streams)
        require(streams.head(stream)[0] == 200 and streams.take(stream, 6) == message(b"0"), number)
        streams.reset(stream)
    _, stream = scene.call(scene.path("h2", "unary"), streams=streams)
    require(outcome(streams, stream)[3]["grpc-status"] == "0", "the connection is gone")


@case
def grpc_given_up_by_many_callers_at_their_deadline(scene):
    streams = scene.streams()
    for _ in range(6):
        path = scene.path("h2", "hangs")
        calls = [scene.call(path, streams=streams)[1] for _ in range(60)]
        time.sleep(0.15)
        for stream in calls:
            streams.h2.reset_stream(stream, 8)
        streams.flush()
    _, stream = scene.call(scene.path("h2", "unary"), streams=streams)
    require(outcome(streams, stream)[3]["grpc-status"] == "0", "the connection is gone")


@case
def grpc_messages_far_apart(scene):
    """The silence of a stream is not that of a body."""
    streams, stream = scene.call(scene.path("h2", "bidi"), content=b"0", ends=False)
    require(streams.head(stream)[0] == 200 and streams.take(stream, 6) == message(b"0"), "no first answer")
    for content in [b"1", b"2"]:
        time.sleep(1.3)
        streams.data(stream, message(content))
        require(streams.take(stream, 6) == message(content), content)
    streams.data(stream, b"", ends=True)
    require(streams.end(stream)[1]["grpc-status"] == "0", "no status")


@case
def grpc_messages_slow_and_steady(scene):
    """Less than a body's rate, and no longer silent than a stream may be."""
    path = scene.path("h2", "bidi").replace("/h2/", "/short/h2/")
    streams, stream = scene.call(path, content=b"0", ends=False)
    require(streams.head(stream)[0] == 200 and streams.take(stream, 6) == message(b"0"), "no first answer")
    for number in range(8):
        time.sleep(0.3)
        streams.data(stream, message(b"%d" % number))
        require(streams.take(stream, 6) == message(b"%d" % number), f"cut before message {number}")
    streams.data(stream, b"", ends=True)
    require(streams.end(stream)[1]["grpc-status"] == "0", "no status")


@case
def grpc_in_name_only_is_a_slow_body(scene):
    """No route whose upstream takes no messages loses its bound on slow bodies."""
    streams, stream = scene.call(scene.path("h1", "sinkbody"), content=b"0", ends=False)
    start = time.monotonic()
    while time.monotonic() - start < 3.5:
        streams.data(stream, b"x")
        time.sleep(0.3)
    status, head = streams.head(stream)
    require(head["grpc-status"] == "14" and "in time" in head["grpc-message"], head)


@case
def grpc_errors_with_many_details(scene):
    streams, stream = scene.call(scene.path("h2", "details"))
    status, head, body, trailers, code = outcome(streams, stream)
    require(body == message(b"part") and code is None, (status, head, body, code))
    require(trailers["grpc-status"] == "3" and len(trailers["grpc-status-details-bin"]) == 20_000, trailers)
    require(trailers["x-last-89"] == "89", "fields are missing")


@case
def grpc_refused_for_its_path(scene):
    """As gRPC wants it, and not as a page."""
    for path, status in [("/%zz", 13), ("/a%2Fb", 13), ("/" + "x" * 9_000, 8)]:
        refusal(scene, path, status)


@case
def grpc_many_answers(scene):
    streams, stream = scene.call(scene.path("h2", "down"))
    status, head, body, trailers, code = outcome(streams, stream)
    require(body == b"".join(message(b"%d" % n) for n in range(50)) and trailers["grpc-status"] == "0", trailers)


@case
def grpc_many_messages(scene):
    streams, stream = scene.call(scene.path("h2", "counts"), content=b"x" * 100, ends=False)
    for number in range(50):
        streams.data(stream, message(b"x" * 1_000), ends=number == 49)
    status, head, body, trailers, code = outcome(streams, stream)
    require(body == message(b"%d" % (105 + 50 * 1_005)) and trailers["grpc-status"] == "0", (body, trailers))


@case
def grpc_large_messages(scene):
    streams, stream = scene.call(scene.path("h2", "counts"), content=b"x" * 3_000_000)
    body, trailers = outcome(streams, stream)[2:4]
    require(body == message(b"3000005") and trailers["grpc-status"] == "0", (body, trailers))
    body, trailers = outcome(*scene.call(scene.path("h2", "huge")))[2:4]
    require(body == message(b"x" * 3_000_000) and trailers["grpc-status"] == "0", trailers)


@case
def grpc_many_calls_on_one_connection(scene):
    streams = scene.streams()
    calls = [scene.call(scene.path("h2", "unary"), streams=streams)[1] for _ in range(80)]
    for stream in calls:
        require(outcome(streams, stream)[3]["grpc-status"] == "0", "no status")


@case
def grpc_error_as_trailers_only(scene):
    streams, stream = scene.call(scene.path("h2", "fails"))
    status, head, body, trailers, code = outcome(streams, stream)
    require(status == 200 and head["grpc-status"] == "5" and head["grpc-message"] == "no%20such" and head["x-why"] == "asked", head)
    require(body == b"" and trailers == {} and code is None, (body, trailers, code))


@case
def grpc_error_behind_messages(scene):
    streams, stream = scene.call(scene.path("h2", "failslate"))
    status, head, body, trailers, code = outcome(streams, stream)
    require(body == message(b"part") and trailers == {"grpc-status": "10", "grpc-message": "aborted"}, (body, trailers))


@case
def grpc_deadline_in_every_unit(scene):
    for timeout in ["300m", "300000u", "99999999n"]:
        start = time.monotonic()
        refusal(scene, scene.path("h2", "hangs"), 14, ("grpc-timeout", timeout))
        require(0.05 < time.monotonic() - start < 2, f"{timeout}: {time.monotonic() - start}")
    for timeout in ["1H", "1M", "9S"]:
        path = scene.path("h2", "unary")
        streams, stream = scene.call(path, ("grpc-timeout", timeout))
        require(outcome(streams, stream)[3]["grpc-status"] == "0", timeout)
        require("grpc-timeout" in seen.get(path, "fields"), "the upstream does not know")


@case
def grpc_deadline_that_is_none(scene):
    for timeout in ["", "5", "S", "-1S", "123456789S", "1s", "1.5S", " 1S"]:
        path = scene.path("h2", "unary")
        streams, stream = scene.call(path, ("grpc-timeout", timeout))
        try:
            status, head, body, trailers, code = outcome(streams, stream)
        except AssertionError:
            require(timeout == " 1S", timeout)
            continue
        require(trailers.get("grpc-status") == "0" or head.get("grpc-status") in ("3", "13"), (timeout, head, trailers))


@case
def grpc_deadline_of_a_stream(scene):
    streams, stream = scene.call(scene.path("h2", "bidi"), ("grpc-timeout", "600m"), content=b"a", ends=False)
    require(streams.head(stream)[0] == 200 and streams.take(stream, 6) == message(b"a"), "no answer")
    start = time.monotonic()
    body, trailers, code = streams.end(stream)
    require(trailers.get("grpc-status") == "4" or code in (8, 2, 5), (trailers, code))
    require(time.monotonic() - start < 2, "the deadline passed")


@case
def grpc_cancelled_by_its_caller(scene):
    path = scene.path("h2", "hangs")
    streams, stream = scene.call(path)
    require(seen.get(path, "end"), "never arrived")
    streams.reset(stream)
    require(seen.get(path, "reset") == 8, "the upstream does not know")
    path = scene.path("h2", "bidi")
    streams, stream = scene.call(path, content=b"a", ends=False)
    require(streams.head(stream)[0] == 200, "no answer")
    streams.close()
    require(seen.get(path, "reset") == 8, "the upstream does not know that its caller is gone")


@case
def grpc_upstream_dies_in_the_middle(scene):
    for script in ["dies", "resets"]:
        streams, stream = scene.call(scene.path("frail", script))
        require(streams.head(stream)[0] == 200, "no answer")
        body, trailers, code = streams.end(stream)
        require(code not in (None, 0) or trailers.get("grpc-status") not in (None, "0"), f"{script} looks whole: {body} {trailers} {code}")


@case
def grpc_upstream_is_not_there(scene):
    refusal(scene, "/down/x", 14)


@case
def grpc_refused_without_a_key(scene):
    if not scene.is_keyed:
        return
    for key in [None, "sk_live_none"]:
        path = scene.path("h2", "unary")
        head = refusal(scene, path, 16, key=key)
        require("grpc-message" in head, head)
        require(not seen.has(path, "fields"), "the upstream was asked")


@case
def grpc_refused_for_its_scope_and_path(scene):
    if not scene.is_keyed:
        return
    refusal(scene, "/keyed/scoped/h2/unary-x", 7, key="pro")
    refusal(scene, "/keyed/nowhere", 12)


@case
def grpc_refused_over_its_limit(scene):
    if not scene.is_keyed:
        return
    for _ in range(8):
        streams, stream = scene.call(scene.path("h2", "unary"), key="few")
        status, head, body, trailers, code = outcome(streams, stream)
        if "grpc-status" in head:
            break
    require(head["grpc-status"] == "8" and int(head["retry-after"]) >= 1 and "ratelimit" in head, head)


@case
def grpc_refused_for_its_length(scene):
    streams, stream = scene.call(scene.path("h2", "hangs"), content=b"x" * 10, ends=False)
    try:
        for _ in range(90):
            streams.data(stream, message(b"x" * 100_000))
    except Exception:
        pass
    status, head = streams.head(stream)
    require(status == 200 and head["grpc-status"] == "8", head)


@case
def grpc_with_other_te(scene):
    path = scene.path("h2", "unary")
    streams, stream = scene.call(path, te=None)
    require(outcome(streams, stream)[3]["grpc-status"] == "0", "refused without te")
    streams, stream = scene.call(scene.path("h2", "unary"), te="gzip")
    require(streams.end(stream)[2] == 1, "te of another kind")


@case
def grpc_with_a_subtype(scene):
    for kind in ["application/grpc+proto", "application/grpc+json;charset=utf-8", "application/grpc;x=y"]:
        streams = scene.streams()
        head = scene.fields("/down/x", ("content-type", kind), ("te", "trailers"), method="POST")
        status, answered, body, trailers, code = outcome(streams, streams.open(head, message(b"")))
        require(status == 200 and answered["grpc-status"] == "14", (kind, answered))
    for kind in ["application/grpc-web", "application/grpc-web+proto", "application/grpcx"]:
        streams = scene.streams()
        head = scene.fields("/down/x", ("content-type", kind), method="POST")
        status, answered, body, trailers, code = outcome(streams, streams.open(head, message(b"")))
        require(status in (502, 503) and "grpc-status" not in answered, (kind, answered))


@case
def grpc_over_http_1_1_upstream(scene):
    path = scene.path("h1", "success")
    streams, stream = scene.call(path)
    status, head, body, trailers, code = outcome(streams, stream)
    require(status == 200 and body == b"ok" and code is None, (status, body))
    require(seen.get(path, "fields")["te"] == "trailers", seen.get(path, "fields"))


@case
def grpc_refused_over_http_1_1(scene):
    caller = scene.ask("/down/x", "Content-Type: application/grpc\r\nTE: trailers\r\nContent-Length: 0\r\n", method="POST")
    status, head = caller.head()
    require(status == 200 and head["grpc-status"] == "14", (status, head))
