"""What all tests share: no network, the same random numbers in any order, no GPU tests without a GPU."""

import os
import random
import tempfile

import pytest

# Libraries read these when they are imported, which is after this file.
_CACHE = tempfile.TemporaryDirectory(prefix="mmtrain-tests-")  # goes when the process ends
os.environ["HF_HOME"] = _CACHE.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `slow` come first: one that began last would keep a worker busy while the others are done."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where there is none; torch is imported only to answer that."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def seed() -> None:
    """Seed every generator before each test, so that it draws the same whichever tests ran before it."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
