"""Damaged files of many kinds: they are read as far as they go, or refused in a sentence."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

FUZZING = Path(__file__).with_name("fuzzing.py")
CLIPS = {
    "h264.mp4": {"codec": "libx264", "sound": "aac"},
    "hevc.mov": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "h264.mkv": {"codec": "libx264", "sound": "aac"},
    "vp9.webm": {"codec": "libvpx-vp9", "sound": "libopus"},
    "av1.mkv": {
        **{"codec": "libsvtav1", "height": 64, "options": {"svtav1-params": "lp=1", "crf": "40"}},
        "setup": lambda video: setattr(video, "bit_rate", 0),
    },
    "mpeg4.avi": {"codec": "mpeg4", "sound": "mp3"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h264.ts": {"codec": "libx264", "sound": "aac"},
    "mpeg2.mpg": {"codec": "mpeg2video", "sound": "mp2"},
    "flv1.flv": {"codec": "flv"},
    "raw.h264": {"codec": "libx264"},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
}
ANIMATIONS = ("a.gif", "a.webp", "a.png", "a.avif")
ENDS = {"read", "decode_failed", "truncated"}
FORGIVING = ("mpeg2.mpg",)
"""Formats that find their way again after any damage, and declare no end."""


@pytest.fixture
def sample(make_clip, make_animation):
    """Makes the small file of that name."""

    def make(name):
        if name in ANIMATIONS:
            return make_animation(name, delays=(40,) * 8)
        return make_clip(name, 20, **CLIPS[name])

    return make


def endings(path, first, count):
    """How often reading damaged copies of a file ended in which way."""
    done = subprocess.run(
        [sys.executable, FUZZING, str(path), str(first), str(count)],
        capture_output=True,
        text=True,
        timeout=60 * count,
    )
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {cases[-1:]}: {done.stderr[-500:]}"
    assert len(cases) == count
    unexpected = [case for case in cases if case["ended"] not in ENDS]
    assert unexpected == []
    return Counter(case["ended"] for case in cases)


@pytest.mark.parametrize("name", [*CLIPS, *ANIMATIONS])
def test_damaged_files_end_in_one_of_the_known_ways(name, sample):
    seen = endings(sample(name), 0, 25)
    assert len(seen) > 1 or name in FORGIVING  # else the damage would be none


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [*CLIPS, *ANIMATIONS])
def test_thousands_of_damaged_files_do_so_too(name, sample):
    endings(sample(name), 1000, 300)
