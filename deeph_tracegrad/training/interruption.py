"""Ending a training between two batches when the user or the queue asks for it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from deeph_tracegrad.parallel import world


class Interruption:
    """Notes a signal, so that the loop can stop where its state is whole."""

    def __init__(self) -> None:
        self._number = 0

    def on_any_rank(self) -> int:
        """The signal by which any rank was asked to stop, or 0; all ranks must call it together."""
        return max(world().gather(self._number))

    def request(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  a handler's signature
        """Ask for the stop. The second Ctrl-C does not wait."""
        if self._number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._number = number


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Take SIGINT (Ctrl-C) and SIGTERM (the end of a queue's time) as requests while the block runs."""
    request = Interruption()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield request
        return
    earlier = {number: signal.signal(number, request.request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
