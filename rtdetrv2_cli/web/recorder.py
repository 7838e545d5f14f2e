"""What the button that starts and ends a recording needs of whoever records."""

from typing import Protocol


class Recorder(Protocol):
    """Records all streams while it is on; called from threads of the server, one at a time."""

    @property
    def is_recording(self) -> bool:
        """Whether it is on."""
        ...

    def start(self) -> None:
        """Turns it on; where it is on already, nothing happens.

        Raises:
            RtDetrV2Error: It cannot record.
        """
        ...

    def stop(self) -> None:
        """Turns it off; where it is off already, nothing happens.

        Raises:
            RtDetrV2Error: What was recorded cannot be completed.
        """
        ...
