from typing import get_args

import pytest
from typer import BadParameter

from rtdetrv2_cli.cli import options
from rtdetrv2_cli.infer.engine import DTYPES, ENGINES
from rtdetrv2_cli.media import encoders, look


def test_help_offers_what_there_is():
    assert {*get_args(options.Engine)} == {"auto", *ENGINES}
    assert {*get_args(options.Dtype)} == {"auto", *DTYPES}
    assert get_args(options.Palette) == get_args(look.Palette) == tuple(look.PALETTES)
    assert {*get_args(options.VideoCodec)} == {*encoders.ENCODERS}
    assert get_args(options.Preset) == encoders._PRESETS


def test_help_of_detect_shows_every_option_once_in_a_panel(cli):
    shown = cli("detect", "--help")
    assert shown.code == 0
    panels = ("Input", "Model", "Filter", "Output", "Existing files", "Errors", "Look", "Run")
    for panel in panels:
        assert f"─ {panel} ─" in shown.out
    options_panel = shown.out.partition("─ Options ─")[2].partition("─ Input ─")[0]
    assert options_panel.count("--") == 1  # all but --help have a panel of their own
    assert "--max-det" in shown.out
    assert "--max_det" not in shown.out
    assert "(the model's own)" in shown.out
    assert "rtdetrv2 detect clip.mp4 -o out.mp4" in shown.out


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("0", 0), ("12.5", 12.5), (".5", 0.5), ("7.", 7), ("90", 90), ("1:30", 90)),
        *(("0:01.25", 1.25), ("90:00", 5400), ("01:02:03.5", 3723.5), ("100:00:00", 360000)),
    ],
)
def test_times_are_read(text, seconds):
    assert options.parse_time(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1e3",
        "nan",
        "1:",
        ":30",
        "1:60",
        "1:60:00",
        "1:2:3:4",
        "1.5:00",
        "1:-5",
        "x",
    ],
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(BadParameter, match="is not a time"):
        options.parse_time(text)
