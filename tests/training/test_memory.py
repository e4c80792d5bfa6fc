"""The C library keeps what tensors free: no page is asked of the kernel twice."""

import platform
import subprocess
import sys

import pytest

ROUNDS = """
import resource, torch
from dlkit.training import memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def a_round():
    tensors = [torch.ones(1 << 20) for _ in range(8)]  # 4 MiB each, 1,024 pages

memory.keep_freed()
a_round()
a_round()  # the heap has its size
before = faults()
for _ in range(5):
    a_round()
print(faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives freed memory back by these rules")
def test_memory_that_was_freed_is_used_again_without_page_faults() -> None:
    done = subprocess.run([sys.executable, "-c", ROUNDS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10_000  # by default 5 rounds of 8 times 1,024; a few while the heap finds its size
