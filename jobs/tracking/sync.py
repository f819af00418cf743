"""Upload a training's events while it trains.

The libraries that talk to the server take seconds to import. They are imported in the thread, after the first event.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.runs.events import Event, read_log
from jobs.runs.folder import RunFolder
from jobs.tracking.queue import exclusive

if TYPE_CHECKING:
    from jobs.tracking.delivery import RunUpload

log = logging.getLogger(__name__)

END_SECONDS = 300.0  # the longest that a finished training waits for its upload
STOP_SECONDS = 5.0  # the longest that a training waits for its upload after a failure or a signal
_PAUSE_SECONDS = 1.0
_RETRY_SECONDS = 5.0


class TrackingSync:
    """Upload a training's events while it trains, and the rest at its end, in a thread. Use it with `with`.

    At the end of the block, the trainings that wait in `undelivered` are delivered, then this one. After an error only
    the run's status is set: SCHEDULED for one of `resumable`, since the next start continues the training; FAILED for
    any other. The end waits for the thread END_SECONDS at most, after an error STOP_SECONDS.

    storage: folder of the training.
    undelivered: folder of the trainings that wait for the server.
    on_event: called in the thread with every event of the log, delivered or not.
    on_warning: called in the thread with every warning that the log got since this start.
    resumable: errors after which the training will be continued.

    delivered: whether everything of this training is on the server. Read it after the block.
    problem: why not, in one line.
    """

    def __init__(
        self,
        storage: Path,
        undelivered: Path,
        *,
        on_event: Callable[[Event], None] = lambda event: None,
        on_warning: Callable[[str], None] = lambda text: None,
        resumable: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit),
    ) -> None:
        self.storage = storage
        self.undelivered = undelivered
        self.on_event = on_event
        self.on_warning = on_warning
        self.resumable = resumable
        self.delivered = False
        self.problem = f"the tracking server took more than {END_SECONDS:.0f} s"
        self._upload: RunUpload | None = None  # None before the first connection and after an error
        self._offset = 0  # of the log, in bytes: events before it were read
        log_file = storage / RunFolder.EVENTS
        self._old_size = (
            log_file.stat().st_size if log_file.is_file() else 0
        )  # warnings before it are of earlier starts
        self._unsent: list[Event] = []
        self._status = "FINISHED"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking-sync", daemon=True)

    def __enter__(self) -> TrackingSync:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._status = "SCHEDULED" if issubclass(kind, self.resumable) else "FAILED"
        self._stop.set()
        self._thread.join(STOP_SECONDS if kind else END_SECONDS)

    def _run(self) -> None:
        self._sync_until_stopped()
        try:
            self._read()
            self._finish()
        except Exception as error:
            self.problem = _reason(error)

    def _sync_until_stopped(self) -> None:
        """Read and send new events again and again. The first of several errors in a row is logged."""
        pause, is_failing = 0.0, False
        while not self._stop.wait(pause):
            try:
                self._read()
                if self._unsent:
                    self._send()
            except Exception as error:  # no error of tracking may stop the training
                if not is_failing:
                    self._warn(error)
                self._upload = None
                pause, is_failing = _RETRY_SECONDS, True
            else:
                pause, is_failing = _PAUSE_SECONDS, False

    def _warn(self, error: Exception) -> None:
        log.warning("tracking: %s; training goes on, and its events are kept in %s", _reason(error), self.storage)

    def _read(self) -> None:
        for entry, offset in read_log(self.storage / RunFolder.EVENTS, offset=self._offset):
            self._offset = offset
            if isinstance(entry, Event):
                self._unsent.append(entry)
                self.on_event(entry)
            elif offset > self._old_size:
                self.on_warning(entry)

    def _send(self) -> None:
        from jobs.tracking.delivery import RunUpload

        if self._upload is None:
            self._upload = RunUpload(self.storage)
        self._upload.send(self._unsent)
        self._unsent.clear()

    def _finish(self) -> None:
        from jobs.tracking.delivery import deliver, deliver_queue
        from jobs.tracking.mlflow_runs import check_server

        check_server()
        if self._status != "FINISHED":
            self._send()
            self._upload.close(self._status)
            return
        with exclusive(self.undelivered):
            deliver_queue(self.undelivered)
            _, problem = deliver(self.storage)
        self.delivered = problem is None
        self.problem = problem or self.problem


def _reason(error: Exception) -> str:
    from jobs.tracking.mlflow_runs import reason

    return reason(error)
