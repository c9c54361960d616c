"""Talks to the echo server through the gateway and prints "ok". Arguments: URL, authority's certificate for TLS."""

import ssl
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

PATIENCE = 20


def main():
    settings = {"max_size": None, "open_timeout": PATIENCE, "proxy": None}
    if len(sys.argv) > 2:
        settings["ssl"] = ssl.create_default_context(cafile=sys.argv[2])
        settings["server_hostname"] = "localhost"
    large = bytes(range(256)) * 8192
    with connect(sys.argv[1] + "?room=1", **settings) as websocket:
        for message in ["hello", "ünïcode", "", b"\x00\xff", large, "x" * 200_000]:
            websocket.send(message)
            answer = websocket.recv(timeout=PATIENCE)
            assert answer == message, f"{len(answer)} and not {len(message)}"
        websocket.send(iter(["in ", "three ", "frames"]))
        assert websocket.recv(timeout=PATIENCE) == "in three frames"
        websocket.send("path")
        assert websocket.recv(timeout=PATIENCE) == "/chat?room=1"
        assert websocket.ping().wait(PATIENCE), "no pong"
        websocket.send("close")
        try:
            websocket.recv(timeout=PATIENCE)
            raise AssertionError("the server did not close")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as you wish"), closed
    print("ok")


if __name__ == "__main__":
    main()
