"""`rtdetrv2 detect` on chosen frames of videos: records, media, report and exit code."""

import json

import av
import pytest


def written(path):
    """Times in seconds of a video's frames, and the frames."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [round(frame.time, 3) for frame in frames], [
            f.to_ndarray(format="rgb24") for f in frames
        ]


def shown(path, records):
    return [(r["frame"], r["time"]) for r in records(path) if r["type"] == "frame"]


def test_a_span_is_recorded_as_in_the_source_and_written_from_zero(
    detect, make_clip, tmp_path, records
):
    make_clip("a.mp4", 60, options={"g": "20"}, sound="aac")
    assert detect("a.mp4", "--start", "0:01.2", "--end", 1.6, "-o", "out").code == 0
    expected = [(index, index / 25) for index in range(30, 40)]
    assert shown(tmp_path / "out/detections.jsonl", records) == expected
    times, _ = written(tmp_path / "out/a.mp4")
    assert times == [round(i / 25, 3) for i in range(10)]
    report = json.loads((tmp_path / "out/run.json").read_text("utf-8"))
    assert (report["options"]["start"], report["options"]["end"]) == (1.2, 1.6)
    assert report["status"] == "complete"
    assert report["counts"]["frames"] == 10


@pytest.mark.parametrize(
    ("options", "indexes"),
    [
        (("--vid-stride", 4), [0, 4, 8]),
        (("--fps", 5), [0, 5, 10]),
        (("--vid-stride", 4, "--max-frames", 2), [0, 4]),
    ],
)
def test_only_processed_frames_are_written(options, indexes, detect, make_clip, tmp_path, records):
    make_clip("a.mp4", 12)
    assert detect("a.mp4", *options, "-o", "out").code == 0
    assert [i for i, _ in shown(tmp_path / "out/detections.jsonl", records)] == indexes
    times, _ = written(tmp_path / "out/a.mp4")
    assert times == [i / 25 for i in indexes]


def test_hold_writes_every_frame_with_the_last_boxes(detect, make_clip, tmp_path, records):
    make_clip("a.mp4", 12)
    options = ("--vid-stride", 4, "--start", 0.08, "--hold", "--line-width", 3, "--no-labels")
    assert detect("a.mp4", *options, "-o", "out", "--crf", 4).code == 0
    assert [i for i, _ in shown(tmp_path / "out/detections.jsonl", records)] == [2, 6, 10]
    times, drawn = written(tmp_path / "out/a.mp4")
    assert times == [i / 25 for i in range(10)]
    _, plain = written(tmp_path / "a.mp4")
    coloured = [
        abs(a.astype(int) - b).max(axis=-1) > 60 for a, b in zip(drawn, plain[2:], strict=True)
    ]
    for index, place in enumerate(coloured):
        assert place.mean() > 0.02
        assert (place != coloured[index - index % 4]).mean() < 0.05
    report = json.loads((tmp_path / "out/run.json").read_text("utf-8"))
    assert report["counts"]["frames"] == 3
    assert report["counts"]["detections"] == 30


def test_a_start_behind_one_video_fails_that_one_alone(detect, make_clip, tmp_path, records):
    make_clip("in/a.mp4", 10)
    make_clip("in/b.mp4", 60)
    outcome = detect("in", "--start", 2, "--no-media", "-o", "out")
    assert outcome.code == 5
    assert "a.mp4: there is nothing from 2 seconds on" in outcome.err
    lines = records(tmp_path / "out/detections.jsonl")
    assert [r["source"] for r in lines if r["type"] == "error"] == ["a.mp4"]
    assert [r["frame"] for r in lines if r["type"] == "frame"] == list(range(50, 60))


def test_what_is_truncated_counts_as_failed_unless_allowed(detect, make_clip, tmp_path, records):
    path = make_clip("a.mkv", 60, options={"g": "10", "bf": "0"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused = detect("a.mkv", "-o", "one", "--save-json")
    assert refused.code == 5
    allowed = detect("a.mkv", "-o", "two", "--save-json", "--allow-truncated")
    assert allowed.code == 0
    assert "warning: a.mkv: the video ends at" in allowed.err
    one, two = (records(tmp_path / name / "detections.jsonl") for name in ("one", "two"))
    assert [r["type"] for r in one[-2:]] == ["error", "summary"]
    assert [r["type"] for r in two[-2:]] == ["event", "summary"]
    event = {"source": "a.mkv", "event": "truncated", "message": one[-2]["message"]}
    assert two[-2] == {"type": "event", "stream": 0, **event}
    assert (two[-1]["ok"], two[-1]["failed"]) == (1, 0)
    report = json.loads((tmp_path / "two/run.json").read_text("utf-8"))
    assert (report["status"], report["errors"], report["events"]) == ("complete", [], [event])
    document = json.loads((tmp_path / "two/detections.json").read_text("utf-8"))
    assert document["events"] == [{"stream": 0, **event}]
    assert written(tmp_path / "one/a.mp4")[0] == written(tmp_path / "two/a.mp4")[0]
    again = detect("a.mkv", "-o", "two", "--save-json", "--allow-truncated", "--skip-existing")
    assert again.code == 0


def test_an_end_before_the_early_end_is_no_failure(detect, make_clip):
    path = make_clip("a.mkv", 60, options={"g": "10", "bf": "0"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert detect("a.mkv", "-o", "-", "--end", 0.4).code == 0
    assert detect("a.mkv", "-o", "-", "--max-frames", 3).code == 0


def test_an_animation_is_chosen_from_too(detect, make_animation, tmp_path, records):
    make_animation("a.gif", (40, 100, 250, 100))
    assert detect("a.gif", "--vid-stride", 2, "-o", "out").code == 0
    assert shown(tmp_path / "out/detections.jsonl", records) == [(0, 0.0), (2, 0.14)]


def test_a_change_of_size_is_fitted_and_has_an_event(detect, make_clip, tmp_path, records):
    small = make_clip("small.h264", 6).read_bytes()
    large = make_clip("large.h264", 6, height=96, width=128).read_bytes()
    (tmp_path / "both.h264").write_bytes(small + large)
    outcome = detect("both.h264", "-o", "out")
    assert outcome.code == 0, outcome.err
    assert "both.h264: pictures of another size are fitted to 64x48" in outcome.err
    kinds = [
        (r["type"], r.get("frame"), r.get("width"))
        for r in records(tmp_path / "out/detections.jsonl")
    ]
    assert kinds[1:-1] == [
        *(("frame", index, 64) for index in range(6)),
        ("event", None, None),
        *(("frame", index, 128) for index in range(6, 12)),
    ]
    event = records(tmp_path / "out/detections.jsonl")[7]
    assert event["event"] == "size_changed"
    assert event["message"] == "frame 6 is 128x96, the one before it 64x48"
    report = json.loads((tmp_path / "out/run.json").read_text())
    assert [each["event"] for each in report["events"]] == ["size_changed"]
    with av.open("out/both.mp4") as container:
        assert {(f.width, f.height) for f in container.decode(video=0)} == {(64, 48)}
