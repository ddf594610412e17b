"""Weights & Biases: without a login or a network it is offline, without a prompt and without an error."""

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
    """Lightning's logger without `anonymous`, which Lightning always sets, and which causes a warning."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._wandb_init.pop("anonymous", None)


def make_wandb(*, run_dir: str, project: str, name: str | None) -> WandbLogger:
    """Create a logger that continues the same wandb run if the run folder is resumed.

    Args:
        run_dir: run folder, with the wandb files and the wandb id.
        project: project in wandb.
        name: displayed name; None for that of the folder.
    """
    import wandb

    folder = Path(run_dir)
    os.environ.setdefault("WANDB_SILENT", "true")
    _keep_caches_out_of_a_home_without_access(folder)
    if wandb.run is not None:
        wandb.finish()  # the previous run of a sweep, which Lightning would continue
    options: dict[str, Any] = {
        "save_dir": folder,
        "project": project,
        "name": name or folder.name,
        "id": _id_of(folder),
        "resume": "allow",
        "settings": wandb.Settings(init_timeout=20),
    }
    mode = os.environ.get("WANDB_MODE", "online")
    if mode == "online" and has_login():  # without a login there would be a prompt
        try:
            logger = QuietWandbLogger(**options)
            _ = logger.experiment  # connects
            return logger
        except (wandb.errors.Error, OSError) as error:
            print_escaped(
                f"wandb cannot be reached ({type(error).__name__}); continuing offline; `wandb sync` uploads it later"
            )
            wandb.teardown()  # its service would report that the id of the run is in use
            os.environ["WANDB_MODE"] = "offline"  # the next run of a sweep does not have to wait again
    return QuietWandbLogger(**options | {"resume": None, "mode": "disabled" if mode == "disabled" else "offline"})


def _keep_caches_out_of_a_home_without_access(folder: Path) -> None:
    """If the home folder cannot be written, wandb keeps its caches in the run folder, and prints no warnings."""
    from wandb.env import get_cache_dir, get_data_dir

    for name, place in (("WANDB_CACHE_DIR", get_cache_dir()), ("WANDB_DATA_DIR", get_data_dir())):
        try:
            Path(place).mkdir(parents=True, exist_ok=True)
        except OSError:
            os.environ[name] = str(folder / "wandb" / "cache")


def _id_of(folder: Path) -> str:
    """The wandb id of a run folder, created if there is none."""
    path = folder / "wandb_id.txt"
    known = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
    if not known.isalnum():  # missing, or zeros after a power failure
        known = secrets.token_hex(4)
        write_text(path, known)
    return known


def has_login() -> bool:
    """Whether an API key is set, or the netrc file has the host of wandb (or of a private server)."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
