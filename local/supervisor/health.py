"""Whether a service answers."""

from __future__ import annotations

import asyncio

from local.ports import HOST
from local.services import Service


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


def is_check(line: str, service: Service) -> bool:
    """Whether a line of a service's log shows nothing but such a check.

    That the service is not ready yet is an expected answer, given at each check until what the
    service needs answers; the supervisor's own log has the change.
    """
    expected = [(service.health, 200), (service.ready, 200)]
    if service.readiness:
        expected.append((service.readiness, 503))
    return any(f'"GET {path} HTTP/1.1" {status}' in line for path, status in expected)
