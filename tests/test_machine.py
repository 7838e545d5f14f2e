import os

import pytest

from rtdetrv2_cli import machine


@pytest.fixture
def cores(tmp_path, monkeypatch):
    """Cores that a process of eight may use, with files of control groups and its membership."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    def count(membership: str, files: dict[str, str]) -> int:
        own = tmp_path / "membership"
        own.write_text(membership)
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return machine.available_cores(tmp_path / "groups", own)

    return count


def test_without_limits_it_is_the_cores_it_may_run_on(cores):
    assert cores("", {}) == 8
    assert cores("0::/a", {"a/cpu.max": "max 100000\n"}) == 8


def test_a_process_that_shares_the_machine_takes_no_more_than_its_share(cores, monkeypatch):
    monkeypatch.setattr(machine, "_granted_here", None)
    machine.limit_cores(3)
    assert cores("", {}) == 3
    machine.limit_cores(9)
    assert cores("", {}) == 8


def test_a_container_grants_less_rounded_up(cores):
    assert cores("0::/", {"cpu.max": "150000 100000\n"}) == 2


def test_the_narrowest_group_above_counts(cores):
    files = {"cpu.max": "600000 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}
    assert cores("0::/a/b", files) == 3


def test_the_first_version_of_control_groups_is_read_too(cores):
    files = {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"}
    assert cores("3:cpu,cpuacct:/a\n2:memory:/a\n", files) == 1
    files = {"cpu/a/cpu.cfs_quota_us": "-1"}
    assert cores("3:cpu,cpuacct:/a\n", files) == 8


def test_the_processor_has_a_name(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor: 0\nmodel name\t: Fast 9000\n")
    assert machine.processor(info) == "Fast 9000"
    assert machine.processor(tmp_path / "absent")


@pytest.mark.parametrize(
    ("torch", "file", "expected"),
    [
        ("2.14.1", None, False),
        ("2.14.1", "dev/nvidiactl", True),
        ("2.14.1+cu130", "usr/lib/wsl/lib/libcuda.so.1", True),
        ("2.14.1+cpu", "dev/nvidiactl", False),
        ("2.14.1", "dev/dri", False),
        ("2.14.1+xpu", "dev/dri", True),
        ("2.14.1+rocm6.4", "dev/kfd", True),
        ("2.14.1+rocm6.4", "dev/nvidiactl", False),
        ("2.14.1a0+gitabc", "dev/nvidiactl", True),
    ],
)
def test_an_accelerator_may_be_there_where_pytorch_and_a_driver_know_it(
    tmp_path, monkeypatch, torch, file, expected
):
    monkeypatch.setattr(machine, "version", lambda _: torch)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    if file is not None:
        path = tmp_path / file
        path.parent.mkdir(parents=True)
        path.touch()
    assert machine.may_have_accelerator(tmp_path) is expected


@pytest.mark.parametrize(("chip", "expected"), [("arm64", True), ("x86_64", False)])
def test_apples_own_chips_are_accelerators(monkeypatch, chip, expected):
    monkeypatch.setattr(machine.sys, "platform", "darwin")
    monkeypatch.setattr(machine.platform, "machine", lambda: chip)
    assert machine.may_have_accelerator() is expected


@pytest.mark.parametrize(
    ("text", "emulates"),
    [
        ("flags\t\t: sse avx512f avx512_bf16 vaes\n", False),
        ("flags\t\t: sse amx_bf16\n", False),
        ("Features\t: asimd bf16\n", False),
        ("flags\t\t: sse avx512f avx512vl\n", True),
        ("", False),  # not Linux
    ],
)
def test_a_cpu_that_lists_no_bf16_emulates_it(tmp_path, text, emulates):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert machine.emulates_bf16(path) is emulates
