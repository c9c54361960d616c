"""A WebSocket server that sends back what comes; prints its port."""

import asyncio

from websockets.asyncio.server import serve


async def echo(websocket):
    async for message in websocket:
        if message == "close":
            await websocket.close(4001, "as you wish")
            return
        if message == "path":
            await websocket.send(websocket.request.path)
        else:
            await websocket.send(message)


async def main():
    # no compression, so that a lost or repeated byte shows as itself
    async with serve(echo, "127.0.0.1", 0, max_size=None, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
