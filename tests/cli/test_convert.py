"""Records in other formats: by `convert`, and by what `detect` saves beside its own."""

import json

import numpy as np
import pytest
from PIL import Image

RUN = {"type": "run", "schema": 1, "model": {"name": "m", "classes": ["person", "traffic light"]}}
BOXES = ([1.5, 2.25, 33.75, 40.0], [10.0, 8.0, 20.5, 30.5], [0.0, 0.0, 64.0, 48.0])


def frame(source, index=0, *, pts=None, boxes=(), stream=0, **more):
    detections = [
        {
            "class_id": place % 2,
            "class_name": RUN["model"]["classes"][place % 2],
            "confidence": round(0.9 - place / 10, 4),
            "box": box,
            **more,
        }
        for place, box in enumerate(boxes)
    ]
    return {
        "type": "frame",
        "source": source,
        "stream": stream,
        "frame": index,
        "pts": pts,
        "time": index / 25,
        "width": 64,
        "height": 48,
        "detections": detections,
    }


PICTURES = [RUN, frame("a/1.jpg", boxes=BOXES), frame("b/1.png", stream=1), frame("b/2.jpg")]
VIDEO = [
    RUN,
    *(
        frame("cams/a.mp4", index, pts=512 * index, boxes=BOXES[: index % 3], track_id=index)
        for index in range(5)
    ),
    frame("=odd, name.jpg", stream=1, boxes=BOXES[:1]),
    {"type": "error", "source": "bad.jpg", "stream": 2, "code": "decode_failed", "message": "no"},
]


@pytest.fixture
def recorded(tmp_path):
    def write(records, name="run/detections.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
        return path

    return write


def frames(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_round_trip_loses_nothing_that_a_format_holds(cli, recorded, tmp_path):
    path = recorded(VIDEO)
    for to in ("json", "csv", "parquet"):
        assert cli("convert", path, "--to", to).code == 0
        between = tmp_path / f"run/detections.{to}"
        assert cli("convert", between, "--to", "jsonl", "-o", f"{to}.jsonl").code == 0
    assert frames(tmp_path / "json.jsonl") == VIDEO
    with_objects = [each for each in VIDEO if each["type"] == "frame" and each["detections"]]
    assert frames(tmp_path / "parquet.jsonl") == with_objects
    known = [
        {k: None if k in ("pts", "width", "height") else v for k, v in each.items()}
        for each in with_objects
    ]
    assert frames(tmp_path / "csv.jsonl") == known


def test_coco_results_are_read_by_pycocotools(cli, recorded, tmp_path):
    from pycocotools.coco import COCO

    assert cli("convert", recorded(PICTURES), "--to", "coco", "--coco-ids", "coco91").code == 0
    results = json.loads((tmp_path / "run/coco.json").read_text("utf-8"))
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": number, "width": 64, "height": 48} for number in (1, 2, 3)],
        "categories": [{"id": 1, "name": "person"}, {"id": 10, "name": "traffic light"}],
        "annotations": [],
    }
    truth.createIndex()
    loaded = truth.loadRes(results)
    assert [each["bbox"] for each in loaded.loadAnns(loaded.getAnnIds([1]))] == [
        [1.5, 2.25, 32.25, 37.75],
        [10.0, 8.0, 10.5, 22.5],
        [0.0, 0.0, 64.0, 48.0],
    ]
    assert [each["category_id"] for each in results] == [1, 10, 1]
    assert {each["file_name"] for each in results} == {"a/1.jpg"}


def test_pictures_with_numbers_of_their_own_keep_them(cli, recorded, tmp_path):
    numbered = [RUN, frame("000000000139.jpg", boxes=BOXES), frame("x/000000000785.jpg")]
    cli("convert", recorded(numbered), "--to", "coco")
    results = json.loads((tmp_path / "run/coco.json").read_text("utf-8"))
    assert {each["image_id"] for each in results} == {139}


def test_yolo_files_are_read_by_supervision(cli, recorded, tmp_path):
    import supervision as sv

    records = [RUN, frame("a.jpg", boxes=BOXES), frame("b.jpg")]
    assert cli("convert", recorded(records), "--to", "yolo").code == 0
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(pictures / name)
    labels = tmp_path / "run/labels"
    data = sv.DetectionDataset.from_yolo(str(pictures), str(labels), str(labels / "data.yaml"))
    found = data.annotations[str(pictures / "a.jpg")]
    assert np.allclose(found.xyxy, BOXES, atol=0.01)
    assert found.class_id.tolist() == [0, 1, 0]
    assert len(data.annotations[str(pictures / "b.jpg")]) == 0
    assert list(data.classes) == ["person", "traffic light"]


def test_files_of_equal_names_never_meet(cli, recorded, tmp_path):
    records = [
        RUN,
        *(frame(name) for name in ("a/1.jpg", "a/1.png", "b/1.jpg", "clip/000000.jpg")),
        frame("clip.mp4", 0, pts=0),
        frame("A/1.jpg"),
    ]
    assert cli("convert", recorded(records), "--to", "yolo").code == 0
    made = {str(p.relative_to(tmp_path / "run/labels")) for p in tmp_path.rglob("*.txt")}
    assert len(made) == 6
    assert len({name.casefold() for name in made}) == 6
    assert "b/1.txt" in made
    assert "clip.mp4/000000.txt" in made


def test_mot_files_hold_videos(cli, recorded, tmp_path):
    assert cli("convert", recorded(VIDEO), "--to", "mot").code == 0
    (path,) = (tmp_path / "run/mot").rglob("*.txt")
    assert path.relative_to(tmp_path / "run/mot").as_posix() == "cams/a.txt"
    rows = path.read_text().splitlines()
    assert len(rows) == sum(len(each["detections"]) for each in VIDEO[1:6])
    assert rows[0] == "2,1,1.50,2.25,32.25,37.75,0.9,-1,-1,-1"
    outcome = cli("convert", recorded(PICTURES, "p/detections.jsonl"), "--to", "mot")
    assert outcome.code == 3
    assert "about no video" in outcome.err


def test_csv_is_read_by_pandas(cli, recorded, tmp_path):
    import pandas as pd

    cli("convert", recorded(VIDEO), "--to", "csv")
    table = pd.read_csv(tmp_path / "run/detections.csv")
    assert len(table) == 5
    assert table["source"].iloc[-1] == "'=odd, name.jpg"
    assert table["x2"].iloc[0] == 33.75


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["gone.jsonl", "--to", "csv"], 3, "does not exist"),
        (["run", "--to", "jsonl"], 2, "replaced by itself"),
        (["run", "--to", "csv"], 2, "would be replaced"),
        (["labels.txt", "--to", "csv"], 2, "no file of records"),
        (["empty", "--to", "csv"], 3, "has no detections.jsonl"),
        (["damaged.jsonl", "--to", "csv", "-o", "x.csv"], 3, "line 2"),
        (["sizeless.csv", "--to", "yolo", "-o", "y"], 3, "convert detections.jsonl"),
        (["strange.jsonl", "--to", "coco", "--coco-ids", "coco91"], 3, "no class of COCO"),
    ],
)
def test_what_cannot_be_converted_is_told_in_one_sentence(
    arguments, code, message, cli, recorded, tmp_path
):
    recorded(VIDEO)
    (tmp_path / "run/detections.csv").write_text("mine")
    (tmp_path / "labels.txt").write_text("0 1 2 3 4")
    (tmp_path / "empty").mkdir()
    recorded([RUN, {"type": "frame", "source": "a"}], "damaged.jsonl")
    (tmp_path / "sizeless.csv").write_text(
        "source,stream,frame,time,class_id,class_name,confidence,x1,y1,x2,y2,track_id\r\n"
        "a.jpg,0,0,0.0,0,person,0.5,1,2,3,4,\r\n"
    )
    strange = frame("a.jpg", boxes=BOXES)
    strange["detections"][0]["class_name"] = "gnu"
    recorded([RUN, strange], "strange.jsonl")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    outcome = cli("convert", *arguments)
    assert outcome.code == code
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


FORMATS = ("--save-csv", "--save-json", "--save-coco", "--save-txt", "--save-mot")


def test_what_a_run_saves_is_what_convert_makes(cli, detect, make_clip, make_picture, tmp_path):
    make_clip("in/clip.mp4", 5)
    make_picture("in/a.png")
    assert detect("in", *FORMATS, "--no-media", "--conf", 0.01).code == 0
    out = tmp_path / "detections"
    for to, name in [
        ("csv", "detections.csv"),
        ("json", "detections.json"),
        ("coco", "coco.json"),
        ("yolo", "labels"),
        ("mot", "mot"),
    ]:
        assert cli("convert", out, "--to", to, "-o", f"again/{name}").code == 0
        again = tmp_path / "again" / name
        pairs = [(p, out / p.relative_to(tmp_path / "again")) for p in [again, *again.rglob("*")]]
        files = [(made, saved) for made, saved in pairs if made.is_file()]
        assert files
        assert all(made.read_bytes() == saved.read_bytes() for made, saved in files if to != "json")
        if to == "json":
            made, saved = (json.loads(path.read_text("utf-8")) for path in files[0])
            assert made == saved


def test_saved_files_go_on_with_the_records(detect, make_picture, tmp_path):
    options = ("in", "--save-coco", "--save-txt", "--no-media", "--conf", 0.01)
    make_picture("in/a.png")
    detect(*options)
    make_picture("in/b.png")
    assert detect(*options).code == 2
    assert detect(*options, "--resume").code == 0
    results = json.loads((tmp_path / "detections/coco.json").read_text("utf-8"))
    assert {each["file_name"] for each in results} == {"a.png", "b.png"}
    (tmp_path / "detections/coco.json").unlink()
    assert "nothing to do" in detect(*options, "--resume").err
    assert json.loads((tmp_path / "detections/coco.json").read_text("utf-8")) == results


def test_crops_show_what_was_found(detect, records, make_picture, tmp_path):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, 32:] = 255
    make_picture("in/sub/a.png", image)
    assert detect("in", "--save-crop", "--no-media", "--conf", 0.01).code == 0
    (recorded,) = (
        each
        for each in records(tmp_path / "detections/detections.jsonl")
        if each["type"] == "frame"
    )
    assert recorded["detections"]
    for number, found in enumerate(recorded["detections"], 1):
        x1, y1, x2, y2 = found["box"]
        place = f"detections/crops/{found['class_name']}/sub/a-{number}.jpg"
        crop = np.asarray(Image.open(tmp_path / place)).astype(int)
        assert abs(crop.shape[1] - (x2 - x1)) <= 2
        assert abs(crop.shape[0] - (y2 - y1)) <= 2
        expected = image[int(y1) : int(y1) + crop.shape[0], int(x1) : int(x1) + crop.shape[1]]
        assert abs(crop.mean() - expected.mean()) < 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--save-coco", "--no-jsonl"], "leave out --no-jsonl"),
        (["--coco-ids", "coco91"], "--save-coco, which is not given"),
        (["--save-mot"], "no video is among the inputs"),
        (["--save-txt", "-o", "-"], "only a folder"),
        (["--save-crop", "-o", "a.jsonl"], "only a folder"),
    ],
)
def test_formats_that_a_run_cannot_write_are_refused(options, message, detect, make_picture):
    make_picture("a.png")
    outcome = detect("a.png", *options)
    assert outcome.code == 2
    assert message in outcome.err
