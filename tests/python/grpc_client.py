"""Calls all four kinds through the gateway and prints "ok". Arguments: address, authority's certificate for TLS."""

import queue
import sys

import grpc

PATIENCE = 20
OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.ssl_target_name_override", "localhost"))


def connect():
    target = "ipv4:" + sys.argv[1]
    if len(sys.argv) > 2:
        with open(sys.argv[2], "rb") as authority:
            credentials = grpc.ssl_channel_credentials(authority.read())
        return grpc.secure_channel(target, credentials, OPTIONS)
    return grpc.insecure_channel(target, OPTIONS)


def expect(actual, expected):
    assert actual == expected, f"{actual!r} and not {expected!r}"


def fails(call, code, detail=None):
    try:
        call()
    except grpc.RpcError as error:
        expect(error.code(), code)
        if detail is not None:
            expect(error.details(), detail)
        return error
    raise AssertionError(f"the call succeeded: {code} was expected")


def unary(channel):
    call = channel.unary_unary("/test.Echo/Unary")
    response, done = call.with_call(b"hello", metadata=(("x-prefix", "<"),), timeout=PATIENCE)
    expect(response, b"<hello")
    expect(dict(done.initial_metadata())["x-initial"], "one")
    expect(dict(done.trailing_metadata())["x-trailing"], "two")
    expect(dict(done.trailing_metadata())["x-binary-bin"], b"\x00\xff")
    expect(call(b"", timeout=PATIENCE), b"")
    large = bytes(range(256)) * 8192
    expect(call(large, timeout=PATIENCE), large)
    error = fails(lambda: call(b"fail", timeout=PATIENCE), grpc.StatusCode.NOT_FOUND, "no such thing: ü")
    expect(dict(error.trailing_metadata())["x-trailing"], "two")
    fails(lambda: call(b"hang", timeout=0.5), grpc.StatusCode.DEADLINE_EXCEEDED)
    hanging = call.future(b"hang", timeout=PATIENCE)
    hanging.cancel()
    expect(hanging.cancelled(), True)


def streams(channel):
    call = channel.unary_stream("/test.Echo/ServerStream")(b"100", timeout=PATIENCE)
    expect([int(message) for message in call], list(range(100)))
    expect(dict(call.trailing_metadata())["x-count"], "100")
    call = channel.stream_unary("/test.Echo/ClientStream")
    expect(call((b"x" * 1000 for _ in range(100)), timeout=PATIENCE), b"100000")
    expect(call(iter(()), timeout=PATIENCE), b"0")


def both(channel):
    # each message is sent after the answer to the one before: nothing on the way may hold one back
    messages = queue.SimpleQueue()
    call = channel.stream_stream("/test.Echo/Both")(iter(messages.get, None), timeout=PATIENCE)
    for number in range(50):
        messages.put(b"%d" % number)
        expect(next(call), b"%d" % number)
    messages.put(None)
    expect(list(call), [])
    expect(call.code(), grpc.StatusCode.OK)

    messages = queue.SimpleQueue()
    call = channel.stream_stream("/test.Echo/Both")(iter(messages.get, None), timeout=PATIENCE)
    messages.put(b"one")
    expect(next(call), b"one")
    messages.put(b"fail")
    fails(lambda: next(call), grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
    messages.put(None)


def unknown(channel):
    # the server says so, by a response of trailers alone
    fails(lambda: channel.unary_unary("/test.Echo/Nothing")(b"", timeout=PATIENCE), grpc.StatusCode.UNIMPLEMENTED)
    # the gateway says so: gRPC reads UNIMPLEMENTED from a 404
    fails(lambda: channel.unary_unary("/nowhere.Echo/Unary")(b"", timeout=PATIENCE), grpc.StatusCode.UNIMPLEMENTED)


def main():
    with connect() as channel:
        unary(channel)
        streams(channel)
        both(channel)
        unknown(channel)
    print("ok")


if __name__ == "__main__":
    main()
