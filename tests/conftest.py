"""What all tests share: no network, the same random numbers in any order, no GPU tests without a GPU."""

import os
import random
import tempfile

import pytest

# Libraries read these when they are imported, which is after this file. The home and the caches are empty folders, so
# that no test can pass or fail by what this machine's user has done before. Workers of pytest-xdist share those of the
# process that started them, so that emoji are drawn once.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _HOME = tempfile.TemporaryDirectory(prefix="mmtrain-tests-", ignore_cleanup_errors=True)  # deleted at exit
    os.environ["HOME"] = _HOME.name
    os.environ["MMTRAIN_CACHE"] = os.path.join(_HOME.name, "mmtrain")  # noqa: PTH118 - a string is wanted
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TORCH_HOME", "HF_DATASETS_CACHE"):
        os.environ.pop(variable, None)
os.environ["HF_HOME"] = os.path.join(os.environ["HOME"], f"huggingface-{os.getpid()}")  # noqa: PTH118
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `slow` come first, the longest before the others: the last one to begin keeps the others waiting.

    pytest-xdist gives each worker a part of the list, from one end to the other. So each part begins with its share of
    the slow ones.
    """
    slow = [item for item in items if item.get_closest_marker("slow") is not None]
    quick = [item for item in items if item.get_closest_marker("slow") is None]
    slow.sort(key=_seconds, reverse=True)
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    total, begun = len(items), 0
    items.clear()
    for part in range(parts):
        items += slow[part::parts]
        # where the scheduler cuts: each worker gets an equal share of what is left
        begun += (total - begun) // (parts - part)
        taken = max(begun - len(items), 0)
        items += quick[:taken]
        del quick[:taken]
    items += quick


def _seconds(item: pytest.Item) -> float:
    marker = item.get_closest_marker("slow")
    return 0 if marker is None else float(marker.kwargs.get("seconds", 10))


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
