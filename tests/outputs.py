"""What runs have written, in a form that can be compared."""

import json
from collections.abc import Mapping
from pathlib import Path

from rtdetrv2_cli.media.video import read_video


def content(folder: Path) -> dict[str, object]:
    """What a run has written, but for what may differ: the run, its summary and its times."""
    told: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name == "run.json":
            continue
        if name == "detections.jsonl":
            lines = path.read_bytes().splitlines()
            told[name] = [
                line for line in lines if json.loads(line)["type"] not in ("run", "summary")
            ]
        elif name == "detections.json":
            document = json.loads(path.read_bytes())
            told[name] = [json.dumps(document[part]) for part in ("frames", "errors", "events")]
        elif path.suffix in (".mp4", ".mkv"):
            told[name] = [(f.pts, f.time_base, f.size) for f in read_video(str(path), "x")]
        else:
            told[name] = path.read_bytes()
    return told


def is_the_same(folder: Path, whole: Mapping[str, object], where: object) -> None:
    found = content(folder)
    assert found.keys() == whole.keys(), where
    for name, expected in whole.items():
        assert found[name] == expected, (where, name)
