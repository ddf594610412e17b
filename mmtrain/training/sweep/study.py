"""The study of a sweep with Optuna: a journal in the folder of the sweep."""

from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

STUDY, NAME = "study.log", "sweep"


def storage_of(sweep_dir: Path) -> JournalStorage:
    """The storage of the study in the folder of a sweep."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(sweep_dir / STUDY)))
