#!/usr/bin/env python3
"""Measures what several gateways on one Redis promise: Tests/Bench/fleet [exactness|revocation|cost|flood]...

exactness   what three gateways let in under a storm, without faults and with them, beside the limit
revocation  time from `HSET … status revoked` by another program to the last call let in, on three gateways
cost        Redis commands and CPU per call for 1, 100 and 10,000 accounts, beside one command a call
flood       1,000,000 well-formed unknown keys at full speed: commands on Redis, and what good keys notice
"""

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib

from bench import free_port, wait_for

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def base62(value, width):
    digits = ""
    for _ in range(width):
        value, digit = divmod(value, 62)
        digits = ALPHABET[digit] + digits
    return digits


def generated_key():
    body = "sk_live_" + "".join(random.choices(ALPHABET, k=32))
    return body + base62(zlib.crc32(body.encode()), 6)


class Redis:
    """A Redis of its own, spoken to in plain text."""

    def __init__(self, folder):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--save", "", "--appendonly", "no", "--dir", folder],
            stdout=subprocess.DEVNULL)
        wait_for(self.port, self.process)
        self.stream = socket.create_connection(("127.0.0.1", self.port)).makefile("rwb")

    def command(self, *arguments):
        self.send(*arguments)
        self.stream.flush()
        return self.reply()

    def send(self, *arguments):
        parts = [a if isinstance(a, bytes) else str(a).encode() for a in arguments]
        self.stream.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))

    def reply(self):
        line = self.stream.readline()
        kind, rest = line[:1], line[1:].strip()
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if int(rest) < 0 else self.stream.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return rest.decode()

    def info(self, section):
        return dict(line.split(":", 1) for line in self.command("INFO", section).splitlines() if ":" in line)

    def calls(self, name):
        return int(self.info("commandstats").get(f"cmdstat_{name}", "calls=0,").split("=")[1].split(",")[0])

    def cpu(self):
        info = self.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def store(self, key, **fields):
        name = "gateway:key:" + hashlib.sha256(key.encode()).hexdigest()
        self.send("HSET", name, *[part for pair in fields.items() for part in pair])
        return name


class Gateway:
    def __init__(self, bench, redis_port, workers=1, extra="", outage="local"):
        self.port, self.admin = free_port(), free_port()
        path = os.path.join(bench.folder, f"fleet-{self.port}.conf")
        with open(path, "w") as file:
            file.write(f"""
listen:
  https:
    address: "127.0.0.1:{self.port}"
    certificates: [{{ chain: "{bench.folder}/certificate.pem", private_key: "{bench.folder}/key.pem" }}]
admin: {{ address: "127.0.0.1:{self.admin}" }}
store: {{ url: "redis://127.0.0.1:{redis_port}/0", on_outage: {outage} }}
tiers:
  bench: {{ limits: ["1000000/minute"] }}
upstreams:
  main: {{ endpoints: ["http://127.0.0.1:{bench.upstream_port}"] }}
routes:
  - {{ path: /**, upstream: main }}
limits: {{ connections: 4000 {extra} }}
access_log: {{ path: off }}
timeouts: {{ drain_delay: 0ms, drain: 1s, idle: 10m }}
workers: {workers}
""")
        self.process = subprocess.Popen([bench.gateway, "run", "--config", path], stderr=subprocess.DEVNULL)
        if not wait_for(self.port, self.process) or not wait_for(self.admin, self.process):
            sys.exit(f"the gateway does not start: {bench.gateway} check --config {path}")
        deadline = time.monotonic() + 10
        while self.metric("gateway_store_up ") != 1 and time.monotonic() < deadline:
            time.sleep(0.02)

    def metric(self, name):
        with socket.create_connection(("127.0.0.1", self.admin)) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            text = connection.makefile().read()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    def cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, folder, gateway):
        self.folder, self.gateway = folder, gateway
        self.processes = []
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
             "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout",
             f"{folder}/key.pem", "-out", f"{folder}/certificate.pem"], check=True, stderr=subprocess.DEVNULL)
        self.upstream_port = free_port()
        self.track(subprocess.Popen([f"{folder}/upstream", str(self.upstream_port)]))
        wait_for(self.upstream_port, self.processes[-1])

    def track(self, process):
        self.processes.append(process)
        return process

    def redis(self):
        redis = Redis(self.folder)
        self.track(redis.process)
        return redis

    def start(self, redis_port, **options):
        gateway = Gateway(self, redis_port, **options)
        self.track(gateway.process)
        return gateway

    def load(self, gateway, keys, *arguments):
        path = os.path.join(self.folder, f"keys-{len(keys)}-{random.getrandbits(32)}")
        with open(path, "w") as file:
            file.write("\n".join(keys) + "\n")
        return subprocess.Popen(
            [f"{self.folder}/load", "--port", str(gateway.port), "--path", "/1k", "--keys", path,
             *map(str, arguments)], stdout=subprocess.PIPE, text=True)

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


def percentiles(values):
    values = sorted(values)
    return {
        "trials": len(values), "p50_ms": round(values[len(values) // 2] * 1e3, 2),
        "p99_ms": round(values[len(values) * 99 // 100] * 1e3, 2), "max_ms": round(values[-1] * 1e3, 2),
    }


class Relay:
    """Carries bytes to Redis, and on demand nothing more on connections that track changes."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.target = port
        self.lines = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(("127.0.0.1", self.target))
            line = {"cut": False, "tracks": False}
            self.lines.append(line)
            threading.Thread(target=self.pump, args=(line, near, far, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(line, far, near, False), daemon=True).start()

    def pump(self, line, source, target, outward):
        try:
            while data := source.recv(65536):
                if outward and b"TRACKING" in data:
                    line["tracks"] = True
                if not line["cut"]:
                    target.sendall(data)
        except OSError:
            pass
        source.close()
        target.close()

    def cut(self):
        for line in self.lines:
            line["cut"] = line["cut"] or line["tracks"]


class Caller:
    """One connection, one call after the other."""

    def __init__(self, port, key):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.connection = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=5))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.connection.makefile("rb")
        self.request = f"GET /x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n".encode()

    def call(self):
        """The status of one call; `OSError` when the connection ends without an answer."""
        self.connection.sendall(self.request)
        first = self.stream.readline().split()
        if len(first) < 2:
            raise OSError("no answer")
        length = 0
        while (line := self.stream.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self.stream.read(length)
        return int(first[1])


def watch(gateway, key, state):
    """Calls without a pause; writes down when the last call that was let in had been answered."""
    caller = Caller(gateway.port, key)
    while not state["over"]:
        status = caller.call()
        state["status"] = status
        if status == 200:
            state["last"] = time.monotonic()


def hammer(gateways, index, key, outcomes, state):
    """Calls, reconnecting as often as need be; writes down when each call began, when it ended, and how."""
    while not state["over"]:
        try:
            caller = Caller(gateways[index].port, key)
            while not state["over"]:
                start = time.monotonic()
                status = caller.call()
                outcomes.append((start, time.monotonic(), status))
                if random.random() < 0.2:
                    time.sleep(random.random() * 0.005)
        except OSError:
            time.sleep(0.01)


def worst(outcomes, window):
    """Most calls that were surely let in within one window: begun and answered in it."""
    admitted = sorted(outcome for outcome in outcomes if outcome[2] == 200)
    most = 0
    for index, (start, _, _) in enumerate(admitted):
        count = 0
        for later in admitted[index:]:
            if later[0] > start + window:
                break
            count += later[1] <= start + window
        most = max(most, count)
    return most


def disturb(bench, redis, gateways, relay, stopping):
    """One fault after the other."""
    pause = threading.Event()
    while not stopping["over"]:
        pause.wait(0.4)
        victim = random.randrange(3)
        match random.randrange(7):
            case 0:
                gateways[victim].process.send_signal(signal.SIGSTOP)
                pause.wait(0.5)
                gateways[victim].process.send_signal(signal.SIGCONT)
            case 1:
                gateways[victim].process.kill()
                gateways[victim].process.wait()
                gateways[victim] = bench.start(relay.port, extra=", failed_authentications: off", outage="closed")
            case 2:
                redis.command("SCRIPT", "FLUSH")
            case 3:
                redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            case 4:
                redis.process.send_signal(signal.SIGSTOP)
                pause.wait(0.35)
                redis.process.send_signal(signal.SIGCONT)
            case 5:
                relay.cut()
            case 6:
                redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def exactness(bench, limit, window, seconds, faults):
    redis = bench.redis()
    key = "sk_live_exact"
    redis.store(key, tier="bench", account="exact", limits=f"{limit}/{window}s")
    redis.stream.flush()
    redis.reply()
    relay = Relay(redis.port)
    gateways = [bench.start(relay.port, extra=", failed_authentications: off", outage="closed") for _ in range(3)]
    outcomes, state = [], {"over": False}
    threads = [threading.Thread(target=hammer, args=(gateways, index % 3, key, outcomes, state), daemon=True)
               for index in range(9)]
    for thread in threads:
        thread.start()
    start = time.monotonic()
    disturber = threading.Thread(target=disturb, args=(bench, redis, gateways, relay, state), daemon=True)
    if faults:
        disturber.start()
    while time.monotonic() < start + seconds:
        time.sleep(0.1)
    state["over"] = True
    for thread in threads:
        thread.join(10)
    if faults:
        disturber.join(10)
    admitted = sum(outcome[2] == 200 for outcome in outcomes)
    for gateway in gateways:
        gateway.process.kill()
    return {
        "faults": faults, "limit": limit, "window_s": window, "decisions": len(outcomes), "admitted": admitted,
        "worst_in_a_window": worst(outcomes, window), "ideal": limit * (1 + int(seconds / window)),
        "statuses": sorted({outcome[2] for outcome in outcomes}),
    }


def revocation(bench, trials, silent):
    redis = bench.redis()
    key = "sk_live_revoked"
    name = redis.store(key, tier="bench", account="revoked")
    redis.stream.flush()
    redis.reply()
    relay = Relay(redis.port)
    gateways = [bench.start(relay.port, extra=", failed_authentications: off") for _ in range(3)]
    states = [{"over": False, "status": 0, "last": 0.0} for _ in gateways]
    threads = [threading.Thread(target=watch, args=arguments, daemon=True)
               for arguments in zip(gateways, [key] * 3, states)]
    for thread in threads:
        thread.start()
    lags = []
    while len(lags) < trials:
        redis.command("HSET", name, "status", "active")
        while any(state["status"] != 200 for state in states):
            time.sleep(0.001)
        if silent:
            # The connections are new after every trial: all of them have to be heard from first.
            while any(gateway.metric("gateway_revocation_lag_seconds") > 0.3 for gateway in gateways):
                time.sleep(0.02)
            relay.cut()
        time.sleep(random.random() * 0.01)
        start = time.monotonic()
        redis.command("HSET", name, "status", "revoked")
        while any(state["status"] != 401 for state in states):
            time.sleep(0.001)
        lags.append(max(0.0, max(state["last"] for state in states) - start))
    for state in states:
        state["over"] = True
    for thread in threads:
        thread.join()
    return percentiles(lags)


def cost(bench, accounts, seconds, rate):
    redis = bench.redis()
    keys = [f"sk_live_cost{number}" for number in range(accounts)]
    for number, key in enumerate(keys):
        redis.store(key, tier="bench", account=f"a{number}")
    redis.stream.flush()
    for _ in keys:
        redis.reply()
    gateway = bench.start(redis.port)
    # Every key is learned, and demand is known, before anything counts.
    bench.load(gateway, keys, "--connections", 32, "--seconds", 2 + accounts / 4000, "--rate", rate * 2).communicate()
    calls, looked, cpu, own = redis.calls("evalsha"), redis.calls("hgetall"), redis.cpu(), gateway.cpu()
    result = json.loads(
        bench.load(gateway, keys, "--connections", 32, "--seconds", seconds, "--rate", rate).communicate()[0])
    requests = result["requests"]
    figures = {
        "accounts": accounts, "requests": requests, "errors": result["errors"], "p99_us": result["p99_us"],
        "commands_per_request": round((redis.calls("evalsha") - calls) / requests, 4),
        "redis_cpu_us_per_request": round((redis.cpu() - cpu) / requests * 1e6, 2),
        "gateway_cpu_us_per_request": round((gateway.cpu() - own) / requests * 1e6, 1),
    }
    gateway.process.kill()
    return figures


def one_command_a_call(bench, accounts, seconds, rate):
    """The same script, asked once for every call at the same rate, without gathering and without leases."""
    redis = bench.redis()
    path = os.path.join(os.path.dirname(__file__), "../../Sources/Limits/TakeScript.swift")
    with open(path) as file:
        source = file.read().split('source = #"""')[1].split('"""#')[0]
    name = redis.command("SCRIPT", "LOAD", source.replace("\\#(graceMicroseconds)", "200000")
                         .replace("\\#(keptMicroseconds)", "86400000000"))
    arguments = [0, 0, 0, 0, 0, "me", 1, 1, "recall", "", 1, 1, 1, -1, 0, 0, 0, 0, 0, 1000000, 60000000]
    cpu, start, calls = redis.cpu(), time.monotonic(), 0
    while (due := start + calls / rate) < start + seconds:
        time.sleep(max(0.0, due - time.monotonic()))
        account = random.randrange(accounts)
        redis.command("EVALSHA", name, 1, f"limit:{{a{account}}}:60s", *arguments)
        calls += 1
    return {
        "accounts": accounts, "commands_per_request": 1,
        "redis_cpu_us_per_request": round((redis.cpu() - cpu) / calls * 1e6, 2),
    }


def flood(bench, guessed_from_one_address):
    redis = bench.redis()
    good = [f"sk_live_good{number}" for number in range(50)]
    for key in good:
        redis.store(key, tier="bench", account=key)
    redis.stream.flush()
    for _ in good:
        redis.reply()
    gateway = bench.start(redis.port, extra="" if guessed_from_one_address else ", failed_authentications: off")
    measure = ("--connections", 8, "--seconds", 5, "--rate", 200)
    before = json.loads(bench.load(gateway, good, *measure).communicate()[0])
    unknown = [generated_key() for _ in range(1_000_000)]
    asked = gateway.metric('gateway_store_duration_seconds_count{command="lookup"}')
    start = time.monotonic()
    attack = bench.load(gateway, unknown, "--connections", 64, "--seconds", 20, "--status", 401,
                        "--tolerate", 10_000_000)
    time.sleep(1)
    during = json.loads(bench.load(gateway, good, *measure).communicate()[0])
    result = json.loads(attack.communicate()[0])
    took = time.monotonic() - start
    asked = gateway.metric('gateway_store_duration_seconds_count{command="lookup"}') - asked
    gateway.process.kill()
    return {
        "from_one_address": guessed_from_one_address, "guesses": result["requests"], "seconds": round(took, 1),
        "lookups_on_redis": asked, "lookups_a_second": round(asked / took), "good_p99_us_before": before["p99_us"],
        "good_p99_us_during": during["p99_us"], "good_errors": during["errors"] + before["errors"],
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--silent-trials", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("what", nargs="*", default=["exactness", "revocation", "cost", "flood"])
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bench = Bench(options.folder, options.gateway)
    try:
        if "exactness" in options.what:
            print("exactness", json.dumps(exactness(bench, 300, 2, 9, False)), flush=True)
            for limit in (300, 1000):
                print("exactness", json.dumps(exactness(bench, limit, 2, 4 * options.seconds, True)), flush=True)
        if "revocation" in options.what:
            print("revocation", json.dumps(revocation(bench, options.trials, False)), flush=True)
            print("revocation, tracking silent", json.dumps(revocation(bench, options.silent_trials, True)), flush=True)
        if "cost" in options.what:
            for accounts in (1, 100, 10_000):
                print("cost", json.dumps(cost(bench, accounts, options.seconds, 1000)), flush=True)
                plain = one_command_a_call(bench, accounts, options.seconds, 1000)
                print("one command a call", json.dumps(plain), flush=True)
        if "flood" in options.what:
            for one in (True, False):
                print("flood", json.dumps(flood(bench, one)), flush=True)
    finally:
        bench.end()


if __name__ == "__main__":
    main()
