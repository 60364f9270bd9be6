#!/usr/bin/env python3
"""Measures what operators rely on: Tests/Bench/operations [reloads] [upgrades] [drains] [scrape] [storm] [handshakes]

reloads     1,000 under load, one in ten with another certificate, one in ten of a bad file: failed calls, memory
upgrades    SIGUSR2 under load, HTTP/1.1 and HTTP/2, kept and fresh connections: refused, reset and failed calls
drains      SIGTERM under the same load, callers that go when they are told to: failed calls
storm       50,000 connections against a cap of 10,000: what open callers notice, memory and CPU
handshakes  20,000 callers that send nothing or half a ClientHello, with the usual cap and with room for 18,000
scrape      /metrics ten times a second under a steady load: p99 of all calls beside that of the calls that are due
            away from scrapes, with a bootstrap interval over the seconds; CPU of a scrape by thread
"""

import argparse
import array
import bisect
import collections
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

from callers import Caller1, Caller2, gather
from fleet_lab import Bench, make_certificate

KEY = "sk_live_operations"


def start(bench, workers=2, keys=(KEY,), **options):
    """A gateway whose keys have an account each."""
    redis = bench.redis()
    for number, key in enumerate(keys):
        redis.store(key, tier="bench", account=f"operations{number}")
    redis.stream.flush()
    for _ in keys:
        redis.reply()
    return bench.start(redis.port, workers=workers, **options)


def callers(bench, gateway, trust="certificate.pem", **options):
    return [
        kind(gateway.port, f"{bench.folder}/{trust}", KEY, fresh=fresh, **options)
        for kind in (Caller1, Caller2) for fresh in (False, False, True)]


def processes(gateway):
    """The processes that run this gateway's configuration; one ends when another has taken over."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except (OSError, ValueError):
            continue
        if gateway.path.encode() in words and words[0].endswith(b"gateway"):
            found.append(int(entry))
    return found


def until(condition, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what} takes longer than {seconds} s")
        time.sleep(0.02)


def reloads(bench, count):
    gateway = start(bench)
    good, now = f"{bench.folder}/certificate.pem", 0
    pairs = [(good + ".0", f"{bench.folder}/key.pem.0"), (good + ".1", f"{bench.folder}/key.pem.1")]
    for pair in pairs:
        make_certificate(*pair)
    with open(f"{bench.folder}/trust.pem", "w") as trust:
        for path in (good, pairs[0][0], pairs[1][0]):
            trust.write(open(path).read())
    with open(gateway.path) as file:
        text = file.read()
    load = callers(bench, gateway, trust="trust.pem")
    outcomes = {"accepted": 0, "refused": 0}
    memory = []

    def reload(outcome, text):
        with open(gateway.path, "w") as file:
            file.write(text)
        outcomes[outcome] += 1
        gateway.process.send_signal(signal.SIGHUP)
        # The files are watched too, so that there may be one more than was asked for.
        metric = f'gateway_config_reloads_total{{result="{outcome}"}}'
        until(lambda: gateway.metric(metric) >= outcomes[outcome], outcome)
        outcomes[outcome] = int(gateway.metric(metric))

    for number in range(count):
        if number % 10 == 3:
            now = 1 - now
            for source, target in zip(pairs[now], (good, f"{bench.folder}/key.pem")):
                os.replace(shutil.copy(source, f"{source}.new"), target)
        if number % 10 == 6:
            reload("refused", text.replace("upstream: main", "upstream: mian"))
        else:
            # Another text each time.
            reload("accepted", text + f"# {number}\n")
        memory.append(resident(gateway))
    result = {"reloads": count, **outcomes, **gather(load)}
    gateway.process.kill()
    quarter = memory[count // 4:count // 2]
    last = memory[-count // 4:]
    growth = statistics.mean(last) / statistics.mean(quarter) - 1
    return result | {
        "resident_MiB": {"first": round(memory[0], 1), "second_quarter": round(statistics.mean(quarter), 1),
                         "last_quarter": round(statistics.mean(last), 1), "most": round(max(memory), 1)},
        "growth": f"{100 * growth:+.1f} %"}


def upgrades(bench, count):
    log = f"{bench.folder}/upgrades.log"
    gateway = start(bench, log=log)
    threading.Thread(target=gateway.process.wait, daemon=True).start()
    load = callers(bench, gateway)
    present = processes(gateway)
    began = time.monotonic()
    for number in range(count):
        answered = [caller.answered for caller in load]
        os.kill(present[0], signal.SIGUSR2)
        until(lambda: len(now := processes(gateway)) == 1 and now != present, f"upgrade {number + 1}")
        present = processes(gateway)
        # Everybody is served by the new one before the next.
        until(lambda: all(c.answered > before for c, before in zip(load, answered)), "a call of everybody")
    result = {"upgrades": count, "seconds": round(time.monotonic() - began, 1), **gather(load)}
    os.kill(present[0], signal.SIGTERM)
    until(lambda: not processes(gateway), "the end")
    with open(log) as lines:
        reasons = [line["reason"] for line in map(json.loads, lines) if line["status"] >= 400]
    return result | {"reasons": dict(collections.Counter(reasons))}


def drains(bench, count):
    total = {}
    for _ in range(count):
        gateway = start(bench, drain="drain_delay: 300ms, drain: 10s")
        load = callers(bench, gateway, leaves=True)
        until(lambda: all(caller.answered > 20 for caller in load), "a few calls of everybody")
        gateway.process.terminate()
        status = gateway.process.wait(30)
        outcome = gather(load)
        outcome["failed"] += status != 0
        for name, value in outcome.items():
            total[name] = total.get(name, 0) + value if name != "failures" else {**total.get(name, {}), **value}
    return {"drains": count, **total}


def chosen(result):
    return {name: result[name] for name in ("requests", "errors", "p50_us", "p99_us", "max_us")}


def resident(gateway):
    with open(f"/proc/{gateway.process.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


class Storm:
    """So many processes that none needs more file descriptors than a limit of 20,000 allows.

    The gateway has the first processor for itself, good callers come before these on the others: what is measured is
    the gateway, not who gets a processor.
    """

    def __init__(self, bench, gateway, seconds, connections, *arguments):
        count = -(-connections // 18_000)
        self.processes = [subprocess.Popen(
            ["nice", "-n", "19", f"{bench.folder}/storm", "--port", str(gateway.port), "--seconds", str(seconds),
             "--connections", str(connections // count), "--pending", str(1024 // count), *arguments],
            stdout=subprocess.PIPE, text=True) for _ in range(count)]

    @property
    def goes_on(self):
        return any(process.poll() is None for process in self.processes)

    def figures(self):
        results = [json.loads(process.communicate()[0]) for process in self.processes]
        sums = {name: sum(result[name] for result in results) for name in results[0]}
        return sums | {"seconds_to_start": max(result["seconds_to_start"] for result in results)}


def attack(bench, gateway, seconds, *arguments):
    """Good callers on 16 connections, then the same during a storm, and what the gateway takes meanwhile."""

    def good(seconds):
        return bench.load(gateway, [KEY], "--connections", 16, "--rate", 500, "--seconds", seconds)

    def figures(load):
        return chosen(json.loads(load.communicate()[0]))

    before = figures(good(4))
    before_fresh = figures(bench.load(gateway, [KEY], "--connections", 4, "--seconds", 2, "--handshakes"))
    memory, cpu, began = resident(gateway), gateway.cpu(), time.monotonic()
    # Good callers are there before the storm begins, and go before it ends.
    during = good(seconds - 1)
    time.sleep(0.5)
    storm = Storm(bench, gateway, seconds, *arguments)
    peak = memory
    while storm.goes_on:
        peak = max(peak, resident(gateway))
        time.sleep(0.1)
    took = time.monotonic() - began
    return {
        "storm": storm.figures(), "good_before": before, "good_during": figures(during),
        "good_fresh_before": before_fresh, "cpu_of_a_core": round((gateway.cpu() - cpu) / took, 2),
        "resident_MiB": {"before": round(memory), "most": round(peak), "after": round(resident(gateway))},
        "refused": gateway.metric("gateway_connections_refused_total"),
        "evicted": gateway.metric("gateway_tls_handshakes_evicted_total"),
        "accepted": gateway.metric("gateway_connections_accepted_total"),
    }


def fresh_during(bench, gateway, seconds, *arguments):
    """Good callers that connect for every call, one at a time each, during a storm."""
    storm = Storm(bench, gateway, seconds, *arguments)
    time.sleep(1)
    load = json.loads(bench.load(
        gateway, [KEY], "--connections", 4, "--seconds", seconds - 2, "--handshakes").communicate()[0])
    return {"good_fresh_during": chosen(load), "storm_meanwhile": storm.figures()}


def quantile(rows, share):
    """The latency that this share of all rows together does not exceed; each row is sorted."""
    wanted = share * sum(map(len, rows))
    low, high = 0.0, max(row[-1] for row in rows)
    while high - low > low * 1e-4:
        middle = (low + high) / 2
        if sum(bisect.bisect_right(row, middle) for row in rows) < wanted:
            low = middle
        else:
            high = middle
    return high


# A call may notice a scrape when it is due so many milliseconds before (it is still under way) up to four after (what a
# scrape delays is caught up with by then).
BEFORE, LENGTH = 2, 6
# Groups of calls by how long after a scrape they are due, each LENGTH milliseconds; the first are those near it.
LATER = 10


def scrape_effect(bench, seconds, load):
    """How p99 would change if nobody scraped, from one run with ten scrapes a second.

    The moments of scrapes are left to chance, so that calls due near one differ from the others by the scrape alone.
    """
    # As many accounts as it takes to stay below every limit.
    keys = [f"{KEY}{number}" for number in range(16)]
    gateway = start(bench, keys=keys)
    closed = json.loads(bench.load(gateway, keys, "--connections", 64, "--seconds", 4).communicate()[0])
    rate = round(load * closed["requests"] / closed["seconds"], -2)
    path, begin = f"{bench.folder}/latencies", time.monotonic() + 2
    caller = bench.load(
        gateway, keys, "--connections", 64, "--rate", rate, "--seconds", seconds, "--start", begin, "--slice", 0.001,
        "--out", path)
    scraper = bench.track(subprocess.Popen(
        [f"{bench.folder}/scrape", str(gateway.admin), str(begin), str(seconds)], stdout=subprocess.PIPE, text=True))
    scraped = json.loads(scraper.communicate()[0])
    result = json.loads(caller.communicate()[0])
    gateway.process.kill()
    with open(path, "rb") as file:
        count, latencies, moments = int.from_bytes(file.read(8), "little"), array.array("f"), array.array("I")
        latencies.fromfile(file, count)
        moments.fromfile(file, count)
    return {
        "seconds": seconds, "rate": rate, "of_capacity": load, "requests": result["requests"],
        "errors": result["errors"], "p50_us": result["p50_us"],
        **compare(latencies, moments, scraped.pop("at_ms"), seconds), **scraped}


def compare(latencies, moments, scrapes, seconds):
    """Calls due near a scrape beside the others; `moments` and `scrapes` in milliseconds of the run."""
    groups = bytearray([LATER]) * (seconds * 1000 + 1)
    for at in scrapes:
        for group in range(LATER):
            first = int(at) - BEFORE + group * LENGTH
            for moment in range(max(0, first), min(first + LENGTH, len(groups))):
                groups[moment] = min(groups[moment], group)
    near, far = ([array.array("f") for _ in range(seconds)] for _ in range(2))
    for latency, moment in zip(latencies, moments):
        (far if groups[moment] else near)[moment // 1000].append(latency)
    rows = [tuple(array.array("f", sorted(row)) for row in pair) for pair in zip(near, far) if all(pair)]

    def p99(rows):
        without = quantile([far for _, far in rows], 0.99)
        return without, quantile([row for pair in rows for row in pair], 0.99) / without - 1

    without, change = p99(rows)
    drawn = sorted(p99(random.choices(rows, k=len(rows)))[1] for _ in range(400))
    # How many are slower than that p99: 1 % where nobody notices.
    slow, calls = [0] * (LATER + 1), [0] * (LATER + 1)
    for latency, moment in zip(latencies, moments):
        calls[groups[moment]] += 1
        slow[groups[moment]] += latency > without
    shares = [f"{100 * one / max(1, all):.2f} %" for one, all in zip(slow, calls)]
    return {
        "p99_us_away_from_scrapes": round(without, 1),
        "p99_change": f"{100 * change:+.2f} % (95 %: {100 * drawn[9]:+.2f} to {100 * drawn[389]:+.2f})",
        "calls_near": f"{100 * calls[0] / len(latencies):.1f} %",
        "slower_than_that": {"near": shares[0], f"then, by {LENGTH} ms": shares[1:LATER], "later": shares[LATER]},
    }


def scrape_cost(bench, scrapes):
    """CPU of each thread for scrapes alone, beside the same time without any."""
    gateway = start(bench)
    bench.load(gateway, [KEY], "--connections", 32, "--seconds", 2).communicate()

    def threads():
        root, result = f"/proc/{gateway.process.pid}/task", {}
        for task in os.listdir(root):
            with open(f"{root}/{task}/comm") as name, open(f"{root}/{task}/schedstat") as times:
                result[task] = (name.read().strip(), int(times.read().split()[0]))
        return result

    def spent(action):
        before = threads()
        action()
        after, result = threads(), {}
        for task, (name, nanoseconds) in after.items():
            used = nanoseconds - before.get(task, (name, 0))[1]
            result[name] = result.get(name, 0) + used / 1e3
        return result

    def scrape():
        for _ in range(scrapes):
            gateway.metric("gateway_store_up")

    began = time.monotonic()
    busy = spent(scrape)
    took = time.monotonic() - began
    idle = spent(lambda: time.sleep(took))
    gateway.process.kill()
    return {"scrapes": scrapes, "us_a_scrape": {
        name: round((busy[name] - idle.get(name, 0)) / scrapes, 1) for name in sorted(busy)}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--count", type=int, help="reloads, upgrades, drains, or seconds of scrapes")
    parser.add_argument("what", nargs="*", default=["reloads", "upgrades", "drains", "storm", "handshakes", "scrape"])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bench = Bench(options.folder, options.gateway)

    def tell(name, figures):
        print(name, json.dumps(figures), flush=True)

    try:
        if "reloads" in options.what:
            tell("reloads", reloads(bench, options.count or 1000))
        if "upgrades" in options.what:
            tell("upgrades", upgrades(bench, options.count or 50))
        if "drains" in options.what:
            tell("drains", drains(bench, options.count or 10))
        if "scrape" in options.what:
            tell("scrape", scrape_cost(bench, 1000))
            tell("scrape", scrape_effect(bench, options.count or 600, 0.4))
        for process in [0] + [each.pid for each in bench.processes if each.poll() is None]:
            os.sched_setaffinity(process, set(range(1, os.cpu_count())))
        if "storm" in options.what:
            for more in ((), ("--again", "--rate", "2500")):
                gateway = start(bench, workers=1, core=0, connections=10_000)
                tell("storm " + " ".join(more), attack(
                    bench, gateway, 25, 50_000, "--mode", "whole", *more))
                gateway.process.kill()
        if "handshakes" in options.what:
            for cap in (4_096, 18_000):
                for mode in ("silent", "half"):
                    gateway = start(bench, workers=1, core=0, connections=19_000, extra=f", handshakes: {cap}")
                    storm = (20_000, "--mode", mode, "--again", "--rate", "2500")
                    tell(f"handshakes, cap {cap}, {mode}", attack(bench, gateway, 12, *storm)
                         | fresh_during(bench, gateway, 10, *storm))
                    gateway.process.kill()
    finally:
        bench.end()


if __name__ == "__main__":
    main()
