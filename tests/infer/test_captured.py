"""CUDA graphs: when one is recorded is tested anywhere, what it answers on a GPU."""

import pytest
import torch

from rtdetrv2_cli.infer import captured
from rtdetrv2_cli.infer.captured import Captured

CPU = torch.device("cpu")


def network(pictures):
    return pictures.float().mean((1, 2, 3))[:, None, None], pictures[:, :1, 0].float()


def batch(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture
def recorded(monkeypatch):
    """Which sizes of batch were recorded, by a device that takes itself for a GPU."""
    sizes = []

    def record(network, pictures, pool):
        sizes.append(len(pictures))
        return lambda pictures: ("graph", len(pictures))

    monkeypatch.setattr(captured, "_recorded", record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    return sizes


def test_elsewhere_than_on_cuda_the_network_runs_as_it_is(recorded):
    runs = Captured(network, CPU)
    for _ in range(3):
        assert torch.equal(runs(batch(2))[0], network(batch(2))[0])
    assert recorded == []
    assert runs.sizes == ()


def test_a_size_is_recorded_when_it_comes_again(recorded):
    runs = Captured(network, torch.device("cuda"))
    answers = [runs(batch(count)) for count in (4, 4, 4, 3)]
    assert recorded == [4]
    assert answers[1:3] == [("graph", 4)] * 2
    assert torch.equal(answers[3][0], network(batch(3))[0])  # the last of a video
    assert runs.sizes == (4,)


def test_only_so_many_are_recorded(recorded, monkeypatch):
    monkeypatch.setattr(captured, "_MOST", 2)
    runs = Captured(network, torch.device("cuda"))
    for count in (1, 2, 3) * 3:
        runs(batch(count))
    assert recorded == [1, 2]


def test_what_cannot_be_recorded_runs_all_the_same_and_that_is_said_once(
    recorded, monkeypatch, caplog
):
    def fail(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nand much more")

    monkeypatch.setattr(captured, "_recorded", fail)
    runs = Captured(network, torch.device("cuda"))
    for count in (1, 1, 1, 2, 2):
        assert torch.equal(runs(batch(count))[0], network(batch(count))[0])
    (told,) = caplog.messages
    assert told.endswith("(operation not permitted when stream is capturing)")


@pytest.mark.gpu
def test_a_graph_answers_what_the_network_does():
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    device = torch.device("cuda")
    runs = Captured(network, device)
    with torch.inference_mode():
        for seed, count in enumerate((2, 2, 3, 3, 2, 1, 3, 2)):
            pictures = batch(count, seed).to(device)
            found, expected = ([part.clone() for part in f(pictures)] for f in (runs, network))
            assert all(map(torch.equal, found, expected))
    assert runs.sizes == (2, 3)
