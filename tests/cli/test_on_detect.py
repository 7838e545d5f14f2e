"""`--on-detect`: what it gets, what it writes beside, what is refused."""

import json
import sys

import pytest
from live_servers import wait_for

CAMERA = "lavfi:testsrc=size=64x48:rate=20"


@pytest.fixture
def command(tmp_path) -> str:
    """Keeps what it is given in the file `seen`."""
    path = tmp_path / "keep.py"
    path.write_text(
        "import json, os, sys\n"
        "open('part', 'w').write(json.dumps([sys.argv[1:], json.loads(sys.stdin.read())]))\n"
        "os.rename('part', 'seen'); print('printed')\n"
    )
    return f"{sys.executable} {path}"


def test_live_runs_a_command_and_writes_nothing_else(cli, tiny_weights, command, tmp_path):
    arguments = ("-m", tiny_weights, "--classes", "car,person", "--duration", 5, "--json")
    outcome = cli("live", CAMERA, *arguments, "--on-detect", command + " {class} {count} s3cr3t")
    assert outcome.code == 0
    wait_for((tmp_path / "seen").exists)
    (name, count, _), record = json.loads((tmp_path / "seen").read_text())
    assert name in ("car", "person")
    assert int(count) == len(record["detections"]) > 0
    assert {found["class_name"] for found in record["detections"]} <= {"car", "person"}
    assert "s3cr3t" not in outcome.out + outcome.err
    assert "1 runs, 0 failed" in outcome.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep.py", "seen"]
    json.loads(outcome.out)  # nothing that the command prints is in it


def test_detect_of_a_stream_runs_it_beside_its_records(detect, command, tmp_path):
    outcome = detect(CAMERA, "-o", "-", "--duration", 5, "--on-detect", command)
    assert outcome.code == 0
    assert outcome.records[-1]["type"] == "summary"
    wait_for((tmp_path / "seen").exists)


def test_what_makes_no_sense_is_exit_2(cli, detect, tiny_weights, make_picture):
    for arguments, told in (
        (("--on-detect", "no-such-program"), "there is no program 'no-such-program'"),
        (("--on-detect", "echo {x}"), "{x} stands for nothing"),
        (("--on-detect-every", 3), "--on-detect-every is about --on-detect"),
        (("--on-detect", "true", "--no-media"), "nothing is written without --output"),
        (("--on-detect", "true", "--crf", 3), "this run writes no video"),
    ):
        outcome = cli("live", CAMERA, "-m", tiny_weights, *arguments)
        assert outcome.code == 2
        assert told in outcome.err
    outcome = detect(make_picture("a.png"), "--on-detect", "true")
    assert outcome.code == 2
    assert "--on-detect is of no use: no stream and no camera" in outcome.err
