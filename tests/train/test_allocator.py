"""What a step frees serves the next one."""

import platform
import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource, sys, torch
from rtdetrv2_cli.train.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
faults = []
for _ in range(20):
    blocks = [torch.ones(10_000_000) for _ in range(3)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[4])
"""


def page_faults(how):
    done = subprocess.run(
        [sys.executable, "-c", PAGE_FAULTS, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_that_was_freed_is_not_asked_for_again():
    kept, asked_anew = page_faults("kept"), page_faults("plain")
    assert kept < 500
    assert asked_anew > 10 * kept  # else the test would show nothing
