#!/usr/bin/env python3
"""CPU per proxied request, beside nginx, HAProxy and Envoy: the method stands in bench/RESULTS.md.

The proxy has one core, the load generator (wrk) and the origin (nginx) have another. The peers take turns, so that what
else the machine does falls on all of them. All traffic stays on loopback; every run is bounded, every process is ended.
"""

import argparse
import json
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import meter
import peers

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
# the share of a core that other work may take during a turn
DISTURBED = 0.1
MODES = {"off": "nothing on", "log": "JSON access log and metrics"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=REPOSITORY / "target/release/portcullis", help="our release build")
    parser.add_argument("--only", type=names(peers.ALL), default=list(peers.PEERS), help="some of: " + ",".join(peers.ALL))
    parser.add_argument("--sizes", type=names(peers.BODIES), default=list(peers.BODIES), help="some of: " + ",".join(peers.BODIES))
    parser.add_argument("--modes", type=names(MODES), default=list(MODES), help="some of: " + ",".join(MODES))
    parser.add_argument("--seconds", type=bounded(1, 60), default=5, help="length of one measurement")
    parser.add_argument("--rounds", type=bounded(1, 20), default=3, help="turns of each peer in each scenario")
    parser.add_argument("--connections", type=bounded(1, 512), default=64, help="kept-alive client connections")
    parser.add_argument("--proxy-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--patience", type=bounded(0, 20), default=2, help="how often a turn disturbed by other work is taken again")
    parser.add_argument("--forwarded", action="store_true", help="peers write X-Forwarded-For, -Proto and X-Request-Id, as ours always does")
    parser.add_argument("--strace", action="store_true", help="also count system calls per request, in runs of their own")
    parser.add_argument("--perf", action="store_true", help="also name the hottest symbols, in runs of their own")
    parser.add_argument("--out", type=lambda path: Path(path).resolve(), default=HERE / "work", help="folder for results.json and results.md")
    return parser.parse_args()


def names(known):
    def parse(text):
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return chosen

    return parse


def bounded(least, most):
    def parse(text):
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"from {least} to {most}: {text}")
        return number

    return parse


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
        return response.read()


def wait_until_it_answers(process, port, size, folder):
    """A turn begins only when the proxy hands on the origin's body, byte for byte."""
    expected = (folder.parent / "origin" / size).read_bytes()
    deadline = time.monotonic() + 15
    while True:
        try:
            if get(port, f"/{size}") == expected:
                return
            why = "the body is not the origin's"
        except OSError as error:
            why = str(error)
        if process.poll() is not None or time.monotonic() > deadline:
            said = (folder / "stderr.log").read_text()[-2000:] + (folder / "stdout.log").read_text()[-500:]
            raise RuntimeError(f"it does not answer: {why}\n{said}")
        time.sleep(0.05)


def accepted(origin_port):
    """How many connections the origin has accepted since it started."""
    return int(get(origin_port, "/status").split(b"\n")[2].split()[0])


def turn(name, size, mode, options, work, origin_port):
    """One peer, started anew, warmed up and measured once."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-{size}-{mode}-", dir=work))
    port, admin_port = meter.free_ports(2)
    setup = peers.Setup(folder, port, admin_port, origin_port, mode == "log", options.forwarded)
    command = peers.ALL[name](options.binary.resolve(), setup)
    url = f"http://127.0.0.1:{port}/{size}"

    def load(seconds):
        return meter.wrk(url, seconds, options.connections, options.load_core)

    with meter.running(command, options.proxy_core, folder) as process:
        wait_until_it_answers(process, port, size, folder)
        load(1)
        pids = meter.family(process.pid)
        opened, busy, before = accepted(origin_port), meter.machine_busy(), meter.cpu_seconds(pids)
        result = load(options.seconds)
        user, kernel = meter.spent(before, meter.cpu_seconds(pids))
        requests = result["requests"]
        result |= {
            "user": user / requests,
            "kernel": kernel / requests,
            "cpu": (user + kernel) / requests,
            "utilisation": (user + kernel) / result["took"],
            # all that was busy, less one core of load and origin at most, less the proxy: somebody else's work
            "others": max(0.0, (meter.machine_busy() - busy - user - kernel) / result["took"] - 1.0),
            "resident_kib": meter.resident_kib(pids),
            "upstream_connections": (accepted(origin_port) - opened) / requests,
        }
        if mode == "log":
            result |= logged(folder)
        if options.strace:
            with meter.traced(pids, folder) as calls:
                traced = load(2)["requests"]
            result["calls"] = {call: count / traced for call, count in calls.most_common() if count / traced >= 0.005}
        if options.perf:
            under_load = threading.Thread(target=load, args=(4,))
            under_load.start()
            result["profile"] = meter.profile(pids, 3, folder)
            under_load.join()
    for log in folder.glob("*.log"):
        if log.stat().st_size > 1 << 20:
            log.unlink()
    return result


def median(turns, key):
    return statistics.median(turn[key] for turn in turns)


def logged(folder):
    """How much a peer has logged, and whether its first line is what was asked for."""
    logs = [path for path in (folder / "access.log", folder / "stdout.log") if path.is_file() and path.stat().st_size]
    if not logs:
        return {"log_bytes": 0, "log_line": ""}
    with logs[0].open() as lines:
        return {"log_bytes": logs[0].stat().st_size, "log_line": lines.readline()}


def is_json(line):
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def undisturbed_turn(name, *scenario, patience):
    """A turn that other work on the machine left alone, or the least disturbed one when patience ends."""
    turns = []
    for _ in range(patience + 1):
        turns.append(turn(name, *scenario))
        if turns[-1]["others"] <= DISTURBED:
            break
    return min(turns, key=lambda turn: turn["others"])


def table(size, mode, of_peer):
    """A scenario as Markdown: medians over the rounds, CPU with its range, ratios to the best of nginx and HAProxy, and to Envoy."""
    cpu = {name: median(turns, "cpu") for name, turns in of_peer.items()}
    best = min((cpu[name] for name in ("nginx", "haproxy") if name in cpu), default=None)
    lines = [
        f"#### {size}, {MODES[mode]}",
        "",
        "| proxy | CPU µs/request (range) | user | kernel | busy | req/s | p50 ms | p99 ms | RSS MiB | × best of nginx, HAProxy | × Envoy |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, turns in of_peer.items():
        low, high = (bound(turn["cpu"] for turn in turns) * 1e6 for bound in (min, max))
        ratios = [f"{cpu[name] / other:.2f}" if other else "" for other in (best, cpu.get("envoy"))]
        cells = [
            name,
            f"**{cpu[name] * 1e6:.1f}** ({low:.1f}–{high:.1f})",
            f"{median(turns, 'user') * 1e6:.1f}",
            f"{median(turns, 'kernel') * 1e6:.1f}",
            f"{median(turns, 'utilisation'):.0%}",
            f"{median(turns, 'per_second'):.0f}",
            f"{median(turns, 'p50') * 1e3:.2f}",
            f"{median(turns, 'p99') * 1e3:.2f}",
            f"{median(turns, 'resident_kib') / 1024:.1f}",
            *ratios,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for name, turns in of_peer.items():
        if calls := turns[-1].get("calls"):
            counted = ", ".join(f"{call} {count:.2f}" for call, count in calls.items())
            lines += [f"System calls per request, {name}: {sum(calls.values()):.2f} ({counted})", ""]
        if profile := turns[-1].get("profile"):
            lines += [f"Hottest symbols, {name}:", "```", profile, "```", ""]
    return lines


def doubts(results):
    """What a reader must know before believing the figures."""
    for size, mode, name, turns in results:
        where = f"{name}, {size}, {MODES[mode]}"
        for turn in turns:
            if turn["errors"]:
                yield f"{where}: {turn['errors']}"
            if turn["upstream_connections"] > 0.01:
                yield f"{where}: {turn['upstream_connections']:.2f} new upstream connections per request: keep-alive does not work"
            if mode == "log" and turn["log_bytes"] < turn["requests"] * 100:
                yield f"{where}: {turn['log_bytes']} bytes of log for {turn['requests']} requests"
            if mode == "log" and not is_json(turn["log_line"]):
                yield f"{where}: a line of the log is not JSON: {turn['log_line'].strip()}"
    others = [turn["others"] for *_, turns in results for turn in turns]
    disturbed = sum(share > DISTURBED for share in others)
    if disturbed:
        yield f"{disturbed} of {len(others)} turns were disturbed: other work took up to {max(others):.0%} of a core"


def version(name, binary):
    flag = {"nginx": "-v", "haproxy": "-v"}.get(name, "--version")
    program = str(binary) if name.startswith("ours") else peers.find(name)
    done = subprocess.run([program, flag], check=False, capture_output=True, text=True, timeout=10)
    said = (done.stdout + done.stderr).strip().splitlines()
    return said[0].replace(str(program), "").strip(" :") if said else "unknown"


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    for program in ("wrk", "nginx", "taskset"):
        if not peers.find(program):
            sys.exit(f"{program} is missing, and without it nothing can be measured (make load installs it)")
    absent = {name: why for name in options.only if (why := peers.missing(name, options.binary))}
    for name, why in absent.items():
        print(f"skipped: {name}: {why}", file=sys.stderr)
    present = [name for name in options.only if name not in absent]
    if not present:
        sys.exit("nobody is left to measure")

    options.out.mkdir(parents=True, exist_ok=True)
    collected = {}
    with tempfile.TemporaryDirectory(prefix="turns-", dir=options.out) as work:
        work = Path(work)
        origin_folder = work / "origin"
        origin_folder.mkdir()
        (origin_port,) = meter.free_ports(1)
        with meter.running(peers.origin_command(origin_folder, origin_port), options.load_core, origin_folder) as origin:
            for size in peers.BODIES:
                wait_until_it_answers(origin, origin_port, size, origin_folder)
            for round_ in range(options.rounds):
                for size in options.sizes:
                    for mode in options.modes:
                        for name in present:
                            result = undisturbed_turn(name, size, mode, options, work, origin_port, patience=options.patience)
                            collected.setdefault((size, mode), {}).setdefault(name, []).append(result)
                            print(
                                f"round {round_ + 1}/{options.rounds}  {size:>5}  {mode:<3}  {name:<7}"
                                f"  {result['cpu'] * 1e6:6.1f} µs/request  {result['per_second']:8.0f} req/s  {result['errors']}",
                                file=sys.stderr,
                            )

    results = [(size, mode, name, turns) for (size, mode), of_peer in collected.items() for name, turns in of_peer.items()]
    command = shlex.join(["python3", "bench/load/run.py", *sys.argv[1:]])
    versions = {name: version(name, options.binary) for name in present}
    lines = [f"`{command}` on {time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Linux {platform.release()}", ""]
    lines += [f"- {name}: {said}" for name, said in versions.items()]
    lines += [f"- {name}: skipped: {why}" for name, why in absent.items()]
    lines += [f"- **doubt**: {doubt}" for doubt in dict.fromkeys(doubts(results))]
    lines.append("")
    for (size, mode), of_peer in collected.items():
        lines += table(size, mode, of_peer)
    text = "\n".join(lines)
    print(text)
    (options.out / "results.md").write_text(text)
    record = [{"size": size, "mode": mode, "peer": name, "turns": turns} for size, mode, name, turns in results]
    document = {"command": command, "versions": versions, "skipped": absent, "results": record}
    (options.out / "results.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
