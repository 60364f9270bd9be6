"""What a measurement of a fleet is made of: Redis, gateways, callers, and a cable that can be cut."""

import hashlib
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


def server_program():
    """The Redis to measure with: another version, or another that speaks its protocol."""
    return os.environ.get("REDIS_SERVER", "redis-server")


class Conversation:
    """Commands and answers over a stream."""

    def __init__(self, stream):
        self.stream = stream

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


class Redis(Conversation):
    """A Redis of its own, spoken to in plain text."""

    def __init__(self, folder, port=None, options=(), settable=False):
        """When `settable`, its clock is the machine's plus what `set_clock` says, and costs a system call."""
        self.port = port or free_port()
        self.clock = os.path.join(folder, f"clock-{self.port}")
        self.folder, self.options, self.settable = folder, options, settable
        self.start()

    def start(self):
        environment = dict(os.environ)
        if self.settable:
            self.set_clock(0)
            environment.update(LD_PRELOAD=f"{self.folder}/clock.so", CLOCK_OFFSET_FILE=self.clock)
        self.process = subprocess.Popen(
            [server_program(), "--port", str(self.port), "--save", "", "--appendonly", "no", "--dir", self.folder,
             *self.options], stdout=subprocess.DEVNULL, env=environment)
        wait_for(self.port, self.process)
        self.connect()

    def connect(self):
        self.stream = socket.create_connection(("127.0.0.1", self.port)).makefile("rwb")

    def set_clock(self, microseconds):
        with open(self.clock, "r+b" if os.path.exists(self.clock) else "wb") as file:
            file.write(microseconds.to_bytes(8, "little", signed=True))

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


class Sentinels:
    """A master, its replica, and three sentinels that replace the one by the other."""

    name = "mymaster"
    options = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]

    def __init__(self, bench):
        self.bench = bench
        self.master = bench.redis(options=self.options)
        self.replica = bench.redis(options=[*self.options, "--replicaof", "127.0.0.1", str(self.master.port)])
        self.ports = [free_port() for _ in range(3)]
        self.processes = []
        for port in self.ports:
            path = os.path.join(bench.folder, f"sentinel-{port}.conf")
            with open(path, "w") as file:
                file.write(f"port {port}\nbind 127.0.0.1\ndir {bench.folder}\n"
                           f"sentinel monitor {self.name} 127.0.0.1 {self.master.port} 2\n"
                           f"sentinel down-after-milliseconds {self.name} 400\n"
                           f"sentinel failover-timeout {self.name} 2000\n")
            process = bench.track(subprocess.Popen(
                [server_program(), path, "--sentinel"], stdout=subprocess.DEVNULL))
            wait_for(port, process)
            self.processes.append(process)
        while any((state := self.state(port)).get("num-slaves") != "1" or state.get("num-other-sentinels") != "2"
                  for port in self.ports):
            time.sleep(0.1)

    @property
    def url(self):
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{port}" for port in self.ports) + "/" + self.name

    def ask(self, port, *arguments):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            return Conversation(connection.makefile("rwb")).command("SENTINEL", *arguments)

    def state(self, port):
        words = self.ask(port, "MASTER", self.name)
        return dict(zip(words[::2], words[1::2]))

    def wait_for_replica(self):
        """Until a sentinel would choose the replica, and it has all that the master has."""
        def is_ready():
            words = [dict(zip(found[::2], found[1::2])) for found in self.ask(self.ports[0], "REPLICAS", self.name)]
            return any(word["port"] == str(self.replica.port) and word["flags"] == "slave"
                       and word["master-link-status"] == "ok" for word in words) \
                and self.replica.info("replication").get("master_link_status") == "up" \
                and all(self.state(port)["flags"] == "master" for port in self.ports)
        while not is_ready():
            time.sleep(0.1)

    def replace_master(self, way):
        """The master is `killed`, `stopped`, or replaced as `planned`. Returns how long the sentinels took."""
        start = time.monotonic()
        if way == "killed":
            self.master.process.kill()
            self.master.process.wait()
        elif way == "stopped":
            self.master.process.send_signal(signal.SIGSTOP)
        else:
            while True:
                try:
                    self.ask(self.ports[0], "FAILOVER", self.name)
                    break
                except RuntimeError:
                    time.sleep(0.1)
        while any(self.ask(port, "GET-MASTER-ADDR-BY-NAME", self.name)[1] != str(self.replica.port)
                  for port in self.ports):
            if way != "planned" and time.monotonic() > start + 20:
                raise RuntimeError("the sentinels do not replace the master")
            time.sleep(0.02)
        self.master, self.replica, self.left = self.replica, self.master, way
        return time.monotonic() - start

    def revive(self):
        """What was the master follows its successor."""
        if self.left == "stopped":
            self.replica.process.send_signal(signal.SIGCONT)
        if self.left == "killed":
            self.replica = self.bench.redis(
                port=self.replica.port,
                options=[*self.options, "--replicaof", "127.0.0.1", str(self.master.port)])
        else:
            self.replica.connect()
            self.replica.command("REPLICAOF", "127.0.0.1", self.master.port)

    def end(self):
        for process in [*self.processes, self.master.process, self.replica.process]:
            process.kill()
            process.wait()


class Gateway:
    def __init__(
            self, bench, store, workers=1, connections=4000, extra="", outage="local",
            drain="drain_delay: 0ms, drain: 1s", log="off", core=None):
        self.port, self.admin = free_port(), free_port()
        path = self.path = os.path.join(bench.folder, f"fleet-{self.port}.conf")
        url = store if isinstance(store, str) else f"redis://127.0.0.1:{store}/0"
        with open(path, "w") as file:
            file.write(f"""
listen:
  https:
    address: "127.0.0.1:{self.port}"
    certificates: [{{ chain: "{bench.folder}/certificate.pem", private_key: "{bench.folder}/key.pem" }}]
admin: {{ address: "127.0.0.1:{self.admin}" }}
store: {{ url: "{url}", on_outage: {outage} }}
tiers:
  bench: {{ limits: ["1000000/minute"] }}
upstreams:
  main: {{ endpoints: ["http://127.0.0.1:{bench.upstream_port}"] }}
routes:
  - {{ path: /**, upstream: main }}
limits: {{ connections: {connections} {extra} }}
access_log: {{ path: {log}, sample: 0.1% }}
timeouts: {{ {drain}, idle: 10m }}
workers: {workers}
""")
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        self.process = subprocess.Popen([*pinned, bench.gateway, "run", "--config", path], stderr=subprocess.DEVNULL)
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


def make_certificate(chain, key):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", chain],
        check=True, stderr=subprocess.DEVNULL)


class Bench:
    def __init__(self, folder, gateway):
        self.folder, self.gateway = folder, gateway
        self.processes = []
        make_certificate(f"{folder}/certificate.pem", f"{folder}/key.pem")
        self.upstream_port = free_port()
        self.track(subprocess.Popen([f"{folder}/upstream", str(self.upstream_port)]))
        wait_for(self.upstream_port, self.processes[-1])

    def track(self, process):
        self.processes.append(process)
        return process

    def redis(self, **options):
        redis = Redis(self.folder, **options)
        self.track(redis.process)
        return redis

    def start(self, store, **options):
        gateway = Gateway(self, store, **options)
        self.track(gateway.process)
        return gateway

    def load(self, gateway, keys, *arguments, before=None):
        path = os.path.join(self.folder, f"keys-{len(keys)}-{random.getrandbits(32)}")
        with open(path, "w") as file:
            file.write("\n".join(keys) + "\n")
        return subprocess.Popen(
            [f"{self.folder}/load", "--port", str(gateway.port), "--path", "/1k", "--keys", path,
             *map(str, arguments)], stdout=subprocess.PIPE, text=True, preexec_fn=before)

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
        # New connections are as dead as those that were cut.
        self.dead = False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            # A relay that gathered small messages would add up to 40 ms of its own.
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = {"cut": self.dead, "tracks": False}
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

    def cut(self, everything=False):
        for line in self.lines:
            line["cut"] = line["cut"] or everything or line["tracks"]


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
