"""What a pool asks Ray for, by a stand-in; `tests/cli/test_ray.py` runs the real one."""

import sys
from types import SimpleNamespace

import pytest

from rtdetrv2_cli.errors import UsageError
from rtdetrv2_cli.jobs import ray_pool
from rtdetrv2_cli.jobs.ray_pool import LOCAL, Cluster, RayPool


def test_no_more_workers_are_begun_here_than_there_are_cores(monkeypatch):
    asked, ended = {}, []
    stand_in = SimpleNamespace(
        init=lambda address, **options: asked.update(options, address=address),
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": asked["num_cpus"]}}],
        shutdown=lambda: ended.append(True),
    )
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    monkeypatch.setattr(ray_pool, "available_cores", lambda: 3)
    with pytest.raises(UsageError, match="room for 3 workers, not for 99"):
        RayPool(Cluster(LOCAL, workers=99), lambda _: None, {}, None)
    assert ended == [True]
    assert asked["address"] == "local"  # whatever else runs on this machine
