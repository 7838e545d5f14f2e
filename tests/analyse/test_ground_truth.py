"""People cut out of a photograph walk through a scene as told: nobody's track is mixed up."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from rtdetrv2_cli.analyse.follow import Following
from rtdetrv2_cli.analyse.pairing import overlaps
from rtdetrv2_cli.analyse.trackers import TRACKERS
from rtdetrv2_cli.infer.detector import Detector
from rtdetrv2_cli.media.source import open_source
from rtdetrv2_cli.pipeline import run
from rtdetrv2_cli.types import UNTRACKED, Result

MEDIA = Path(__file__).parents[2] / "examples/media"
FRAMES = 56
RATE = 20
PEOPLE = {
    "blue": ((683, 297, 728, 411), (60, 300), (9, 0)),
    "coat": ((295, 362, 354, 489), (600, 310), (-8, 0)),
    "black": ((460, 203, 494, 283), (90, 430), (6, -2)),
    "red": ((616, 176, 648, 256), (560, 200), (-4, 3)),
}
"""Where each stands in `street.jpg`, where the walk begins, and pixels a frame, x and y."""
PERSON = 0
CROWDED = 0.5
"""Share of a person from which on the network sees one where there are two."""


def truth(name, index):
    (x1, y1, x2, y2), (left, top), (across, down) = PEOPLE[name]
    left, top = left + across * index, top + down * index
    return np.array([left, top, left + x2 - x1, top + y2 - y1], float)


@pytest.fixture(scope="module")
def scene():
    """Frame by frame; people lower in the picture are nearer, and stand in front of others."""
    clip = open_source(MEDIA / "walkers.mp4", stride=9)
    empty = np.median([frame.image for frame in clip.frames()], axis=0).astype(np.uint8)
    photograph = np.asarray(Image.open(MEDIA / "street.jpg").convert("RGB"))
    cut = {}
    for name, ((x1, y1, x2, y2), _, _) in PEOPLE.items():
        inside = np.s_[y1:y2, x1:x2]
        differs = np.abs(photograph[inside].astype(int) - empty[inside]).max(axis=2) > 24
        cut[name] = photograph[inside], differs

    def picture(index, *_):
        image = empty.copy()
        for name in sorted(PEOPLE, key=lambda name: truth(name, index)[3]):
            x1, y1, x2, y2 = truth(name, index).astype(int)
            person, mask = cut[name]
            image[y1:y2, x1:x2][mask] = person[mask]
        return image

    return picture


def crowding(name, index):
    """How much of the smaller of two people the other covers, of a person and whoever is near."""
    own, others = truth(name, index), np.array([truth(n, index) for n in PEOPLE if n != name])
    low, high = np.maximum(own[:2], others[:, :2]), np.minimum(own[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    smaller = np.minimum((others[:, 2:] - others[:, :2]).prod(axis=1), np.prod(own[2:] - own[:2]))
    return float((shared / smaller).max())


class Kept:
    """A sink that keeps results."""

    def __init__(self):
        self.results = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, item):
        assert isinstance(item, Result), item.error
        self.results.append(item)

    def events(self):
        return ()


class Remembered:
    """A detector that looks once."""

    batch_size = requests = 1

    def __init__(self, results):
        self._found = {each.frame.index: each.detections for each in results}

    def __call__(self, frames):
        return [self._found[frame.index] for frame in frames]


@pytest.fixture(scope="module")
def clip(scene, tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "scene.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"crf": "16"})
        video.height, video.width, video.pix_fmt = 576, 768, "yuv420p"
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(scene(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


@pytest.fixture(scope="module")
def looked_at(clip):
    detector, sink = Detector(floor=0.1, batch=8), Kept()
    run(open_source(clip), detector, [sink])
    return detector, sink.results


def ids_of(results):
    """By person the ids of the boxes on it, frame by frame; None where there is no box."""
    ids = {name: [] for name in PEOPLE}
    for result in results:
        found = result.detections
        for name, seen in ids.items():
            others = [n for n in PEOPLE if n != name]
            own = np.array([truth(n, result.frame.index) for n in (name, *others)])
            iou = overlaps(own, found.boxes.astype(float))
            # A box is of whom it fits best.
            mine = np.flatnonzero((iou[0] >= 0.5) & (iou[0] == iou.max(axis=0)))
            seen.append(int(found.track_ids[mine[0]]) if len(mine) else None)
    return ids


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_everyone_keeps_one_id_through_all_crossings(name, clip, looked_at):
    detector, results = looked_at
    sink = Kept()
    following = Following(name, detector)
    run(open_source(clip), Remembered(results), [sink], steps=[following])
    ids = ids_of(sink.results)
    hidden = {n: [crowding(n, i) > CROWDED for i in range(FRAMES)] for n in PEOPLE}
    assert all(0 < sum(each) < FRAMES / 3 for each in hidden.values())  # everyone meets somebody
    for person, seen in ids.items():
        clear = [
            each for each, is_hidden in zip(seen, hidden[person], strict=True) if not is_hidden
        ]
        told = {each for each in clear if each is not None and each != UNTRACKED}
        assert len(told) == 1, (person, seen)
        assert sum(each in told for each in clear) > 0.7 * len(clear)
        ids[person] = told
    assert len(set.union(*ids.values())) == len(PEOPLE)


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_the_benchmarks_own_measure_counts_no_switch(name, clip, looked_at):
    """MOTA, IDF1 and switches as the MOTChallenge defines them, by `motmetrics`."""
    motmetrics = pytest.importorskip("motmetrics")
    detector, results = looked_at
    sink = Kept()
    run(open_source(clip), Remembered(results), [sink], steps=[Following(name, detector)])
    record = motmetrics.MOTAccumulator(auto_id=True)
    for result in sink.results:
        people = np.array([truth(each, result.frame.index) for each in PEOPLE])
        found = result.detections
        people_followed = (found.track_ids != UNTRACKED) & (found.class_ids == PERSON)
        ids, boxes = found.track_ids[people_followed], found.boxes[people_followed].astype(float)
        apart = 1 - overlaps(people, boxes)
        record.update([*range(len(PEOPLE))], ids, np.where(apart > 0.5, np.nan, apart))
    figures = motmetrics.metrics.create().compute(record, metrics=["idf1", "num_switches"])
    [idf1, switches] = figures.iloc[0]
    assert switches == 0
    assert idf1 > 0.7  # those who are hidden are not seen
