import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.demo.checkpoint import write_checkpoint
from tasks.media import ImageRef
from tasks.models.engines.engine import Workplace
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache

SIZES = ((112, 168), (56, 84), (200, 90))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = ("订单", "物流", "物流-派送中", "退款", "优惠券A", "优惠券B")
    answers = (f'{{"理由": "图中有订单号{i}", "所属类别": "{labels[i % 6]}"}} 请看图并回答。' for i in range(200))
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), answers)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRef]:
    folder, noise = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    refs: list[ImageRef] = []
    for number, (width, height) in enumerate(SIZES):
        path = folder / f"{number}.png"
        Image.fromarray(noise.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        refs.append(ImageRef(path=str(path), sha256=digest, width=width, height=height))
    return refs


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("place")
    return Workplace(ImageCache(folder / "images"), folder / "logs")


@pytest.fixture(scope="module")
def engine(checkpoint: Path, place: Workplace):
    torch.set_num_threads(2)
    opened = LocalEngine(EngineSpec(engine="local", model=str(checkpoint), batch_size=8), place)
    yield opened
    opened.close()
