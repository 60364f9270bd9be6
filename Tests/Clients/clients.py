"""Well-known clients against the gateway. Arguments: what to do, port, certificate, key. Exits with 0 when all is as
it must be, and says on standard error what is not."""

import asyncio
import json
import queue
import ssl
import sys

import grpc
import httpx
import websockets.asyncio.client
import websockets.exceptions

what, port, trust, key = sys.argv[1:5]
base = f"https://localhost:{port}"
authorization = {"Authorization": f"Bearer {key}"}


def require(holds, text):
    if not holds:
        raise AssertionError(text)


async def web():
    """httpx over HTTP/2 and HTTP/1.1: many calls at once, bodies, refusals."""
    context = ssl.create_default_context(cafile=trust)
    for http2 in (True, False):
        async with httpx.AsyncClient(http2=http2, http1=not http2, verify=context, base_url=base) as client:
            client.headers.update(authorization)
            answers = await asyncio.gather(*[client.get(f"/api/{n}") for n in range(60)])
            for number, answer in enumerate(answers):
                require(answer.status_code == 200, answer)
                require(answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1"), answer.http_version)
                require(answer.text == f"GET /api/{number}", answer.text)
            body = bytes(range(256)) * 4_000
            answer = await client.post("/api/echo", content=body)
            require(answer.content == body, "another body")
            answer = await client.get("/api/x", headers={"Authorization": "Bearer sk_live_none"})
            require(answer.status_code == 401, answer)
            require(answer.json()["error"]["code"] == "INVALID_API_KEY", answer.text)
            answer = await client.get("/nowhere")
            require(answer.status_code == 404, answer)


async def events():
    """Server-sent events: each is there before the next one is sent."""
    context = ssl.create_default_context(cafile=trust)
    for http2 in (True, False):
        async with httpx.AsyncClient(http2=http2, verify=context, base_url=base, headers=authorization) as client:
            seen = []
            async with client.stream("GET", "/api/events") as answer:
                require(answer.headers["content-type"] == "text/event-stream", answer.headers)
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        seen.append(line[6:])
                        require((await client.get("/api/heard")).status_code == 200, "not heard")
            require(seen == [f"event {n}" for n in range(5)], seen)


async def websocket():
    context = ssl.create_default_context(cafile=trust)
    connect = lambda path, **more: websockets.asyncio.client.connect(
        f"wss://localhost:{port}{path}", ssl=context, max_size=None, ping_interval=None, **more
    )
    async with connect("/ws/chat", additional_headers=authorization, subprotocols=["chat"]) as socket:
        require(socket.subprotocol == "chat", socket.subprotocol)
        for message in ["hello", b"\0\xff" * 10, "", "ü" * 1_000, b"x" * 3_000_000]:
            await socket.send(message)
            require(await socket.recv() == message, "another message")
        await asyncio.gather(*[socket.send(f"{n}") for n in range(200)])
        require([await socket.recv() for _ in range(200)] == [f"{n}" for n in range(200)], "another order")
        await (await socket.ping(b"are you there"))
        await socket.send("headers")
        headers = {name.lower(): value for name, value in json.loads(await socket.recv()).items()}
        require("authorization" not in headers, "the key reached the service")
        require(headers.get("x-gateway-account") == "initech", headers)
        await socket.send("close")
        try:
            await socket.recv()
            raise AssertionError("not closed")
        except websockets.exceptions.ConnectionClosed as end:
            require(end.rcvd.code == 4001 and end.rcvd.reason == "asked for", end)
    for path, headers, status in [("/ws/chat", {}, 401), ("/nowhere", authorization, 404)]:
        try:
            async with connect(path, additional_headers=headers):
                raise AssertionError(f"{path} was opened")
        except websockets.exceptions.InvalidStatus as refusal:
            require(refusal.response.status_code == status, refusal)


def rpc():
    credentials = grpc.ssl_channel_credentials(open(trust, "rb").read())
    metadata = (("authorization", f"Bearer {key}"),)
    with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
        unary = channel.unary_unary("/test.Echo/Unary")
        answer, call = unary.with_call(b"hello", metadata=metadata, timeout=10)
        require(answer == b"hello|initech", answer)
        require(dict(call.trailing_metadata()).get("tail") == "yes", call.trailing_metadata())
        large = b"x" * 1_000_000
        require(unary(large, metadata=metadata, timeout=20).startswith(large), "another message")
        down = channel.unary_stream("/test.Echo/Down")
        require(
            list(down(b"n", metadata=metadata, timeout=10)) == [b"n%d" % n for n in range(20)], "another stream"
        )
        up = channel.stream_unary("/test.Echo/Up")
        require(up(iter([b"a" * 1_000] * 50), metadata=metadata, timeout=10) == b"50000", "another sum")
        both = channel.stream_stream("/test.Echo/Both")
        answers = list(both(iter([b"abc", b"de"]), metadata=metadata, timeout=10))
        require(answers == [b"cba", b"ed"], answers)
        # One message there, one back, before the next: neither direction waits for the end of the other.
        outgoing = queue.Queue()
        incoming = both(iter(outgoing.get, None), metadata=metadata, timeout=20)
        for number in range(20):
            outgoing.put(b"message %d" % number)
            require(next(incoming) == (b"message %d" % number)[::-1], "another message")
        outgoing.put(None)
        require(list(incoming) == [], "more messages than sent")
        hanging = channel.unary_stream("/test.Echo/Hang")(b"", metadata=metadata, timeout=20)
        require(next(hanging) == b"begun", "not begun")
        hanging.cancel()
        was_left = channel.unary_unary("/test.Echo/WasLeft")(b"", metadata=metadata, timeout=10)
        require(was_left == b"yes", "the service does not know that its caller has left")
        raw = metadata + (("x-raw-bin", bytes(range(256))), ("x-text", "a b"))
        names, call = channel.unary_unary("/test.Echo/Metadata").with_call(b"", metadata=raw, timeout=10)
        names = json.loads(names)
        require("x-raw-bin" in names and "x-text" in names and "authorization" not in names, names)
        require(dict(call.initial_metadata()).get("x-begin-bin") == b"\0\xff", call.initial_metadata())
        require(dict(call.trailing_metadata()).get("x-end-bin") == bytes(range(256)), call.trailing_metadata())
        calls = [unary.future(b"%d" % n, metadata=metadata, timeout=20) for n in range(100)]
        require([c.result() for c in calls] == [b"%d|initech" % n for n in range(100)], "another call's answer")
        refusals = [
            (b"fail", metadata, 10, grpc.StatusCode.FAILED_PRECONDITION),
            (b"wait", metadata, 0.5, grpc.StatusCode.DEADLINE_EXCEEDED),
            (b"hello", (), 10, grpc.StatusCode.UNAUTHENTICATED),
            (b"hello", (("authorization", "Bearer sk_live_none"),), 10, grpc.StatusCode.UNAUTHENTICATED),
        ]
        for message, some, timeout, code in refusals:
            try:
                unary(message, metadata=some, timeout=timeout)
                raise AssertionError(f"{message} was answered")
            except grpc.RpcError as error:
                require(error.code() == code, f"{message}: {error.code()} {error.details()}")
        pro = (("authorization", "Bearer sk_live_pro_def456"),)
        for method, some, code in [
            ("/nowhere.Service/Call", metadata, grpc.StatusCode.UNIMPLEMENTED),
            ("/test.Echo/Nothing", metadata, grpc.StatusCode.UNIMPLEMENTED),
            ("/test.Scoped/Call", pro, grpc.StatusCode.PERMISSION_DENIED),
            ("/test.Gone/Call", metadata, grpc.StatusCode.UNAVAILABLE),
        ]:
            try:
                channel.unary_unary(method)(b"", metadata=some, timeout=10)
                raise AssertionError(f"{method} answered")
            except grpc.RpcError as error:
                require(error.code() == code, f"{method}: {error.code()} {error.details()}")
        limited = None
        for _ in range(130):
            try:
                unary(b"x", metadata=(("authorization", "Bearer sk_live_standard_abc123"),), timeout=10)
            except grpc.RpcError as error:
                limited = error
                break
        require(limited is not None and limited.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, limited)
        metadata = dict(limited.initial_metadata() or ()) | dict(limited.trailing_metadata() or ())
        require(int(metadata.get("retry-after", 0)) >= 1, metadata)


if what == "grpc":
    rpc()
else:
    asyncio.run({"web": web, "events": events, "websocket": websocket}[what]())
