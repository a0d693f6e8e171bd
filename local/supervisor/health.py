"""Whether a service answers."""

from __future__ import annotations

import asyncio

from local.ports import HOST


async def answers(port: int, path: str, seconds: float) -> bool:
    """Whether a path is answered with 200 within some seconds."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n"
                writer.write(request.encode())
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return status.split()[1:2] == [b"200"]


def is_check(line: str, path: str) -> bool:
    """Whether a line of a log tells of nothing but such a look."""
    return f'"GET {path} HTTP/1.1" 200' in line
