"""Columns of JSON in tables of `datasets`: cells come back as they were."""

import json
from dataclasses import dataclass
from typing import Any

import datasets


@dataclass
class JsonCells(datasets.Json):
    """The `Json` of `datasets`, whose own reader changes the last digits of floats and refuses large integers."""

    def decode_example(self, example_data: str | None, token_per_repo_id: Any = None) -> Any:
        """What the JSON of a cell says."""
        return None if example_data is None else json.loads(example_data)
