import pytest

from rtdetrv2_cli.bench import media as module
from rtdetrv2_cli.bench.media import MediaFigures, Turns, make_clip, measure
from rtdetrv2_cli.errors import InputError
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.types import Size


@pytest.fixture(scope="session")
def detector(tiny_weights):
    return Detector(tiny_weights, batch=3)


def test_a_ratio_is_ours_to_theirs_by_the_best_turns():
    figures = MediaFigures(
        10,
        Size(1, 1),
        2,
        {
            module.ANNOTATED: Turns(10, [2.0, 1.0], [0, 0]),
            module.TRANSCODED: Turns(10, [0.5, 3.0], [0, 0]),
            module.RECORDED: Turns(10, [0.25], [0]),
            module.DECODED: Turns(10, [0.5], [0]),
            module.WHOLE: Turns(10, [10.0], [0]),
            module.ENGINE: Turns(5, [1], [6.0]),
            module.STAGES: Turns(10, [1], [5.0, 4.0]),
            module.LOOP: Turns(10, [1], [3.0]),
        },
    )
    # the engine takes 1.2 core-seconds a frame, all else 0.4: two cores allow 1.25 frames a second
    assert list(figures.ratios.values()) == pytest.approx([0.5, 2.0, 0.8, 0.75])


def test_without_the_ffmpeg_program_the_rest_is_measured(detector, make_clip, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    figures = measure(detector, make_clip(frames=7), 2)
    assert (figures.frames, figures.size) == (7, Size(48, 64))
    assert module.TRANSCODED not in figures.turns
    assert len(figures.ratios) == 3
    for turns in figures.turns.values():
        assert len(turns.wall) == len(turns.cores) == 2
        assert min(turns.wall) > 0


def test_a_clip_that_cannot_be_read_is_an_input_error(detector, tmp_path):
    with pytest.raises(InputError, match=r"none\.mp4"):
        measure(detector, tmp_path / "none.mp4", 1)


def test_the_clip_that_is_made_has_the_frames_and_the_size_asked_for(tmp_path):
    make_clip(tmp_path / "a.mp4", 9, Size(72, 128))
    frames = list(open_source(tmp_path / "a.mp4").frames())
    assert [frame.index for frame in frames] == list(range(9))
    assert {frame.size for frame in frames} == {Size(72, 128)}
    assert frames[0].image.std() > 20
