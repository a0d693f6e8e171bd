"""Health checks of services."""

from __future__ import annotations

import asyncio

from local.ports import HOST
from local.services import Service


async def answers(port: int, path: str, seconds: float) -> bool:
    """Return True if a path returns 200 within a number of seconds."""
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
    """Return True if a line of a service's log only shows a health check.

    A response of "not ready" is expected until the parts that the service needs answer; the
    supervisor's own log shows the change.
    """
    expected = [(service.health, 200), (service.ready, 200)]
    if service.readiness:
        expected.append((service.readiness, 503))
    return any(f'"GET {path} HTTP/1.1" {status}' in line for path, status in expected)
