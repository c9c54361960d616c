#!/usr/bin/env python3
"""What three gateways that share a limit over Redis admit between them in a minute of overload, and without Redis.

Starts redis-server and three gateways on free loopback ports, presses each with wrk, and ends what it started. Prints one
line of JSON for each phase: shared, killed (each gateway's share holds), shared again; and the round trip that each request
would cost if it asked Redis itself (redis-benchmark, the same script).
"""

import argparse
import json
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
RATE, BURST, GATEWAYS = 300, 300, 3


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/release/portcullis", help="the build to measure")
    parser.add_argument("--seconds", type=int, default=60, choices=range(2, 301), metavar="2..300", help="length of a phase")
    return parser.parse_args()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_redis(port):
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start_gateway(binary, folder, redis):
    port, admin = free_port(), free_port()
    config = folder / f"{port}.toml"
    config.write_text(f"""
workers = 1
[admin]
address = "127.0.0.1:{admin}"
[telemetry]
access_log = false
[[listener]]
address = "127.0.0.1:{port}"
[rate_limit_store.shared]
redis = "redis://127.0.0.1:{redis}"
[[route]]
name = "all"
match = "/*"
respond = {{ body = "hello" }}
rate_limit = {{ key = "host", rate = "{RATE}/s", burst = {BURST}, store = "shared" }}
""")
    log = (folder / f"{port}.log").open("w")
    return subprocess.Popen([binary, "run", "-c", config], stdout=subprocess.DEVNULL, stderr=log), port, admin


def store(admin):
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/api/v1/limits", timeout=5) as answer:
        return json.load(answer)["stores"][0]


def wait_until(what, holds, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if holds():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"not within {seconds} s: {what}")


def press(ports, seconds):
    """What each gateway admitted in so many seconds, and how many answers were neither 200 nor 429."""
    script = "done = function(s, l, r) io.write('requests ', s.requests, ' errors ', s.errors.status, '\\n') end"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as counting:
        counting.write(script)
        counting.flush()
        command = ["wrk", "-t1", "-c4", f"-d{seconds}s", "-s", counting.name]
        running = [subprocess.Popen([*command, f"http://127.0.0.1:{port}/"], stdout=subprocess.PIPE, text=True) for port in ports]
        said = [process.communicate(timeout=seconds + 30)[0] for process in running]
    counted = [re.search(r"requests (\d+) errors (\d+)", text) for text in said]
    return [int(found[1]) - int(found[2]) for found in counted]


def failures(admins):
    """Answers of 5xx so far."""
    total = 0
    for admin in admins:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("portcullis_requests_total") and 'code="5' in line:
                    total += float(line.rsplit(" ", 1)[1])
    return int(total)


def main():
    options = arguments()
    redis_port, processes = free_port(), []
    with tempfile.TemporaryDirectory() as folder:
        redis = start_redis(redis_port)
        try:
            gateways = [start_gateway(options.binary, Path(folder), redis_port) for _ in range(GATEWAYS)]
            processes = [process for process, _, _ in gateways]
            ports, admins = [port for _, port, _ in gateways], [admin for _, _, admin in gateways]

            def shared():
                return all((state := store(admin))["up"] and state["gateways"] == GATEWAYS for admin in admins)

            def measure(phase, whole, ports=ports):
                admitted = press(ports, options.seconds)
                most = whole * (BURST + RATE * options.seconds)
                print(json.dumps({
                    "phase": phase, "seconds": options.seconds, "admitted": admitted, "limit": most,
                    "percent": round(100 * sum(admitted) / most, 2), "answers_5xx": failures(admins),
                }), flush=True)

            wait_until("the gateways share", shared)
            measure("shared", 1)
            redis.send_signal(signal.SIGKILL)
            redis.wait()
            wait_until("the gateways notice", lambda: not any(store(admin)["up"] for admin in admins), 1)
            measure("killed", 1)
            redis = start_redis(redis_port)
            wait_until("the gateways share again", shared)
            measure("shared again, one pressed", 1, ports[:1])
            command = ["redis-benchmark", "-p", str(redis_port), "-n", "50000", "-c", "8", "--csv",
                       "EVAL", "local t = redis.call('TIME') return redis.call('INCRBY', KEYS[1], ARGV[1])", "1", "bench:key", "1"]
            print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        finally:
            for process in [*processes, redis]:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
