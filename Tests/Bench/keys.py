#!/usr/bin/env python3
"""Measures managing many keys: commands, API and dashboard, and what other users of the same Redis notice.

Tests/Bench/keys.py [--keys 100000] [--trials 5]; GATEWAY_BINARY is the program. Every line is the median and the
worst of the trials in milliseconds.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

from bench import free_port, wait_for
from fleet_lab import Redis

FILL = """
for i = tonumber(ARGV[1]), tonumber(ARGV[1]) + 999 do
  local hex = redis.sha1hex(i) .. string.sub(redis.sha1hex('x' .. i), 1, 24)
  local id = 'key_' .. string.sub(hex, 1, 16)
  redis.call('HSET', 'gateway:key:' .. hex, 'id', id, 'account', 'account-' .. i % 1000, 'tier',
    i % 10 == 0 and 'pro' or 'standard', 'scopes', 'projects:read projects:write', 'status', 'active', 'name',
    'service ' .. i, 'hint', string.sub(hex, -4), 'created_at', tostring(1700000000 + i), 'expires_at', '99999999999')
  redis.call('SET', 'gateway:id:' .. id, hex)
  redis.call('ZADD', 'gateway:keys', 1700000000 + i, id)
  redis.call('HSET', 'gateway:seen', id, tostring(1700000000 + i))
end
"""
TOKEN = "0d9f3c51b7e24a68-bench"


class World:
    def __init__(self, folder, program, keys):
        self.folder, self.program = folder, program
        self.redis = Redis(folder)
        for start in range(0, keys, 1_000):
            self.redis.command("EVAL", FILL, "0", start)
        self.redis.command("CONFIG", "SET", "slowlog-log-slower-than", "500")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
             "2", "-subj", "/CN=localhost", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/chain.pem"],
            check=True, stderr=subprocess.DEVNULL)
        self.path, self.admin = f"{folder}/gateway.conf", free_port()
        with open(f"{folder}/token", "w") as file:
            file.write(TOKEN)
        with open(self.path, "w") as file:
            file.write(f"""
listen:
  https:
    address: "127.0.0.1:{free_port()}"
    certificates: [{{ chain: "{folder}/chain.pem", private_key: "{folder}/key.pem" }}]
admin: {{ address: "127.0.0.1:{self.admin}", token_file: "{folder}/token" }}
store: {{ url: "redis://127.0.0.1:{self.redis.port}/0" }}
tiers:
  standard: {{ limits: ["100/minute"] }}
  pro: {{ limits: ["1000/minute"] }}
upstreams:
  main: {{ endpoints: ["http://127.0.0.1:{free_port()}"] }}
routes:
  - {{ path: /**, upstream: main }}
access_log: {{ path: off }}
timeouts: {{ drain_delay: 0ms, drain: 1s }}
workers: 1
""")
        self.gateway = None

    def serve(self):
        self.gateway = subprocess.Popen([self.program, "run", "--config", self.path], stderr=subprocess.DEVNULL)
        if not wait_for(self.admin, self.gateway):
            sys.exit("the gateway does not start")
        # Its own look at the keys, which it takes after it has started, is not what is measured.
        while b"gateway_keys_due_for_rotation" not in self.get("/metrics"):
            time.sleep(0.2)

    def run(self, *arguments):
        done = subprocess.run([self.program, "keys", *arguments, "--config", self.path], capture_output=True)
        if done.returncode != 0:
            sys.exit(f"keys {arguments}: {done.stderr.decode()}")
        return done.stdout

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin)
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status != 200:
            sys.exit(f"{path}: {answer.status} {body.decode()}")
        return body

    def end(self):
        for process in (self.gateway, self.redis.process):
            if process:
                process.kill()
                process.wait()


class Probe:
    """Asks Redis for nothing, as often as it answers: how long others wait."""

    def __init__(self, redis):
        self.other = object.__new__(Redis)
        self.other.stream = socket.create_connection(("127.0.0.1", redis.port)).makefile("rwb")
        self.worst, self.over = 0, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.over:
            start = time.perf_counter()
            self.other.command("PING")
            self.worst = max(self.worst, time.perf_counter() - start)
            time.sleep(0.001)

    def end(self):
        self.over = True
        self.thread.join()
        return self.worst


class Browser:
    """The dashboard, in a real browser."""

    def __init__(self, folder, admin):
        self.port = free_port()
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={self.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.port, self.driver)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     f"--user-data-dir={folder}/profile"]
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}}
        self.session = ""
        self.session = "/session/" + self.ask("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self.ask("/url", {"url": f"http://127.0.0.1:{admin}/"})
        self.until("return document.querySelector('input[name=token]') !== null")
        self.script("const i = document.querySelector('input[name=token]'); i.value = arguments[0];"
                    "i.form.requestSubmit()", TOKEN)
        self.until("return document.querySelector('a[data-place=keys]') !== null")

    def ask(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", self.session + path, json.dumps(body), {"Content-Type": "application/json"})
        value = json.loads(connection.getresponse().read())["value"]
        connection.close()
        return value

    def script(self, text, *arguments):
        return self.ask("/execute/sync", {"script": text, "args": list(arguments)})

    def until(self, condition):
        deadline = time.monotonic() + 20
        while self.script(condition) is not True:
            if time.monotonic() > deadline:
                sys.exit(f"the page does not come to: {condition}")
            time.sleep(0.005)

    def timed(self, act, condition):
        """Milliseconds from an act to what it leads to, by the page's own clock: to ask for it again and again
        would take the processor from those who are measured."""
        return self.ask("/execute/async", {"args": [], "script": f"""
            const done = arguments[0], start = performance.now();
            const look = () => {{ if ({condition}) {{ observer.disconnect(); done(performance.now() - start); }} }};
            const observer = new MutationObserver(look);
            observer.observe(document.body, {{ subtree: true, childList: true }});
            {act};
            look();"""})

    def open(self, place, condition):
        self.script("location.hash = '#/overview'")
        self.until("return document.querySelector('h1')?.textContent === 'Overview'")
        return self.timed(f"location.hash = {json.dumps(place)}", condition)

    def end(self):
        self.driver.kill()
        self.driver.wait()


def measure(name, trials, body, probe_on):
    times = []
    probe = Probe(probe_on)
    for _ in range(trials):
        start = time.perf_counter()
        taken = body()
        times.append(taken if isinstance(taken, float) else (time.perf_counter() - start) * 1e3)
        # So that what is known for two seconds is looked for again.
        time.sleep(2.1)
    worst = probe.end() * 1e3
    times.sort()
    print(f"  {name:44} {times[len(times) // 2]:8.0f} {times[-1]:8.0f}   {worst:8.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--trials", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = World(folder, os.environ["GATEWAY_BINARY"], options.keys)
        try:
            bench(world, options)
        finally:
            world.end()


def bench(world, options):
    def line(name, body):
        measure(name, options.trials, body, world.redis)

    some = f"service {options.keys // 2}"
    print(f"{options.keys} keys; ms: median, worst, longest wait of a PING meanwhile\ncommands")
    line("keys list", lambda: world.run("list"))
    line("keys list --limit 50", lambda: world.run("list", "--limit", "50"))
    line("keys list --account", lambda: world.run("list", "--account", "account-7"))
    line("keys list --search, one found", lambda: world.run("list", "--search", some))
    line("keys list --search, none found", lambda: world.run("list", "--search", "nothing of this kind"))
    line("keys list --status revoked, none", lambda: world.run("list", "--status", "revoked"))
    line("keys list --due", lambda: world.run("list", "--due"))
    line("keys create", lambda: world.run("create", "--tier", "pro", "--account", "bench"))
    world.serve()
    print("API")
    first = json.loads(world.get("/v1/keys"))
    line("GET /v1/keys", lambda: world.get("/v1/keys"))
    line("the second page", lambda: world.get(f"/v1/keys?cursor={first['next_cursor']}"))
    cursor = first["next_cursor"]
    for _ in range(options.keys // 2_000):
        cursor = json.loads(world.get(f"/v1/keys?limit=1000&cursor={cursor}"))["next_cursor"]
    line("a page in the middle", lambda: world.get(f"/v1/keys?cursor={cursor}"))
    line("account=", lambda: world.get("/v1/keys?account=account-7"))
    line("q=, one found", lambda: world.get(f"/v1/keys?q={some.replace(' ', '+')}"))
    line("q=, none found", lambda: world.get("/v1/keys?q=nothing+of+this+kind"))
    world.get("/v1/accounts/account-7/limits")
    line("an account's window, again", lambda: world.get("/v1/accounts/account-7/limits"))
    print("dashboard, in Chromium")
    browser = Browser(world.folder, world.admin)
    rows = "document.querySelectorAll('tbody tr').length"
    filters = "document.querySelector('input[name=q]') !== null"

    def page():
        return browser.open("#/keys", f"{rows} === 50 && {filters}")

    def search(place, count):
        return browser.open(place, f"{rows} === {count} && {filters}")

    def more():
        wanted = browser.script(f"return {rows}") + 50
        button = "[...document.querySelectorAll('button')].find((b) => b.textContent === 'Load more')"
        return browser.timed(f"{button}.click()", f"{rows} === {wanted}")

    def typed():
        page()
        box = "const box = document.querySelector('input[name=q]')"
        event = "box.dispatchEvent(new Event('input', { bubbles: true }))"
        return browser.timed(f"{box}; box.value = {json.dumps(some)}; {event}", f"{rows} === 1")

    try:
        line("the list", page)
        line("the next page", more)
        line("search for a name", lambda: search(f"#/keys?q={some.replace(' ', '+')}", 1))
        line("the same, typed", typed)
        line("an account's keys", lambda: search("#/keys?account=account-7&q=service", 50))
    finally:
        browser.end()
    entries = world.redis.command("SLOWLOG", "GET", "128")
    slowest = sorted(entries, key=lambda entry: -entry[2])[:3]
    print("Redis's slowest commands: " + ", ".join(f"{entry[2] / 1e3:.2f} ms {entry[3][0]}" for entry in slowest))


if __name__ == "__main__":
    main()
