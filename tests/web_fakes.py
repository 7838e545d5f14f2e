"""Fakes that the tests of the browser view share."""


class FakeRecorder:
    """Remembers what it was told; fails where it is to."""

    def __init__(self) -> None:
        self.is_recording = False
        self.calls: list[str] = []
        self.error: Exception | None = None

    def start(self) -> None:
        self.calls.append("start")
        if self.error is not None:
            raise self.error
        self.is_recording = True

    def stop(self) -> None:
        self.calls.append("stop")
        self.is_recording = False
