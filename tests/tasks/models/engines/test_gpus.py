"""The GPUs that may be used, and waiting for their memory, with a stand-in for nvidia-smi."""

import threading
from pathlib import Path

import pytest

from tasks.errors import EngineError
from tasks.models.engines.gpus import await_memory, list_gpus, restrict_to
from tests.fake_gpus import plug_in_gpus


def test_a_machine_without_nvidia_smi_has_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_gpus(tmp_path) == []


def test_without_nvidia_smi_the_device_files_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia3", "nvidia5", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [(g.name, g.total) for g in list_gpus(tmp_path)] == [("0", 0), ("1", 0)]


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (None, ["0", "1", "2"]),
        ("2,0", ["2", "0"]),
        ("GPU-1", ["GPU-1"]),
        ("1,7,0", ["1"]),
        ("MIG-4f, 2", ["MIG-4f", "2"]),
        ("", []),
        ("-1", []),
    ],
)
def test_cuda_visible_devices_is_honoured(
    listed: str | None, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in_gpus(tmp_path, 3, monkeypatch)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    gpus = list_gpus()
    assert [g.name for g in gpus] == names
    assert [restrict_to(g)["CUDA_VISIBLE_DEVICES"] for g in gpus] == names
    assert [g.total for g in gpus] == [0 if n.startswith("MIG") else 81_920 for n in names]


def test_numbers_are_those_of_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in_gpus(tmp_path, 2, monkeypatch)
    assert restrict_to(list_gpus()[1]) == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_memory_that_is_not_given_back_is_named_with_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = plug_in_gpus(tmp_path, 2, monkeypatch)
    gpus.free[1] = 20_480
    gpus.write("GPU-0a, 11, other, 500\nGPU-1a, 4711, python, 61440\n")
    await_memory(["0"], lambda g: 0.9 * g.total, "wait")
    said = r"GPU 1 has 20\.0 of 80\.0 GiB free and 72\.0 GiB are needed.* process 4711 \(python, 60\.0 GiB\).*, or wait"
    with pytest.raises(EngineError, match=said):
        await_memory(["0", "1"], lambda g: 0.9 * g.total, "wait", seconds=0)


def test_it_waits_until_the_memory_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = plug_in_gpus(tmp_path, 1, monkeypatch)
    gpus.free[0] = 0
    gpus.write()
    looks: list[int] = []

    def free_it() -> None:
        looks.append(len(looks))
        if len(looks) == 2:
            gpus.free[0] = 81_000
            gpus.write()

    await_memory(["0"], lambda g: 0.9 * g.total, "wait", free_it)
    assert looks == [0, 1]


def test_whoever_gives_up_waiting_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = plug_in_gpus(tmp_path, 1, monkeypatch)
    gpus.free[0] = 0
    gpus.write()
    closed = threading.Event()
    closed.set()

    def check() -> None:
        if closed.is_set():
            raise EngineError("closed")

    with pytest.raises(EngineError, match="closed"):
        await_memory(["0"], lambda g: g.total, "wait", check)
