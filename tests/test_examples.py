"""Every example runs and prints what it promises."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

PRINTS = {
    "annotate_video.py": "objects in 100 frames",
    "count_people.py": "people",
    "detect_image.py": "person",
    "use_network.py": "logits (2, 300, 80) boxes (2, 300, 4)",
}


def test_every_example_is_listed_here():
    assert sorted(PRINTS) == sorted(p.name for p in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", PRINTS)
def test_example_prints_what_it_promises(name, tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert PRINTS[name] in done.stdout


def test_annotated_video_and_its_records_are_written(tmp_path):
    script = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import annotate_video as a; "
    script += "from pathlib import Path; a.main(Path('out'))"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=120)
    assert (tmp_path / "out" / "walkers.mp4").stat().st_size > 10_000
    assert (tmp_path / "out" / "walkers.csv").read_text().count("person") > 50
