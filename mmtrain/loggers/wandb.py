"""Weights & Biases without surprises: no login or no network means offline, never a prompt, never a failed run."""

import netrc
import os
import secrets
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger


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
    id_file = folder / "wandb_id.txt"
    if not id_file.exists():
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(secrets.token_hex(4))
    options: dict[str, Any] = {
        "save_dir": folder,
        "project": project,
        "name": name or folder.name,
        "id": id_file.read_text().strip(),
        "resume": "allow",
        "settings": wandb.Settings(init_timeout=20),
    }
    mode = os.environ.get("WANDB_MODE", "online" if has_login() else "offline")
    if mode == "online":
        try:
            logger = WandbLogger(**options)
            _ = logger.experiment  # connects
            return logger
        except (wandb.errors.Error, OSError) as error:
            print(f"wandb cannot be reached ({type(error).__name__}); going on offline, `wandb sync` sends it later")
    os.environ["WANDB_MODE"] = "disabled" if mode == "disabled" else "offline"
    return WandbLogger(**options | {"resume": None})


def has_login() -> bool:
    """Whether an API key is set, or wandb's host stands in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
