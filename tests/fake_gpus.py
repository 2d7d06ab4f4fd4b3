"""A stand-in for nvidia-smi, so that a machine without GPUs looks as if it had some."""

from pathlib import Path

import pytest


class FakeGpus:
    """GPUs of 80 GiB, all free, until a test changes that."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self.free = dict.fromkeys(range(count), 81_000)
        self.total = 81_920
        folder.mkdir(parents=True)
        script = folder / "nvidia-smi"
        script.write_text(f'#!/bin/sh\ncase "$1" in --query-gpu=*) cat {folder}/gpus;; *) cat {folder}/users;; esac\n')
        script.chmod(0o755)
        self.write()

    def write(self, users: str = "") -> None:
        """Let nvidia-smi print the present state; `users` are lines of uuid, pid, name, MiB."""
        rows = [f"{number}, GPU-{number}a, {self.total}, {free}" for number, free in self.free.items()]
        (self._folder / "gpus").write_text("\n".join(rows) + "\n")
        (self._folder / "users").write_text(users)


def plug_in_gpus(folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    """Put a stand-in for nvidia-smi that lists `count` GPUs first on PATH."""
    gpus = FakeGpus(folder / "nvidia", count)
    monkeypatch.setenv("PATH", str(folder / "nvidia"), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return gpus
