"""Weights & Biases without surprises: no login or no network means offline, never a prompt, never a failed run."""

import netrc
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytorch_lightning.loggers import WandbLogger

from mmtrain.io.escape import print_escaped
from mmtrain.io.run_files import write_text


class QuietWandbLogger(WandbLogger):
    """Lightning's logger without `anonymous`, which it always passes to wandb, and which wandb warns of."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._wandb_init.pop("anonymous", None)


def make_wandb(*, run_dir: str, project: str, name: str | None) -> WandbLogger:
    """A logger that goes on in the same wandb run when the run folder is resumed.

    Args:
        run_dir: folder of the run; its wandb files and the wandb id are kept there.
        project: project in wandb.
        name: shown name; None for the folder's.
    """
    import wandb

    folder = Path(run_dir)
    os.environ.setdefault("WANDB_SILENT", "true")
    _keep_caches_out_of_a_home_without_access(folder)
    if wandb.run is not None:
        wandb.finish()  # the run before this one in a sweep; Lightning would go on in it
    options: dict[str, Any] = {
        "save_dir": folder,
        "project": project,
        "name": name or folder.name,
        "id": _id_of(folder),
        "resume": "allow",
        "settings": wandb.Settings(init_timeout=20),
    }
    mode = os.environ.get("WANDB_MODE", "online")
    if mode == "online" and has_login():  # without a login it would ask for one
        try:
            logger = QuietWandbLogger(**options)
            _ = logger.experiment  # connects
            return logger
        except (wandb.errors.Error, OSError) as error:
            print_escaped(
                f"wandb cannot be reached ({type(error).__name__}); going on offline, `wandb sync` sends it later"
            )
            wandb.teardown()  # its service would say that the id of the run is in use
            os.environ["WANDB_MODE"] = "offline"  # a sweep need not wait for it again
    return QuietWandbLogger(**options | {"resume": None, "mode": "disabled" if mode == "disabled" else "offline"})


def _keep_caches_out_of_a_home_without_access(folder: Path) -> None:
    """Where the home cannot be written, wandb keeps its caches in the run folder; else it fills the terminal."""
    from wandb.env import get_cache_dir, get_data_dir

    for name, place in (("WANDB_CACHE_DIR", get_cache_dir()), ("WANDB_DATA_DIR", get_data_dir())):
        try:
            Path(place).mkdir(parents=True, exist_ok=True)
        except OSError:
            os.environ[name] = str(folder / "wandb" / "cache")


def _id_of(folder: Path) -> str:
    """The wandb id of a run folder, made when it has none."""
    path = folder / "wandb_id.txt"
    known = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
    if not known.isalnum():  # there is none, or a power failure left zeros
        known = secrets.token_hex(4)
        write_text(path, known)
    return known


def has_login() -> bool:
    """Whether an API key is set, or the host of wandb (or of one's own server) stands in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
