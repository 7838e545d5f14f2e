"""`--cluster` on a cluster of two nodes, both on this machine, of which anything may be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from outputs import content, is_the_same

pytest.importorskip("ray", reason="Ray is not installed: pip install 'rtdetrv2[ray]'")

pytestmark = pytest.mark.filterwarnings("default")  # Ray has some of its own

LOOK = ("--no-labels", "--line-width", "1", "--preset", "ultrafast", "--save-csv", "--save-crop")
PATIENCE = 240.0
"""Seconds, on a machine that is busy."""
PICTURES, FRAMES = 24, 288


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    """Two nodes of one core each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        made = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        made.add_node(**node)
        yield made
        made.shutdown()


@pytest.fixture
def folder(make_clip, make_picture) -> Path:
    for number in range(PICTURES):
        make_picture(f"in/{number}.png")
    options = {"g": "24", "crf": "20", "preset": "ultrafast"}
    return make_clip("in/clip.mp4", FRAMES, fps=Fraction(24), sound="aac", options=options).parent


@pytest.fixture
def whole(folder, detect) -> dict[str, object]:
    """What one machine makes of the folder."""
    assert detect(folder, "-o", "alone", *LOOK).code == 0
    return content(Path("alone"))


def workers(cluster) -> dict[int, Any]:
    """Processes that are a worker of the cluster, each with its node, which has started it."""
    raylets = {of.all_processes["raylet"][0].process.pid: of for of in cluster.list_all_nodes()}
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((place / "stat").read_text().rpartition(") ")[2].split()[1])
            if parent in raylets and (place / "cmdline").read_bytes().startswith(b"ray::_Actor"):
                found[int(place.name)] = raylets[parent]
    return found


class Deed:
    """Something that is done once a run has written some records."""

    def __init__(self, deed: Callable[[], object]) -> None:
        self.is_done = False
        self._deed = deed
        self._thread = Thread(target=self._wait)
        self._thread.start()

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if has_begun(Path("out")):
                self._deed()
                self.is_done = True
                return
            time.sleep(0.02)

    def join(self) -> None:
        self._thread.join()


def has_begun(folder: Path) -> bool:
    """Whether there are records of some frames."""
    with suppress(OSError):
        return (folder / "detections.jsonl.part").read_bytes().count(b"\n") > PICTURES // 4
    return False


def kill_a_worker(cluster) -> None:
    os.kill(next(iter(workers(cluster))), signal.SIGKILL)


def lost(folder: Path) -> int:
    return json.loads((folder / "run.json").read_text())["cluster"]["workers_lost"]


def test_there_must_be_room(cluster, folder, detect):
    refused = detect(folder, "-o", "out", "--cluster", cluster.address, "--workers", 9)
    assert refused.code == 2
    assert "room for 2 workers, not for 9" in refused.err
    refused = detect(folder, "-o", "out", "--cluster", cluster.address, "--gpus-per-worker", 1)
    assert refused.code == 2
    assert "room for 0 workers with 1 GPUs each" in refused.err


def test_a_model_that_workers_cannot_load_is_told(cluster, cli, folder, make_picture):
    damaged = make_picture("in/0.png").rename("damaged.safetensors")
    ended = cli("detect", folder, "-m", damaged, "-o", "out", "--cluster", cluster.address)
    assert ended.code == 4
    assert "damaged.safetensors" in ended.err


def test_local_has_nothing_to_do_with_a_cluster_that_runs_here(cluster, make_picture, tiny_weights):
    picture = make_picture("in/0.png")
    command = (sys.executable, "-m", "rtdetrv2_cli", "detect", picture, "-m", tiny_weights)
    where = ("-o", picture.parent / "out", "--cluster", "local", "--workers", "1")
    ended = subprocess.run([*command, *where], capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stderr
    assert "1 worker on this machine" in ended.stderr


@pytest.mark.slow
def test_two_nodes_make_what_one_machine_makes_though_workers_are_killed(
    cluster, folder, whole, detect
):
    deed = Deed(lambda: kill_a_worker(cluster))
    ended = detect(folder, "-o", "out", *LOOK, "--cluster", cluster.address)
    deed.join()
    assert deed.is_done
    assert ended.code == 0, ended.err
    assert "2 workers on" in ended.err
    is_the_same(Path("out"), whole, "together")
    assert lost(Path("out")) >= 1


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_and_leaves_no_worker(
    cluster, folder, whole, detect, tiny_weights
):
    arguments = ("detect", folder, "-m", tiny_weights, "-o", "out", *LOOK)
    program = (sys.executable, "-m", "rtdetrv2_cli", *map(str, arguments))
    address = ("--cluster", cluster.address)
    driver = subprocess.Popen([*program, *address], stderr=subprocess.DEVNULL)
    deed = Deed(driver.kill)
    assert driver.wait(PATIENCE) == -signal.SIGKILL
    deed.join()
    assert not Path("out/run.json").exists()
    deadline = time.monotonic() + PATIENCE
    while workers(cluster) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not workers(cluster)
    again = detect(folder, "-o", "out", *LOOK, *address, "--resume")
    assert again.code == 0, again.err
    is_the_same(Path("out"), whole, "resumed")


def test_a_node_may_go_away(cluster, folder, whole, detect):
    """The one worker has two cores, on one of two nodes that have as many.

    Their address is another one: the command is part of a node that has its own.
    """
    nodes = [
        cluster.add_node(
            num_cpus=2, object_store_memory=80 * 2**20, node_ip_address=f"127.0.0.{number}"
        )
        for number in (2, 3)
    ]

    def remove():
        [node] = workers(cluster).values()
        cluster.remove_node(node, allow_graceful=False)

    deed = Deed(remove)
    ended = detect(folder, "-o", "out", *LOOK, "--cluster", cluster.address, "--workers", 1)
    deed.join()
    for node in set(nodes) & set(cluster.list_all_nodes()):
        cluster.remove_node(node)
    assert deed.is_done
    assert ended.code == 0, ended.err
    is_the_same(Path("out"), whole, "without a node")
    assert lost(Path("out")) >= 1
