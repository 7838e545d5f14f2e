"""What `--show` adds to a run: a sink, and the window on the main thread. Imports Tk late."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetrv2_cli.cli.plan import Plan
from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.look import Styles
from rtdetrv2_cli.media.source import LiveSource
from rtdetrv2_cli.media.window.view import View
from rtdetrv2_cli.stream import background

if TYPE_CHECKING:
    from rtdetrv2_cli.media.draw import ColorBy
    from rtdetrv2_cli.media.look import Palette

_TK = (
    "apt install python3-tk (Debian, Ubuntu), dnf install python3-tkinter (Fedora), "
    "brew install python-tk (macOS)"
)
_INSTEAD = "or leave out --show: --serve 8000 shows it in a browser, -o FOLDER writes it"


def check_window() -> None:
    """Makes sure that a window can be opened before anything heavy is loaded.

    Raises:
        OutputError: no Tk, or no display; says what helps.
    """
    try:
        from rtdetrv2_cli.media.window.window import check_display
    except ImportError as error:
        if (error.name or "") not in ("tkinter", "_tkinter"):
            raise
        raise OutputError(
            f"--show needs Tk, which this Python comes without: {_TK}; {_INSTEAD}"
        ) from error
    try:
        check_display()
    except OutputError as error:
        raise OutputError(
            f"--show: {error}; run it on a desktop, or over ssh -X; {_INSTEAD}"
        ) from error


class Showing:
    """A window over a run.

    Args:
        source: What the run reads.
        plan: Of the run; snapshots go where its outputs go.
        labels: Class names by class id.
        floor: What is detected scores higher.
        show_labels: Whether labels are on at first.
        show_confidence: Whether labels have scores.
        line_width: Pixels; None: by the size of the picture.
        style: How objects are marked.
        palette: Of what colours.
        color_by: What has a colour of its own.
    """

    def __init__(
        self,
        source: LiveSource,
        plan: Plan,
        labels: Sequence[str],
        *,
        floor: float,
        show_labels: bool,
        show_confidence: bool,
        line_width: int | None,
        style: str,
        palette: "Palette",
        color_by: "ColorBy",
    ) -> None:
        from rtdetrv2_cli.media.draw import Annotator  # 0.85 s: supervision
        from rtdetrv2_cli.media.window.window import Look

        def annotator(show_labels: bool) -> Annotator:
            return Annotator(
                labels,
                show_labels=show_labels,
                show_confidence=show_confidence,
                line_width=line_width,
                style=style,
                palette=palette,
                color_by=color_by,
            )

        covers = Styles.parse(style).covers
        self.sink = View()
        self._source = source
        self._look = Look(annotator(True), annotator(False), floor, show_labels, covers)
        self._folder = plan.place.parent if plan.place and not plan.in_folder else plan.place

    def through(self, work: Callable[[], object]) -> None:
        """Does `work`, the run, on a thread, and shows it in this one until it is over.

        Raises:
            OutputError: there is no window any more.
        """
        from rtdetrv2_cli.media.window.window import show

        show(
            background(work),
            self.sink,
            self._source.states,
            self._look,
            self._folder or Path(),
            self._source.stop,
        )
