"""The Tk view: a window with the newest picture of every stream, on the main thread.

It draws at its own pace, only what has changed, and on nothing but its own copy of a picture.
"""

import gc
import tkinter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic, perf_counter
from tkinter import font
from typing import Final, Literal

from rtdetrv2_cli.errors import OutputError
from rtdetrv2_cli.media.sink import Annotate
from rtdetrv2_cli.media.window.snapshot import keep_picture
from rtdetrv2_cli.media.window.tiles import Tile, dimmed, drawn, fit, plain, tiles
from rtdetrv2_cli.media.window.view import Seen, View
from rtdetrv2_cli.stream import Background
from rtdetrv2_cli.types import Image, Result, Size, StreamState

_PACE_SECONDS: Final = 1 / 60
"""Between two looks at the streams, at least."""
_REST_SECONDS: Final = 0.1
"""At most: keys are answered after it."""
_TEXT_SECONDS: Final = 0.25
"""Between two changes of the figures: faster ones cannot be read."""
_NOTICE_SECONDS: Final = 2.5
_STEP: Final = 0.05
"""Of the threshold."""
_HIGHEST: Final = 0.95

_BACKGROUND, _PANEL = "#111316", "#1c2026"
_TEXT, _QUIET, _WARNING = "#e6e8eb", "#8f98a3", "#f2b84b"

_LARGEST: Final = Size(800, 1280)
"""Of the window when it opens."""
_SHARE: Final = 0.85
"""Of the screen that it takes at most then."""
_PADDING: Final = 8
_LONGEST: Final = 500
"""Letters of a text that are looked at."""

_WORDS: Final = {
    "opening": "connecting",
    "waiting": "waiting to reconnect",
    "ended": "ended",
    "lost": "lost",
}
"""What is said of a stream in a state, but for one that plays."""

_HELP: Final = (
    ("q, Esc", "quit"),
    ("space", "hold the picture; detection goes on"),
    ("s", "keep a picture of every stream"),
    ("l", "labels on and off"),
    ("+  -", "draw only what scores higher, or more"),
    ("f", "full screen"),
    ("h", "this help"),
)

_Anchor = Literal["nw", "ne", "sw", "se", "center"]

_CONTROL: Final = 0x0004
"""Bit of an event's state."""


@dataclass(frozen=True, slots=True)
class Look:
    """How the window draws.

    Args:
        labelled: What draws with labels.
        bare: What draws without.
        floor: What is detected scores higher than this, so no less can be shown.
        labels: Whether labels are on at first.
        covers: What is found is made unrecognisable: all of it, so neither labels nor threshold
            can be chosen.
    """

    labelled: Annotate
    bare: Annotate
    floor: float
    labels: bool = True
    covers: bool = False


_NO_TILE: Final = Tile(0, 0, 1, 1)
_NOT_SEEN: Final = Seen()


@dataclass(slots=True)
class _Pane:
    """A stream's part of the window: its items on the canvas, and what they show now."""

    state: StreamState
    photo: tkinter.PhotoImage
    picture: int
    name: int
    figures: int
    box: int
    message: int
    tile: Tile = _NO_TILE
    seen: Seen = _NOT_SEEN
    shown: object = None
    """What the picture was drawn from."""


def check_display() -> None:
    """Makes sure that a window can be opened.

    Raises:
        OutputError: there is no display.
    """
    _root().destroy()
    gc.collect()  # see `show`


def show(
    work: Background[object],
    view: View,
    states: Sequence[StreamState],
    look: Look,
    folder: Path,
    leave: Callable[[], object],
) -> None:
    """Opens a window and shows `work` in it until it is over; as `Window` and `Window.follow`.

    Raises:
        OutputError: there is no window; the work has been ended.
    """
    try:
        window = Window(view, states, look, folder)
    except BaseException:
        leave()
        work.result()
        raise
    try:
        window.follow(work, leave)
    finally:
        # Tk ends the process where another thread happens to throw its interpreter away.
        del window
        gc.collect()


def _root() -> tkinter.Tk:
    try:
        root = tkinter.Tk(className="rtdetrv2")
    except tkinter.TclError as error:
        raise OutputError(f"a window needs a display: {error}") from error
    root.withdraw()
    return root


class Window:
    """A window over what a run shows; belongs to the thread that made it, the main one.

    Args:
        view: Where the run puts its results.
        states: How the streams fare, kept up to date by who reads them.
        look: How pictures are drawn.
        folder: Where snapshots go.

    Raises:
        OutputError: there is no display.
    """

    def __init__(self, view: View, states: Sequence[StreamState], look: Look, folder: Path) -> None:
        self._view, self._look, self._folder = view, look, folder
        self._labels, self._threshold = look.labels, look.floor
        self._is_held = self._is_full = self._wants_out = self._shows_help = False
        self._error: BaseException | None = None
        self._notice, self._notice_until, self._texts_due = "", 0.0, 0.0
        self._root = _root()
        self._root.report_callback_exception = self._fail
        self._root.title("rtdetrv2")
        self._root.configure(background=_BACKGROUND)
        self._root.protocol("WM_DELETE_WINDOW", self._leave)
        self._root.bind("<Key>", self._press)
        self._font = font.nametofont("TkDefaultFont", self._root)
        self._line = self._font.metrics("linespace") + _PADDING
        self._canvas = tkinter.Canvas(self._root, background=_BACKGROUND, highlightthickness=0)
        self._canvas.pack(fill="both", expand=True)
        self._canvas.bind("<Configure>", self._arrange)
        self._panes = [self._pane(state) for state in states]
        self._status = self._text("sw", _TEXT)
        self._hint = self._text("se", _QUIET)
        self._help = self._help_items()
        self._keys: dict[str, Callable[[], None]] = {
            **dict.fromkeys(("q", "escape"), self._leave),
            "space": self._hold,
            "s": self._keep,
            **dict.fromkeys(("f", "f11"), self._fill_screen),
            **dict.fromkeys(("h", "question", "f1"), self._toggle_help),
        }
        if not look.covers:
            self._keys |= {
                "l": self._toggle_labels,
                **dict.fromkeys(("plus", "equal", "kp_add"), lambda: self._step(1)),
                **dict.fromkeys(("minus", "underscore", "kp_subtract"), lambda: self._step(-1)),
            }

    def follow(self, work: Background[object], leave: Callable[[], object]) -> None:
        """Shows until `work` is over, and raises what ended it, if an error did.

        Args:
            work: The run that writes into the view.
            leave: Called when the user has had enough; it ends `work`.

        Raises:
            OutputError: the window cannot be shown any more; the work has been ended.
        """
        try:
            self._open()
            self._pump(work, leave)
        except tkinter.TclError as error:
            raise OutputError(f"the window has failed: {error}") from error
        finally:
            leave()
            try:
                work.result()
            finally:
                self.close()

    def close(self) -> None:
        """Takes the window away; a second call does nothing."""
        for pane in self._panes:
            del pane.photo
        self._panes.clear()
        try:
            self._root.destroy()
        except tkinter.TclError:  # it is gone already
            return

    def _pump(self, work: Background[object], leave: Callable[[], object]) -> None:
        spent, is_leaving = 0.0, False
        # As long again as drawing took: a slow display leaves half the time to the run.
        while not work.over.wait(min(max(_PACE_SECONDS, spent), _REST_SECONDS)):
            start = perf_counter()
            self._root.update()
            if self._error is not None:
                raise self._error
            if self._wants_out and not is_leaving:
                is_leaving = True
                self._root.withdraw()
                leave()
            if not is_leaving:
                self._refresh()
            spent = perf_counter() - start

    def _open(self) -> None:
        root = self._root
        width = min(_LARGEST.width, int(root.winfo_screenwidth() * _SHARE))
        height = min(_LARGEST.height, int(root.winfo_screenheight() * _SHARE))
        root.geometry(f"{width}x{height}")
        root.minsize(240, 160)
        root.deiconify()
        root.focus_force()

    # items

    def _pane(self, state: StreamState) -> _Pane:
        canvas = self._canvas
        photo = tkinter.PhotoImage(master=self._root, width=1, height=1)
        picture = canvas.create_image(0, 0, image=photo, anchor="center")
        box = canvas.create_rectangle(0, 0, 0, 0, fill=_PANEL, outline="")
        message = self._text("center", _TEXT)
        canvas.itemconfigure(message, justify="center")
        return _Pane(
            state, photo, picture, self._text("nw", _TEXT), self._text("ne", _QUIET), box, message
        )

    def _text(self, anchor: _Anchor, colour: str) -> int:
        return self._canvas.create_text(0, 0, anchor=anchor, fill=colour, font=self._font)

    def _help_items(self) -> tuple[int, int, int]:
        box = self._canvas.create_rectangle(0, 0, 0, 0, fill=_PANEL, outline=_QUIET)
        known = [row for row in _HELP if not (self._look.covers and row[0] in ("l", "+  -"))]
        keys, meanings = self._text("nw", _WARNING), self._text("nw", _TEXT)
        self._canvas.itemconfigure(keys, text="\n".join(key for key, _ in known))
        self._canvas.itemconfigure(meanings, text="\n".join(meaning for _, meaning in known))
        for item in (box, keys, meanings):
            self._canvas.itemconfigure(item, state="hidden")
        return box, keys, meanings

    def _arrange(self, event: "tkinter.Event[tkinter.Canvas]") -> None:
        """Places everything anew in a window of another size."""
        width, height = event.width, event.height
        area = Size(max(1, height - self._line), width)
        places = tiles(len(self._panes), area, self._line)
        for pane, tile in zip(self._panes, places, strict=True):
            pane.tile = tile
            middle, bottom = tile.left + tile.width // 2, tile.top + tile.height - self._line
            self._canvas.coords(pane.picture, middle, tile.top + (bottom - tile.top) // 2)
            self._canvas.coords(pane.message, middle, tile.top + (bottom - tile.top) // 2)
            self._canvas.coords(pane.name, tile.left + _PADDING, bottom + _PADDING // 2)
            right = tile.left + tile.width - _PADDING
            self._canvas.coords(pane.figures, right, bottom + _PADDING // 2)
        self._canvas.coords(self._status, _PADDING, height - _PADDING // 2)
        self._canvas.coords(self._hint, width - _PADDING, height - _PADDING // 2)
        self._place_help(width, height)
        self._texts_due = 0.0

    def _place_help(self, width: int, height: int) -> None:
        box, keys, meanings = self._help
        first = max(self._font.measure(key) for key, _ in _HELP) + 2 * _PADDING
        second = max(self._font.measure(meaning) for _, meaning in _HELP)
        lines = self._font.metrics("linespace") * len(_HELP)
        left, top = (width - first - second) // 2, (height - lines) // 2
        self._canvas.coords(keys, left, top)
        self._canvas.coords(meanings, left + first, top)
        edge = 2 * _PADDING
        corners = (left - edge, top - edge, left + first + second + edge, top + lines + edge)
        self._canvas.coords(box, *corners)

    # drawing

    def _refresh(self) -> None:
        now = monotonic()
        tells = now >= self._texts_due
        if tells:
            self._texts_due = now + _TEXT_SECONDS
            self._tell_status(now)
        for pane in self._panes:
            latest = self._view.look(pane.state.stream)
            if not self._is_held:
                pane.seen = latest
            self._show(pane)
            if tells:
                self._tell(pane, latest)

    def _show(self, pane: _Pane) -> None:
        """Draws the picture again if it, its place or the settings are others than before."""
        result = pane.seen.result
        if result is None:
            return
        area = Size(max(1, pane.tile.height - self._line), pane.tile.width)
        size = fit(result.frame.size, area)
        is_old = pane.state.state in _WORDS
        wanted = (pane.seen.number, size, self._labels, self._threshold, is_old)
        if wanted == pane.shown:
            return
        pane.shown = wanted
        image = self._drawn(result, size)
        image = dimmed(image) if is_old else image
        header = b"P6 %d %d 255 " % (size.width, size.height)
        pane.photo.configure(width=size.width, height=size.height, data=header + image.tobytes())

    def _drawn(self, result: Result, size: Size) -> Image:
        annotate = self._look.labelled if self._labels else self._look.bare
        return drawn(result, size, annotate, None if self._look.covers else self._threshold)

    def _tell(self, pane: _Pane, latest: Seen) -> None:
        """Name and figures below the picture, and over it what keeps the stream from playing."""
        state, width = pane.state, pane.tile.width - 2 * _PADDING
        figures = [f"{latest.fps:.1f} fps"] if latest.result is not None else []
        figures += [f"lag {latest.lag:.2f} s"] if latest.lag is not None else []
        figures += [f"{state.dropped:,} dropped"]
        told = "   ".join(figures)
        if self._font.measure(told) > width * 0.6:
            told = figures[0]
        room = width - self._font.measure(told) - 2 * _PADDING
        is_well = state.state not in _WORDS
        self._canvas.itemconfigure(pane.figures, text=told)
        self._canvas.itemconfigure(
            pane.name,
            text=self._shortened(plain(state.source), room),
            fill=_TEXT if is_well else _QUIET if state.state == "ended" else _WARNING,
        )
        message = "" if is_well else _WORDS[state.state]
        if message and latest.told:
            message += "\n" + self._shortened(plain(latest.told), width - 4 * _PADDING, first=True)
        self._canvas.itemconfigure(pane.message, text=message)
        corners = self._canvas.bbox(pane.message) if message else None
        left, top, right, bottom = corners or (0, 0, 0, 0)
        edge = _PADDING if corners else 0
        self._canvas.coords(pane.box, left - edge, top - edge, right + edge, bottom + edge)

    def _tell_status(self, now: float) -> None:
        status = self._notice if now < self._notice_until else self._settings
        room = self._canvas.winfo_width() - 2 * _PADDING - self._font.measure("h help") - _PADDING
        self._canvas.itemconfigure(self._status, text=self._shortened(status, room))
        self._canvas.itemconfigure(self._hint, text="h help")

    @property
    def _settings(self) -> str:
        parts = ["held: space goes on"] if self._is_held else []
        if not self._look.covers:
            parts += [f"above {self._threshold:.2f}"]
            parts += [] if self._labels else ["labels off"]
        return "   ".join(parts)

    def _shortened(self, text: str, room: int, *, first: bool = False) -> str:
        """What there is room for: the end, which tells cameras apart, or the first of a text."""
        text = text[:_LONGEST] if first else text[-_LONGEST:]
        if self._font.measure(text) <= room:
            return text
        while text and self._font.measure(f"{text}...") > room:
            cut = max(1, len(text) // 10)
            text = text[:-cut] if first else text[cut:]
        return f"{text}..." if first else f"...{text}"

    # keys

    def _press(self, event: "tkinter.Event[tkinter.Misc]") -> None:
        action = self._keys.get(event.keysym.lower())
        if action is not None and not int(event.state) & _CONTROL:
            action()
            self._texts_due = 0.0

    def _leave(self) -> None:
        self._wants_out = True

    def _fail(self, _: object, error: BaseException, __: object) -> None:
        """Of what Tk has called: raised where the window is pumped."""
        self._error = error

    def _hold(self) -> None:
        self._is_held = not self._is_held

    def _toggle_labels(self) -> None:
        self._labels = not self._labels
        self._say("labels on" if self._labels else "labels off")

    def _step(self, direction: int) -> None:
        """To the next multiple of the step, within what is detected at all."""
        place = round(self._threshold / _STEP, 3)
        steps = int(place) + 1 if direction > 0 else -(-place // 1) - 1
        wanted = min(_HIGHEST, round(steps * _STEP, 2))
        self._threshold = max(self._look.floor, wanted)
        least = "" if self._threshold > self._look.floor else ": less is not detected (--conf)"
        self._say(f"drawn above {self._threshold:.2f}{least}")

    def _fill_screen(self) -> None:
        self._is_full = not self._is_full
        self._root.attributes("-fullscreen", self._is_full)

    def _toggle_help(self) -> None:
        self._shows_help = not self._shows_help
        for item in self._help:
            state = "normal" if self._shows_help else "hidden"
            self._canvas.itemconfigure(item, state=state)
            self._canvas.tag_raise(item)

    def _keep(self) -> None:
        """Writes the pictures that are shown, at their own size."""
        results = [pane.seen.result for pane in self._panes if pane.seen.result is not None]
        try:
            kept = [self._kept(result) for result in results]
        except OutputError as error:
            self._say(plain(str(error)))
            return
        more = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
        self._say(plain(f"kept {kept[0]}{more}") if kept else "nothing to keep yet")

    def _kept(self, result: Result) -> Path:
        frame = result.frame
        when = datetime.fromtimestamp(frame.arrival.wall) if frame.arrival else datetime.now()
        return keep_picture(self._drawn(result, frame.size), frame.source.name, self._folder, when)

    def _say(self, notice: str) -> None:
        self._notice, self._notice_until = notice, monotonic() + _NOTICE_SECONDS
