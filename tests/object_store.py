"""A real S3 server on this machine, and what a test puts there."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def opened_store() -> Iterator[Any]:
    """A file system with an empty bucket `shelf`, which `s3://` finds by the usual variables."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'rtdetrv2[s3]'")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        s3fs.S3FileSystem.clear_instance_cache()
        system = s3fs.S3FileSystem()
        system.makedirs("shelf", exist_ok=True)  # servers of one process share what they have
        yield system
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def put(system: Any, folder: Path) -> None:
    """Makes `s3://shelf/in` what a folder is."""
    if system.exists("shelf/in"):
        system.rm("shelf/in", recursive=True)
    system.put(str(folder), "shelf/in", recursive=True)
