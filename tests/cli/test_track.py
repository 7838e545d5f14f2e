"""`rtdetrv2 track` and `--track`: what is written, drawn, refused and resumed."""

import csv
import json
import shutil

import av
import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.types import Detections

FRAMES = 60


def walker(number, index):
    """Everyone walks to the right, 8 frames after the one before, on a line of their own."""
    left = 3 * (index - 8 * number)
    return (left, 20 * number, left + 16, 20 * number + 18)


def found_in(index):
    here = [n for n in range(6) if 0 <= index - 8 * n < 40]
    scores = [0.2 if index % 10 == 7 else 0.9 - 0.01 * n for n in here]
    boxes = np.array([walker(n, index) for n in here], np.float32).reshape(-1, 4)
    return Detections(
        boxes, np.array(scores, np.float32), np.array([n % 2 for n in here], np.int64)
    )


@pytest.fixture
def walkers(monkeypatch):
    """Every detector finds them, if it is asked for what scores low."""

    def find(self, frames):
        assert self._thresholds()["conf"] == 0.1
        return [found_in(frame.index) for frame in frames]

    monkeypatch.setattr(Detector, "__call__", find)


@pytest.fixture
def track(cli, tiny_weights):
    def run(*arguments):
        return cli("track", "-m", tiny_weights, "--conf", "0.5", "--batch", "1", *arguments)

    return run


@pytest.fixture
def clip(make_clip):
    options = {"height": 128, "width": 192, "options": {"crf": "10", "g": "5"}}
    return lambda name="a.mp4": make_clip(name, FRAMES, **options)


def frames_of(path):
    lines = (json.loads(line) for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line["type"] == "frame"]


def test_everyone_has_a_number_in_all_that_is_written(walkers, track, clip, tmp_path, records):
    clip()
    outcome = track("a.mp4", "--save-csv", "--save-mot", "--save-crop")
    assert outcome.code == 0
    frames = frames_of(tmp_path / "detections/detections.jsonl")
    counted = [len(found_in(i)) if i % 10 != 7 else 0 for i in range(FRAMES)]
    assert [len(frame["detections"]) for frame in frames] == counted
    told = {}
    for frame in frames:
        for found in frame["detections"]:
            number = round(found["box"][1] / 20)
            # Seen once, it might be nobody; of the first frame all are somebody.
            is_new = number > 0 and frame["frame"] == 8 * number
            assert ("track_id" not in found) == is_new
            told.setdefault(number, set()).add(found.get("track_id"))
    assert {n: each - {None} for n, each in told.items()} == {n: {n + 1} for n in range(6)}
    assert f"6 tracks, {sum(counted)} objects in 60 frames" in outcome.err
    assert records(tmp_path / "detections/detections.jsonl")[-1]["tracks"] == 6
    assert json.loads((tmp_path / "detections/run.json").read_text())["counts"]["tracks"] == 6
    with (tmp_path / "detections/detections.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    expected = [str(f.get("track_id", "")) for frame in frames for f in frame["detections"]]
    assert [row["track_id"] for row in rows] == expected
    mot = (tmp_path / "detections/mot/a.txt").read_text().splitlines()
    assert [line.split(",")[1] for line in mot] == [each or "-1" for each in expected]
    names = {p.name for p in (tmp_path / "detections/crops").rglob("*.jpg")}
    assert {"000000-1-track1.jpg", "000008-2.jpg", "000009-2-track2.jpg"} <= names
    assert not [*(tmp_path / "detections").rglob("*.part")]


def test_detect_follows_if_it_is_told_and_numbers_begin_anew_in_each_file(
    walkers, cli, tiny_weights, clip, tmp_path
):
    clip("in/a.mp4")
    clip("in/b.mp4")
    outcome = cli("detect", "-m", tiny_weights, "in", "--conf", "0.5", "--track", "sort", "-o", "o")
    assert outcome.code == 0
    assert "12 tracks" in outcome.err
    frames = frames_of(tmp_path / "o/detections.jsonl")
    ids = {
        name: {d.get("track_id") for f in frames for d in f["detections"] if f["source"] == name}
        for name in ("a.mp4", "b.mp4")
    }
    assert ids == {name: {*range(1, 7), None} for name in ids}


def test_the_threshold_only_filters(walkers, track, clip):
    clip()
    strict = [
        r for r in track("a.mp4", "-o", "-", "--conf", "0.87").records if r["type"] == "frame"
    ]
    ids = {d["track_id"] for frame in strict for d in frame["detections"] if "track_id" in d}
    assert ids == {1, 2, 3}
    few = track("a.mp4", "-o", "-", "--max-det", "1").records
    assert max(len(r["detections"]) for r in few if r["type"] == "frame") == 1


def test_ways_and_colours_are_drawn_and_drawn_again(walkers, track, clip, cli, tmp_path):
    clip()

    def last(path):
        with av.open(str(path)) as container:
            *_, frame = container.decode(video=0)
            return frame.to_ndarray(format="rgb24").astype(int)

    plain = ("--no-labels", "--line-width", "2", "--crf", "1")
    looks = {"box": (), "trace": ("--trace",), "colour": ("--color-by", "track")}
    drawn = {}
    for name, look in looks.items():
        assert track("a.mp4", "-o", f"{name}.mp4", *plain, *look).code == 0
        drawn[name] = last(tmp_path / f"{name}.mp4")
    x1, _, _, y2 = walker(5, FRAMES - 1)
    way = np.s_[y2 - 1 : y2 + 2, x1 - 20 : x1 - 4]
    assert np.abs(drawn["trace"] - drawn["box"])[way].max() > 60
    assert np.abs(drawn["colour"] - drawn["box"]).max() > 60

    assert track("a.mp4").code == 0
    for name, look in looks.items():
        again = ("detections/detections.jsonl", "a.mp4", "-o", f"again-{name}.mp4")
        assert cli("render", *again, *plain, *look).code == 0
        assert np.abs(last(tmp_path / f"again-{name}.mp4") - drawn[name]).mean() < 0.5


def test_numbers_are_written_beside_boxes(walkers, track, clip, tmp_path):
    from rtdetrv2_cli.media.draw import Annotator

    texts = Annotator(("person", "car"))._texts
    found = found_in(30)[:3]
    assert texts(found) == ["person 0.90", "car 0.89", "person 0.88"]
    named = Detections(found.boxes, found.scores, found.class_ids, np.array([4, -1, 12]))
    assert texts(named) == ["person #4 0.90", "car 0.89", "person #12 0.88"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("photo.jpg",), "--track is of no use: no video is among the inputs"),
        (("a.mp4", "-o", "o.csv", "--trace"), "--trace is of no use: this run writes no pictures"),
        (("a.mp4", "--style", "blur", "--trace"), "--trace is of no use: --style blur draws none"),
    ],
)
def test_what_nothing_can_use_is_refused(track, clip, make_picture, arguments, reason):
    clip()
    make_picture("photo.jpg")
    outcome = track(*arguments)
    assert outcome.code == 2
    assert reason in outcome.err


@pytest.mark.parametrize(
    ("look", "reason"),
    [
        (("--trace",), "--trace is about --track, which is not given"),
        (("--color-by", "track"), "--color-by track is about --track, which is not given"),
    ],
)
def test_without_tracks_there_is_nothing_to_draw_of_them(detect, clip, cli, look, reason):
    clip()
    outcome = detect("a.mp4", *look)
    assert outcome.code == 2
    assert reason in outcome.err
    assert detect("a.mp4", "--max-frames", 2).code == 0
    outcome = cli("render", "detections/detections.jsonl", "a.mp4", *look)
    assert outcome.code == 2
    assert "is of a run without --track" in outcome.err


@pytest.fixture
def killed(tmp_path, monkeypatch, track):
    """What a SIGKILL leaves of a run before a certain frame of a file."""

    def run(place, *arguments):
        folder, state = tmp_path / "detections", tmp_path / "state"
        find = Detector.__call__

        def files():
            return sorted(path for path in folder.iterdir() if path.is_file())

        def watched(self, frames):
            if (frames[0].source.name, frames[0].index) == place:
                state.mkdir()
                sizes = None
                while sizes != (sizes := [path.stat().st_size for path in files()]):
                    for path in files():  # which may be written to meanwhile: then once more
                        shutil.copy2(path, state)
            return find(self, frames)

        with monkeypatch.context() as patch:
            patch.setattr(Detector, "__call__", watched)
            assert track(*arguments).code == 0
        shutil.rmtree(folder)
        state.rename(folder)

    return run


@pytest.mark.parametrize("media", [("--trace",), ("--no-media",)], ids=["video", "records"])
def test_a_killed_run_goes_on_with_the_same_numbers(
    walkers, track, clip, killed, tmp_path, records, media
):
    clip("in/a.mp4")
    clip("in/b.mp4")
    options = ("in", "--save-csv", "--save-mot", *media)
    assert track(*options, "-o", "whole").code == 0
    killed(("a.mp4", 44), *options)
    killed(("a.mp4", 57), *options, "--resume")
    killed(("b.mp4", 44), *options, "--resume")
    assert (tmp_path / "detections/tracks.json.part").is_file()
    outcome = track(*options, "--resume")
    assert outcome.code == 0
    assert "b.mp4: going on after" in outcome.err
    for name in ("detections.csv", "mot/a.txt", "mot/b.txt"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "detections" / name).read_bytes() == whole
    frames = frames_of(tmp_path / "whole/detections.jsonl")
    assert frames_of(tmp_path / "detections/detections.jsonl") == frames
    assert records(tmp_path / "detections/detections.jsonl")[-1]["tracks"] == 6
    assert not [*(tmp_path / "detections").rglob("*.part")]


def test_what_cannot_be_followed_on_is_begun_anew(walkers, track, clip, killed, tmp_path):
    clip()
    killed(("a.mp4", 44), "a.mp4", "--no-media")
    (tmp_path / "detections/tracks.json.part").unlink()
    outcome = track("a.mp4", "--no-media", "--resume")
    assert outcome.code == 0
    assert "a.mp4: begun anew: what was followed in it is not known" in outcome.err
    frames = frames_of(tmp_path / "detections/detections.jsonl")
    assert [frame["frame"] for frame in frames] == [*range(FRAMES)]
    assert max(d.get("track_id", 0) for f in frames for d in f["detections"]) == 6


def test_another_tracker_is_another_run(walkers, track, clip, killed):
    clip()
    killed(("a.mp4", 44), "a.mp4", "--no-media")
    outcome = track("a.mp4", "--no-media", "--resume", "--track", "sort")
    assert outcome.code == 2
    assert "--track was bytetrack and is sort" in outcome.err


ZONES = ("--zone", "yard=50%,0,100%,0,100%,100%,50%,100%", "--line", "door=60,0,60,128")


def test_who_is_in_a_zone_and_goes_over_a_line_is_counted(walkers, track, clip, tmp_path, records):
    clip()
    outcome = track("a.mp4", *ZONES, "--line-width", 2)
    assert outcome.code == 0
    *_, table = outcome.err.partition("ZONE")
    assert [line.split() for line in table.splitlines()[1:]] == [
        *(["yard", "car", "2", "0", "1"], ["yard", "person", "2", "0", "1"]),
        *(["door", "car", "3", "0"], ["door", "person", "3", "0"]),
    ]
    lines = records(tmp_path / "detections/detections.jsonl")
    totals = {
        "a.mp4": {
            "yard": {
                "in": {"person": 2, "car": 2},
                "out": {},
                "most": {"person": 1, "car": 1},
            },
            "door": {"in": {"person": 3, "car": 3}, "out": {}},
        }
    }
    assert lines[-1]["zones"] == totals
    assert json.loads((tmp_path / "detections/run.json").read_text())["zones"] == totals
    frames = [line for line in lines if line["type"] == "frame"]
    assert all(frame["zones"].keys() == {"yard", "door"} for frame in frames)
    assert {"inside": {"person": 1}, "in": {}, "out": {}} in [f["zones"]["yard"] for f in frames]
    assert sum(sum(frame["zones"]["door"]["in"].values()) for frame in frames) == 6
    with Image.open(tmp_path / "detections/zones/a.png") as chart:
        assert chart.size[0] == 1200
    with av.open(str(tmp_path / "detections/a.mp4")) as video:
        image = next(video.decode(video=0)).to_ndarray(format="rgb24")
    assert (image[20:40, 95:98].min(axis=2) > 200).any(axis=1).all()  # its left border

    assert "ZONE" not in track("a.mp4", *ZONES, "-q", "--overwrite").err
    assert "would be replaced" in track("a.mp4", *ZONES).err


def test_counts_go_on_after_a_kill(walkers, track, clip, killed, tmp_path, records):
    clip()
    options = ("a.mp4", "--no-media", *ZONES)
    assert track(*options, "-o", "whole").code == 0
    killed(("a.mp4", 44), *options)
    assert track(*options, "--resume").code == 0
    ended, whole = (
        records(tmp_path / f"{name}/detections.jsonl") for name in ("detections", "whole")
    )
    assert [r for r in ended if r["type"] == "frame"] == [r for r in whole if r["type"] == "frame"]
    assert ended[-1]["zones"] == whole[-1]["zones"]
    outcome = track("a.mp4", "--no-media", "--resume", "--line", "door=61,0,60,128")
    assert outcome.code == 2
    assert "--line was door=60,0,60,128 and is door=61,0,60,128" in outcome.err


def test_zones_come_from_a_file_and_are_drawn_to_be_chosen(walkers, track, clip, cli, tmp_path):
    clip()
    (tmp_path / "zones.txt").write_text("zone yard=50%,0,100%,0,100%,100%\nline door=60,0,60,128\n")
    records = track("a.mp4", "--zone-file", "zones.txt", "-o", "-").records
    assert records[-1]["zones"]["a.mp4"].keys() == {"yard", "door"}

    def pixels(name):
        with Image.open(tmp_path / name) as picture:
            return np.asarray(picture.convert("RGB"))

    assert cli("probe", "a.mp4", "--draw-zone", "grid.png").code == 0
    probed = cli("probe", "a.mp4", "--draw-zone", "zones.png", "--zone-file", "zones.txt")
    assert probed.code == 0
    assert "zones.png: the first picture of a.mp4, 192x128" in probed.err
    grid, zones = pixels("grid.png"), pixels("zones.png")
    assert grid.shape == zones.shape == (128, 192, 3)
    assert (grid[105:114, 96].min(axis=1) > 120).all()  # a line at half of the width
    assert (zones[100:120, 59:62].min(axis=2) > 230).any(axis=1).all()
    assert not (grid[100:120, 59:62].min(axis=2) > 230).any()
    again = cli("probe", "a.mp4", "--draw-zone", "grid.png")
    assert (again.code, "add --overwrite" in again.err) == (2, True)
    assert cli("probe", "a.mp4", "--draw-zone", "grid.png", "--overwrite").code == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("probe", "a.mp4", "--zone", "a=0,0,9,0,9,9"), "--zone is about --draw-zone"),
        (("probe", "a.mp4", "--overwrite"), "--overwrite is about --draw-zone"),
        (("probe", "a.mp4", "b.mp4", "--draw-zone", "x.png"), "shows one source, and there are 2"),
        (("probe", "a.mp4", "--draw-zone", "x.txt"), "x.txt should end with .png or .jpg"),
        (("detect", "a.mp4", "--line", "a=0,0,9,9"), "--line is about --track"),
        (("track", "a.mp4", "--line", "a=0,0"), "line 'a' has 2 numbers"),
        (("track", "a.mp4", "--zone-file", "none"), "cannot read the zones in none"),
    ],
)
def test_zones_that_nothing_can_use_are_refused(cli, clip, arguments, reason):
    clip()
    clip("b.mp4")
    outcome = cli(*arguments)
    assert outcome.code == (3 if "none" in arguments else 2)
    assert reason in outcome.err
