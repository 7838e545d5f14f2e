"""How what is found is marked: styles, of all or by class, and palettes. Knows no picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal, Self, get_args

from rtdetrv2_cli.errors import UsageError

Outline = Literal["box", "corner", "round"]
Cover = Literal["blur", "pixelate"]
Style = Literal[Outline, Cover]
Palette = Literal["okabe-ito", "vivid"]

OUTLINES: Final[tuple[Outline, ...]] = get_args(Outline)
COVERS: Final[tuple[Cover, ...]] = get_args(Cover)
STYLES: Final[tuple[Style, ...]] = (*OUTLINES, *COVERS)

PALETTES: Final[Mapping[Palette, tuple[str, ...]]] = {
    "okabe-ito": (*("#d55e00", "#56b4e9", "#f0e442", "#0072b2", "#009e73", "#cc79a7", "#e69f00"),),
    "vivid": (
        *("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4", "#f032e6"),
        *("#bfef45", "#ffe119", "#469990", "#9a6324", "#dcbeff", "#800000", "#aaffc3"),
        *("#808000", "#fabed4", "#000075", "#ffd8b1", "#a9a9a9", "#fffac8"),
    ),
}
"""One colour for each class or track in turn, far apart for neighbours. Okabe's and Ito's, which
can be told apart with any kind of colour vision (https://jfly.uni-koeln.de/color/), without black;
or more of them."""


@dataclass(frozen=True, slots=True)
class Styles:
    """How each class is marked."""

    usual: Style
    by_class: Mapping[str | int, Style]
    """By name or id; `usual` are all others."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `blur`, `person=blur,car=corner` or `corner,person=blur` says.

        Raises:
            UsageError: There is no such style, or two for the same.
        """
        styles: dict[str | int, Style] = {}
        for word in text.split(","):
            name, equals, style = word.rpartition("=")
            name = name.strip()
            if equals and not name:
                raise UsageError(f"{word.strip()!r} names no class: write person=blur")
            chosen = _known(style.strip())
            if name in styles:
                raise UsageError(f"two styles for {name or 'all'}: {text}")
            styles[name] = chosen
        return cls(styles.pop("", "box"), styles)

    @property
    def covers(self) -> bool:
        """Whether anything is made unrecognisable."""
        return any(style in COVERS for style in self._all)

    @property
    def draws(self) -> bool:
        """Whether anything is drawn around."""
        return any(style in OUTLINES for style in self._all)

    @property
    def _all(self) -> tuple[Style, ...]:
        return self.usual, *self.by_class.values()


def _known(style: str) -> Style:
    if style in STYLES:
        return style
    near = get_close_matches(style, STYLES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(STYLES)}"
    raise UsageError(f"no style {style!r}: {hint}")
