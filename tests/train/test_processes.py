import os
import runpy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.processes import (
    Processes,
    any_of_them,
    joined_processes,
    wait_for_all,
)

pytestmark = pytest.mark.usefixtures("restore_rng")

SCRIPT = """
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from rtdetrv2_cli.model.config import RtDetrV2Config
from rtdetrv2_cli.model.rtdetr import RtDetrV2ForObjectDetection
from rtdetrv2_cli.train.learner import Learner
from rtdetrv2_cli.train.data.loader import TrainingBatch
from rtdetrv2_cli.train.processes import any_of_them, joined_processes, wait_for_all
from rtdetrv2_cli.train.recipe import Recipe

folder = Path(sys.argv[1])
torch.set_num_threads(1)


def gradients_of(case, processes):
    model = RtDetrV2ForObjectDetection(RtDetrV2Config.from_dict(case["config"]))
    model.load_state_dict(case["weights"])
    learner = Learner(model, Recipe(groups=(), warmup_steps=1, clip_norm=0), steps=1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    gradients = {}

    def note(optimiser, *_):
        gradients.update({n: p.grad.clone() for n, p in model.named_parameters()})

    handle = register_optimizer_step_pre_hook(note)
    share = len(case["labels"]) // processes.world
    mine = slice(processes.rank * share, (processes.rank + 1) * share)
    report = learner.learn(TrainingBatch(case["pixels"][mine], case["labels"][mine]))
    handle.remove()
    return {
        "gradients": gradients,
        "report": report,
        "weights": model.state_dict(),
        "average": learner.average.network.state_dict(),
    }


with joined_processes("auto" if len(sys.argv) > 2 else "cpu") as (processes, device):
    assert device == "cpu"
    cases = torch.load(folder / "cases.pt", weights_only=True)
    found = {name: gradients_of(case, processes) for name, case in cases.items()}
    cpu = torch.device(device)
    found["place"] = [processes.rank, processes.world, processes.is_first]
    found["votes"] = [
        any_of_them(processes.rank == processes.world - 1, processes, cpu),
        any_of_them(False, processes, cpu),
        any_of_them(True, processes, cpu),
    ]
    wait_for_all(processes)
    torch.save(found, folder / f"{processes.world}-{processes.rank}.pt")
assert not distributed.is_initialized()
"""


def labels_of(counts):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "class_labels": torch.randint(3, (count,), generator=generator),
            "boxes": torch.rand(count, 4, generator=generator) * 0.4 + 0.2,
        }
        for count in counts
    ]


def alike(case):
    """The same case, its second half like its first."""
    halves = torch.cat([case["pixels"][:2]] * 2)
    return case | {"pixels": halves, "labels": case["labels"][:2] * 2}


@pytest.fixture(scope="module")
def cases(tiny_config):
    """Batches of four pictures, and a network that is not as it began."""
    torch.manual_seed(0)
    still = replace(tiny_config, label_noise_ratio=0.0, box_noise_scale=0.0)
    model = RtDetrV2ForObjectDetection(still)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.03)
    pixels = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)

    def case(counts, **changes):
        config = replace(still, **changes)
        network = RtDetrV2ForObjectDetection(config)
        network.load_state_dict(model.state_dict(), strict=False)
        return {
            "config": config.to_dict(),
            "weights": network.state_dict(),
            "pixels": pixels,
            "labels": labels_of(counts),
        }

    return {
        "equal": case([2, 1, 1, 2]),
        "unequal": case([3, 1, 0, 1], num_denoising=0),
        "empty half": case([2, 3, 0, 0]),
        "noise": alike(case([2, 1, 2, 1], label_noise_ratio=0.5, box_noise_scale=1.0)),
    }


@pytest.fixture(scope="module")
def results(cases, tmp_path_factory):
    """What the script found alone, and in the first and second of two processes."""
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    torch.save(cases, folder / "cases.pt")
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    run = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", str(script), str(folder), "auto"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Warning" not in run.stderr
    arguments, threads = sys.argv, torch.get_num_threads()
    sys.argv = [str(script), str(folder)]
    try:
        runpy.run_path(str(script))
    finally:
        sys.argv = arguments
        torch.set_num_threads(threads)
    files = [folder / name for name in ("1-0.pt", "2-0.pt", "2-1.pt")]
    return [torch.load(file, weights_only=True) for file in files]


@pytest.mark.parametrize("name", ["equal", "unequal"])
def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(name, results):
    alone, first, second = (result[name]["gradients"] for result in results)
    assert list(alone) == list(first) == list(second)
    different = [key for key in alone if not torch.equal(first[key], second[key])]
    assert different == []
    largest = {key: float(gradient.abs().max()) for key, gradient in alone.items()}
    assert sum(size > 1e-7 for size in largest.values()) > 0.95 * len(largest)
    off = {key: float((first[key] - alone[key]).abs().max()) for key in alone}
    assert [key for key in off if off[key] > 1e-5 * largest[key]] == []


@pytest.mark.parametrize("name", ["equal", "unequal"])
def test_the_losses_of_two_processes_have_the_loss_of_one_as_their_mean(name, results):
    alone, first, second = (result[name]["report"] for result in results)
    for term, value in alone.items():
        assert (first[term] + second[term]) / 2 == pytest.approx(value, rel=1e-5)
    assert first["loss"] != second["loss"]


@pytest.mark.parametrize("name", ["equal", "unequal", "empty half", "noise"])
def test_processes_keep_the_same_weights(name, results, cases):
    _, first, second = (result[name] for result in results)
    for kind in ("weights", "average"):
        keys = first[kind].keys()
        assert [key for key in keys if not torch.equal(first[kind][key], second[kind][key])] == []
    before = cases[name]["weights"]
    changed = [k for k, tensor in first["weights"].items() if not torch.equal(tensor, before[k])]
    assert len(changed) > 0.5 * len(before)


def test_a_process_without_objects_trains_along(results):
    _, first, second = (result["empty half"] for result in results)
    assert all(gradient.isfinite().all() for gradient in first["gradients"].values())
    assert second["report"]["loss_bbox"] == 0
    assert second["report"]["loss"] > 0


def test_each_process_has_its_own_noise(results):
    _, first, second = (result["noise"]["report"] for result in results)
    assert first["loss"] != second["loss"]
    assert first["loss_bbox"] == second["loss_bbox"]  # the pictures are the same


def test_processes_know_their_place_and_what_one_of_them_wishes(results):
    assert [result["place"] for result in results] == [[0, 1, True], [0, 2, True], [1, 2, False]]
    assert [result["votes"] for result in results] == [[True, False, True]] * 3


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with joined_processes("cuda:3") as (processes, device):
        assert processes == Processes(0, 1)
        assert device == "cuda:3"
        assert processes.is_first
        wait_for_all(processes)
        assert any_of_them(True, processes, torch.device("cpu"))
        assert not any_of_them(False, processes, torch.device("cpu"))
    assert not torch.distributed.is_initialized()
