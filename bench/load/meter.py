"""Processes on pinned cores, and what they spent: read from /proc, so that a peer need not cooperate."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path

TICK = 1 / os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


def free_ports(count):
    """Loopback ports that nobody listens on, held open together so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def running(command, core, folder):
    """A process group on one core, killed at the end whatever happens. Its output goes to files in `folder`."""
    with (folder / "stdout.log").open("wb") as out, (folder / "stderr.log").open("wb") as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def family(pid):
    """The process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(stat_fields(entry)[1])
    members, grew = {pid}, True
    while grew:
        more = {child for child, parent in parents.items() if parent in members} - members
        members |= more
        grew = bool(more)
    return sorted(members)


def stat_fields(entry):
    """The fields of a stat file behind the command's name, from the state on (proc(5) counts it as the third)."""
    return (entry / "stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pids):
    """User and kernel time of these processes. The scheduler's own total is exact; ticks only divide it."""
    user = kernel = exact = 0.0
    for pid in pids:
        fields = stat_fields(Path(f"/proc/{pid}"))
        user += int(fields[11]) * TICK
        kernel += int(fields[12]) * TICK
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                exact += int((thread / "schedstat").read_text().split()[0]) / 1e9
    return user, kernel, exact


def spent(before, after):
    """(user, kernel) between two readings."""
    user, kernel, exact = (later - earlier for earlier, later in zip(before, after, strict=True))
    ticks = user + kernel
    if exact <= 0 or ticks <= 0:
        return user, kernel
    return exact * user / ticks, exact * kernel / ticks


def resident_kib(pids):
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KIB for pid in pids)


def machine_busy():
    """Seconds that all cores together were busy since boot, steal included."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) * TICK


UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


def wrk(url, seconds, connections, core):
    """Runs wrk on one core for a bounded time; returns what it counted."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url]
    began = time.monotonic()
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 30).stdout
    took = time.monotonic() - began

    def latency(percent):
        value, unit = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", output, re.M).groups()
        return float(value) * UNITS[unit]

    errors = re.search(r"Socket errors: .*", output)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    return {
        "requests": int(re.search(r"(\d+) requests in", output)[1]),
        "per_second": float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]),
        "p50": latency(50),
        "p99": latency(99),
        "errors": "; ".join(found[0] for found in (errors, refused) if found),
        "took": took,
    }


@contextlib.contextmanager
def traced(pids, folder):
    """Counts system calls while the body runs; the yielded Counter is filled at its end."""
    calls = Counter()
    path = folder / "strace.txt"
    attach = [argument for pid in pids for argument in ("-p", str(pid))]
    process = subprocess.Popen(["strace", "-c", "-f", "-o", str(path), *attach], stderr=subprocess.PIPE, text=True)
    process.stderr.readline()  # "strace: Process N attached": from here on it counts
    try:
        yield calls
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    for line in path.read_text().splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])


def profile(pids, seconds, folder):
    """The hottest symbols by perf's software clock, as text; what perf says when it can't."""
    data = folder / "perf.data"
    record = ["perf", "record", "-e", "cpu-clock", "-F", "997", "-g", "-o", str(data), "-p", ",".join(map(str, pids))]
    record += ["--", "sleep", str(seconds)]
    done = subprocess.run(record, check=False, capture_output=True, text=True, timeout=seconds + 30)
    if done.returncode != 0:
        return done.stderr.strip()
    report = ["perf", "report", "--stdio", "--no-children", "-g", "none", "--percent-limit", "0.7", "-i", str(data)]
    lines = subprocess.run(report, check=False, capture_output=True, text=True, timeout=120).stdout.splitlines()
    return "\n".join(line.rstrip() for line in lines if line.strip() and not line.startswith("#"))
