"""An option given by hand that nothing in the run can use is an error, never silence."""

import pytest

NO_VIDEO = "this run writes no video"
NOTHING_DRAWN = "no pictures and no videos to draw on"
ONE_FILE = "only a folder gets several files of records"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a.png", "--crf", 20], NO_VIDEO),
        (["a.png", "--vcodec", "h264"], NO_VIDEO),
        (["a.png", "--preset", "fast"], NO_VIDEO),
        (["a.png", "--audio"], NO_VIDEO),
        (["a.png", "--no-audio"], NO_VIDEO),
        (["b.mp4", "--crf", 20, "--no-media"], NO_VIDEO),
        (["b.mp4", "--crf", 20, "-o", "-"], NO_VIDEO),
        (["b.mp4", "--crf", 20, "-o", "out.csv"], NO_VIDEO),
        (["b.mp4", "--crf", 20, "-o", "out.gif"], NO_VIDEO),
        (["b.mp4", "--image-format", "png"], "no pictures into a folder"),
        (["a.png", "--image-format", "png", "--no-media"], "no pictures into a folder"),
        (["a.png", "--image-format", "png", "-o", "out.png"], "no pictures into a folder"),
        (["a.png", "--line-width", 2, "--no-media"], NOTHING_DRAWN),
        (["a.png", "--style", "round", "-o", "-"], NOTHING_DRAWN),
        (["a.png", "--no-labels", "-o", "out.csv"], NOTHING_DRAWN),
        (["a.png", "--hide-conf", "--no-media"], NOTHING_DRAWN),
        (["a.png", "--max-frames", 2], "no video is among the inputs"),
        (["a.png", "--start", 1], "no video is among the inputs"),
        (["a.png", "--end", "0:01"], "no video is among the inputs"),
        (["a.png", "--vid-stride", 2], "no video is among the inputs"),
        (["a.png", "--fps", 2], "no video is among the inputs"),
        (["a.png", "--hwaccel", "none"], "no video is among the inputs"),
        (["b.mp4", "--hwaccel", "gpu"], "no hardware 'gpu' to decode on: choose auto, none"),
        (["a.png", "--allow-truncated"], "no video is among the inputs"),
        (["b.mp4", "--vid-stride", 2, "--fps", 2], "contradict"),
        (["b.mp4", "--hold"], "add --vid-stride or --fps"),
        (["b.mp4", "--hold", "--max-frames", 2], "add --vid-stride or --fps"),
        (["b.mp4", "--hold", "--fps", 2, "--no-media"], "this run writes no video"),
        (["a.png", "--hold", "--fps", 2], "--fps is of no use"),
        (["b.mp4", "--start", 3, "--end", "0:02"], "must be later than the start"),
        (["b.mp4", "--start", "-1"], "'-1' is not a time"),
        (["b.mp4", "--end", "1:60"], "end at 59"),
        (["b.mp4", "--fps", 0], "more than 0"),
        (["a.png", "--no-recursive"], "no folder is among the sources"),
        (["a.png", "--save-csv", "-o", "-"], ONE_FILE),
        (["a.png", "--save-json", "-o", "out.png"], ONE_FILE),
        (["a.png", "--no-jsonl", "-o", "out.csv"], ONE_FILE),
        (["a.png", "--no-media", "-o", "out.png"], "--output names a picture"),
        (["a.png", "--overwrite", "-o", "-"], "standard output replaces nothing"),
        (["a.png", "--skip-existing", "-o", "-"], "standard output replaces nothing"),
        (["a.png", "--json", "-o", "-"], "taken by the records"),
        (["a.png", "-0"], "--from-file"),
        (["a.png", "--no-labels", "--hide-conf"], "--no-labels leaves them out"),
        (["a.png", "-q", "-v"], "contradict"),
        (["a.png", "--overwrite", "--skip-existing"], "contradict"),
        (["a.png", "--half", "--dtype", "fp32"], "contradict"),
        (["a.png", "--fail-fast", "--max-errors", 3], "contradict"),
        (["a.png", "--no-media", "--no-jsonl"], "nothing would be written"),
        (["a.png", "b.mp4", "-o", "out.mp4"], "2 inputs do not go into the one file"),
        (["a.png", "-o", "out.mp3"], ".jsonl .json .csv"),
        (["b.mp4", "-o", "out.jpg"], "try .mp4"),
        (["a.png", "-o", "."], "is an input"),
        (["a.png", "-o", "a.png"], "is an input"),
        (["-"], "--from-file -"),
        ([], "name at least one"),
        (["--from-file", "empty"], "empty lists none"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_it_is_refused_with_a_reason(detect, make_picture, make_clip, tmp_path, arguments, reason):
    make_picture("a.png")
    make_clip("b.mp4", frames=1)
    (tmp_path / "empty").touch()
    outcome = detect(*arguments)
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.mp4", "empty"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--crf", 30, "--no-audio"],
        ["--image-format", "png"],
        ["--max-frames", 1],
        ["--start", 0.5, "--end", "1:00", "--vid-stride", 2, "--hold"],
        ["--fps", 1.5, "--allow-truncated"],
        ["--no-recursive"],
        ["--include", "*.png"],
        ["--no-media", "--save-csv"],
        ["--labels", "--hide-conf"],
        ["-o", "-", "--no-media"],
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_in_a_mixed_folder_one_use_is_enough(detect, make_picture, make_clip, arguments):
    make_picture("in/a.jpg")
    make_clip("in/b.mp4", frames=1)
    if "*.png" in arguments:
        make_picture("in/c.png")
    outcome = detect("in", "--dry-run", *arguments)
    assert (outcome.code, outcome.err) == (0, "")


def test_a_given_default_counts_as_given(detect, make_picture):
    make_picture("a.png")
    assert detect("a.png", "--style", "box", "--no-media").code == 2
    assert detect("a.png", "--no-media", "--dry-run").code == 0
