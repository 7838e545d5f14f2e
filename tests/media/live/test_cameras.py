from pathlib import Path

import pytest

from rtdetrv2_cli.media.live.cameras import Camera, list_cameras


@pytest.fixture
def machine(tmp_path):
    """A machine's folders of devices and of what the kernel says of them; adds a camera."""
    system, devices = tmp_path / "sys", tmp_path / "dev"
    devices.mkdir()

    def add(device: str, **said: str) -> Path:
        (devices / device).touch()
        (system / device).mkdir(parents=True)
        for key, text in said.items():
            (system / device / key).write_text(text)
        return devices / device

    return system, devices, add


def test_cameras_are_named_as_the_kernel_names_them_in_order_of_their_number(machine):
    system, devices, add = machine
    tenth = add("video10", name="Rear: USB 2.0\n", index="0\n")
    first = add("video0", name="Integrated Camera: Integrated C\n", index="0\n")
    second = add("video1", name="Integrated Camera: Integrated C\n", index="1\n")
    assert list_cameras(system, devices) == [
        Camera(first, "Integrated Camera: Integrated C", 0, accessible=True),
        Camera(second, "Integrated Camera: Integrated C", 1, accessible=True),
        Camera(tenth, "Rear: USB 2.0", 0, accessible=True),
    ]


def test_a_device_that_the_kernel_does_not_describe_has_no_name(tmp_path):
    (tmp_path / "video0").touch()
    cameras = list_cameras(tmp_path / "nowhere", tmp_path)
    assert cameras == [Camera(tmp_path / "video0", None, None, accessible=True)]


def test_other_devices_are_no_cameras(tmp_path):
    for name in ("video", "videodev", "vbi0", "video0a"):
        (tmp_path / name).touch()
    assert list_cameras(tmp_path, tmp_path) == []


def test_a_machine_without_devices_has_no_camera(tmp_path):
    assert list_cameras(tmp_path / "sys", tmp_path / "dev") == []


def test_a_camera_that_cannot_be_opened_is_told(tmp_path):
    (tmp_path / "video0").symlink_to("unplugged")
    [camera] = list_cameras(tmp_path, tmp_path)
    assert not camera.accessible
