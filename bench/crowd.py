"""Many clients that each make a call a second."""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Sequence

from tests.helpers.raw_client import RawClient

CONNECT_GET_HOSTNAME = 59
PERIOD = 1.0


def call_by_the_clock(clients: Sequence[RawClient], seconds: float) -> list[float]:
    """Have clients call in turn, spread over each second, and return how long each waited for its reply.

    Args:
        clients: Clients that libvirt has let in.
        seconds: How long they go on.
    """
    call = RawClient.packet(CONNECT_GET_HOSTNAME)
    poller = select.epoll()
    numbers = {}
    for number, client in enumerate(clients):
        poller.register(client.client.fileno(), select.EPOLLIN)
        numbers[client.client.fileno()] = number
    began = time.perf_counter()
    due = [(began + PERIOD * number / len(clients), number) for number in range(len(clients))]
    sent: dict[int, float] = {}
    waits: list[float] = []
    while due or sent:
        now = time.perf_counter()
        while due and due[0][0] <= now:
            at, number = heapq.heappop(due)
            clients[number].client.sendall(call)
            sent[number] = time.perf_counter()
            if at + PERIOD < began + seconds:
                heapq.heappush(due, (at + PERIOD, number))
        timeout = max(0.0, due[0][0] - time.perf_counter()) if due else 60.0
        for fd, _ in poller.poll(timeout):
            clients[numbers[fd]].next()
            waits.append(time.perf_counter() - sent.pop(numbers[fd]))
    poller.close()
    return waits
