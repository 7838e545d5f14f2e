"""Commands that are run when something is detected: words, limits, failures, ends."""

import json
import os
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from live_servers import PATIENCE, wait_for

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.media.command import Command, CommandSink
from rtdetrv2_cli.types import Arrival, Detections, Frame, Result, Size, SourceInfo

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and process groups differ")

LABELS = ["person", "car; rm -rf $HOME"]


def result(index: int = 0, classes=(0, 1), *, stream: int = 0) -> Result:
    size = Size(4, 6)
    source = SourceInfo("rtsp://cam/1", "rtsp://me:pw@cam/1", size, live=True, stream=stream)
    image = np.zeros((*size, 3), np.uint8)
    arrival = Arrival(1_700_000_000.5, time.monotonic())
    frame = Frame(source, size, index, image, 0, Fraction(1, 90000), 0.0, arrival=arrival)
    n = len(classes)
    scores = np.linspace(0.5, 0.75, n, dtype=np.float32)
    found = Detections(np.ones((n, 4), np.float32), scores, np.array(classes, np.int64))
    return Result(frame, found)


def script(tmp_path: Path, body: str) -> str:
    path = tmp_path / "command.py"
    path.write_text(f"import json, os, sys, time\nout = {str(tmp_path / 'out')!r}\n{body}\n")
    return f"{sys.executable} {path}"


WRITE = """
with open(out + ".part", "w") as file:
    json.dump([sys.argv[1:], sys.stdin.read()], file)
os.rename(out + ".part", out)
"""


def test_words_are_filled_in_and_never_split_or_read_by_a_shell(tmp_path):
    words = "{source} 'seen: {class}' {confidence} {count} {stream}/{frame} {time} {{class}} $HOME"
    command = Command.parse(f"{script(tmp_path, WRITE)} {words}")
    with CommandSink(command, LABELS) as sink:
        sink.write(result(7))
        wait_for((tmp_path / "out").exists)
    arguments, given = json.loads((tmp_path / "out").read_text())
    assert arguments == [
        *("rtsp://cam/1", "seen: car; rm -rf $HOME", "0.75", "2", "0/7"),
        *("2023-11-14T22:13:20.500Z", "{class}", "$HOME"),
    ]
    record = json.loads(given)
    assert given.endswith("\n")
    assert [found["class_id"] for found in record["detections"]] == [0, 1]
    assert "pw" not in given


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names no command"),
        ("   ", "names no command"),
        ("echo 'x", "cannot be split"),
        ("no-such-program-here {class}", "there is no program 'no-such-program-here'"),
        ("/etc/passwd", "there is no program '/etc/passwd'"),
        ("echo {clas}", r"\{clas\} stands for nothing"),
    ],
)
def test_what_cannot_be_run_is_refused(text, why):
    with pytest.raises(UsageError, match=why):
        Command.parse(text)


def test_it_is_run_once_in_a_time_for_each_stream_and_only_when_something_is_found(tmp_path):
    with CommandSink(Command.parse("true"), LABELS, every=1000) as sink:
        sink.write(result(0, ()))
        assert sink.runs == 0
        for index in range(5):
            sink.write(result(index))
            sink.write(result(index, stream=1))
        assert sink.runs == 2
    with CommandSink(Command.parse("true"), LABELS, every=0.05) as sink:
        sink.write(result(0))
        time.sleep(0.1)
        sink.write(result(1))
        assert sink.runs == 2


def children() -> set[str]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {child for task in tasks for child in task.read_text().split()}


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
def test_commands_that_hang_do_not_pile_up_and_end_with_the_run(tmp_path, caplog):
    before = children()
    body = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen(out + sys.argv[1], 'w')"
    )
    command = Command.parse(script(tmp_path, f"{body}\ntime.sleep(1000)") + " {frame}")
    with CommandSink(command, LABELS, every=0) as sink:
        for index in range(20):
            sink.write(result(index))
        assert (sink.runs, sink.left_out) == (4, 16)
        assert len(children() - before) == 4
        wait_for(lambda: len([*tmp_path.glob("out*")]) == 4)
        start = time.monotonic()
    assert time.monotonic() - start < PATIENCE
    assert children() <= before
    assert caplog.text.count("4 commands are running still") == 1


@linux
def test_one_that_takes_too_long_is_ended_with_what_it_has_started(tmp_path, caplog):
    before = children()
    body = "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])"
    body += "\nopen(out + '.part', 'w').write(str(child.pid)); os.rename(out + '.part', out)"
    command = Command.parse(script(tmp_path, f"{body}\ntime.sleep(1000)"))
    with CommandSink(command, LABELS, every=0, timeout=3) as sink:
        sink.write(result())
        wait_for((tmp_path / "out").exists)
        wait_for(lambda: sink.failed)
    pid = (tmp_path / "out").read_text()
    wait_for(lambda: not Path(f"/proc/{pid}").exists() or "Z" in state_of(pid))
    assert "it took longer than 3 s and was ended" in caplog.text
    assert children() <= before


def state_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return "Z"


@linux
def test_a_failure_is_told_once_and_counted_and_no_zombie_is_left(caplog):
    before = children()
    with CommandSink(Command.parse("false"), LABELS, every=0) as sink:
        for count in range(1, 4):
            sink.write(result())
            wait_for(lambda count=count: sink.failed == count)
        assert children() <= before
    assert caplog.text.count("it ended with code 1") == 1


def test_one_that_reads_nothing_is_no_failure():
    with CommandSink(Command.parse("true"), LABELS, every=0) as sink:
        sink.write(result(0, [0, 1] * 5000))  # more than a pipe holds
        wait_for(lambda: all(each.is_over for each in sink._running))
        assert (sink.runs, sink.failed) == (1, 0)
