"""What is freed serves others: the next step, other threads, other programs."""

import platform
import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource, sys, torch
from rtdetrv2_cli.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
faults = []
for _ in range(20):
    blocks = [torch.ones(10_000_000) for _ in range(3)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[4])
"""


def page_faults(how, program=PAGE_FAULTS):
    done = subprocess.run(
        [sys.executable, "-c", program, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_memory_that_was_freed_is_not_asked_for_again():
    kept, asked_anew = page_faults("kept"), page_faults("plain")
    assert kept < 500
    assert asked_anew > 10 * kept  # else the test would show nothing


PICTURES = """
import resource, sys, threading
import numpy as np
from rtdetrv2_cli.allocator import keep_freed_pictures
if sys.argv[1] == "kept":
    keep_freed_pictures()
faults = []

def decode():
    for _ in range(20):
        copies = [np.ones((1280, 1920, 3), np.uint8) for _ in range(3)]
        del copies
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)

thread = threading.Thread(target=decode)
thread.start()
thread.join()
print(faults[-1] - faults[4])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_the_memory_of_a_picture_serves_the_next_one():
    kept, asked_anew = (page_faults(how, PICTURES) for how in ("kept", "plain"))
    assert kept < 500
    assert asked_anew > 10 * kept  # else the test would show nothing


ARENAS = """
import ctypes, sys, threading
from pathlib import Path
from rtdetrv2_cli.allocator import share_arenas
if sys.argv[1] == "shared":
    share_arenas()
malloc = ctypes.CDLL(None).malloc
malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
together, places = threading.Barrier(12), set()

def allocate():
    together.wait()
    for _ in range(200):
        places.add(malloc(1000) >> 26)  # an arena's heap begins at a multiple of 64 MB
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(places))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_threads_share_what_others_have_freed():
    def heaps(how):
        done = subprocess.run(
            [sys.executable, "-c", ARENAS, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert heaps("shared") <= 3  # one of them may lie across a border
    assert heaps("each their own") > 3


RETURNED = """
import ctypes, re, sys, time
from contextlib import nullcontext
from pathlib import Path
from rtdetrv2_cli.allocator import returned_regularly
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

blocks = [libc.malloc(100_000) for _ in range(400)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
blocks.pop()  # it keeps the heap as large as it is
for block in blocks:
    libc.free(block)
before, end = resident(), time.monotonic() + (30 if sys.argv[1] == "returned" else 1)
with returned_regularly(0.05) if sys.argv[1] == "returned" else nullcontext():
    while before - resident() < 30_000 and time.monotonic() < end:
        time.sleep(0.05)
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_is_free_in_the_middle_is_given_back():
    def kilobytes(how):
        done = subprocess.run(
            [sys.executable, "-c", RETURNED, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert kilobytes("returned") > 30_000
    assert kilobytes("plain") < 10_000  # else the test would show nothing
