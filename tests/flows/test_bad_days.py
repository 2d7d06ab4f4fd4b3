"""Two runs with one output folder at once, and a clock that jumps: nothing is asked twice."""

import mmap
import os
import struct
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PrefectServer
from tests.flows.bad_days import (
    count_lost_items,
    count_reasked_answers,
    find_in_log,
    print_report,
    read_log,
    start_light,
    wait_for,
)
from tests.flows.test_kill import count_answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HOUR = 3600

_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static volatile long *jump;
__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_FILE"), O_RDONLY);
    jump = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
}
int clock_gettime(clockid_t clock, struct timespec *at) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, at);
    if (clock == CLOCK_REALTIME && jump) at->tv_sec += *jump;
    return code;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    int code = clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return code;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """A wall clock for child processes that can be moved while they run."""

    def __init__(self, folder: Path) -> None:
        source, library, self._file = folder / "clock.c", folder / "clock.so", folder / "clock"
        source.write_text(_CLOCK, encoding="utf-8")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        self._file.write_bytes(bytes(mmap.PAGESIZE))
        self.environment = os.environ | {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self._file)}

    def move(self, seconds: int) -> None:
        """Put the clock that many seconds beside the true time."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("l", seconds))


def test_two_runs_with_one_output_folder_at_once(prefect_server: PrefectServer, tmp_path: Path) -> None:
    both = [start_light(tmp_path), start_light(tmp_path)]
    assert [process.wait(timeout=600) for process in both] == [0, 0]
    seen = find_in_log(tmp_path, "Waiting for .* locked by run")
    assert "Continuing after" in read_log(tmp_path)
    assert read_log(tmp_path).count("settings and inputs are unchanged, reusing") >= 2
    again, missing = count_reasked_answers(tmp_path), count_lost_items(tmp_path / "run")
    print_report("two runs of one data set at once", seen, again, missing)
    assert (again, missing) == (0, 0)


def test_the_clock_jumps_an_hour_forward_and_back(prefect_server: PrefectServer, tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    process = start_light(tmp_path, clock.environment, slow=0.1)
    wait_for(lambda: count_answers(tmp_path) >= 20, process=process)
    clock.move(HOUR)
    wait_for(lambda: count_answers(tmp_path) >= 60, process=process)
    clock.move(-HOUR)
    wait_for(lambda: count_answers(tmp_path) >= 100, process=process)
    clock.move(0)
    assert process.wait(timeout=600) == 0
    again, missing = count_reasked_answers(tmp_path), count_lost_items(tmp_path / "run")
    print_report(
        "the clock jumps an hour forward, two back", "nothing; some times in the web UI are off", again, missing
    )
    assert (again, missing) == (0, 0)
