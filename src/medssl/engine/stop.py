"""Ctrl-C and SIGTERM ask a run to stop; it finishes the step and saves first."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from medssl import distributed


class Stop:
    """While entered, the first SIGINT or SIGTERM sets ``requested``; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Only the main thread may set handlers; elsewhere (a job of a study) the parent decides.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def due(self, agreed: bool = True) -> bool:
        """True once the run should end. Several ranks must end at the same step: they agree on it where ``agreed``."""
        if not distributed.active():
            return self.requested
        return agreed and distributed.anywhere(self.requested)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
