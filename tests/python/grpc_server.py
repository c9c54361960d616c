"""A gRPC server of all four kinds of calls; prints its port. Arguments: certificate and key, for TLS."""

import sys
from concurrent import futures

import grpc


def unary(request, context):
    context.send_initial_metadata((("x-initial", "one"),))
    context.set_trailing_metadata((("x-trailing", "two"), ("x-binary-bin", b"\x00\xff")))
    if request == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ü")
    if request == b"hang":
        ended = futures.Future()
        if not context.add_callback(lambda: ended.set_result(None)):
            return b""
        ended.result(timeout=20)
        return b""
    return dict(context.invocation_metadata()).get("x-prefix", "").encode() + request


def server_stream(request, context):
    for number in range(int(request)):
        yield b"%d" % number
    context.set_trailing_metadata((("x-count", request.decode()),))


def client_stream(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        if request == b"fail":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
        yield request


def main():
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    if len(sys.argv) > 2:
        with open(sys.argv[1], "rb") as chain, open(sys.argv[2], "rb") as key:
            credentials = grpc.ssl_server_credentials(((key.read(), chain.read()),))
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
