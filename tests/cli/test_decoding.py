"""Where a run decodes its videos, which needs no GPU to be decided."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from rtdetrv2_cli.cli import capacity
from rtdetrv2_cli.media import hardware


@pytest.mark.parametrize(
    ("device", "draws", "crops", "gpu"),
    [
        ("cuda:1", False, None, 1),
        ("cuda:1", True, None, None),
        ("cuda:1", False, Path("crops"), None),
        ("cuda:0,cuda:1", False, None, None),
        ("cpu", False, None, None),
    ],
)
def test_pictures_stay_on_the_gpu_that_alone_wants_them(monkeypatch, device, draws, crops, gpu):
    monkeypatch.setattr(hardware, "devices", lambda: ("cuda",))
    monkeypatch.setattr(hardware, "device_refusal", lambda name: None)
    monkeypatch.setattr(hardware, "HWAccel", lambda *args, **options: (args, options))
    plan = SimpleNamespace(draws=draws, crops=crops)
    detector = SimpleNamespace(engine=SimpleNamespace(device=device))
    decoding = capacity.decoding(plan, "cuda", detector)
    expected = (("cuda",), {}) if gpu is None else (("cuda", gpu), {"is_hw_owned": True})
    assert decoding.opened(lambda accelerator: accelerator) == expected
