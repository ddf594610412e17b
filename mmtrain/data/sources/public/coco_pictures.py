"""Where the pictures of COCO lie: train2014, val2014 and test2015, or train2017 and val2017, which are the same ones.

The 2017 folders cut the pictures of 2014 anew and name them by number alone, so that either serves either annotation.
"""

from mmtrain.data.sources.public.layout import Layout


class CocoPictures:
    """The folders of pictures that are there.

    Args:
        layout: of the data set.
        folders: the usual folders of which there must be one, the first named first in a message.

    Raises:
        ConfigError: when there is none of them.
    """

    def __init__(self, layout: Layout, *, folders: tuple[str, ...]) -> None:
        layout.need(*folders)
        self._there = {folder for folder in ("train2014", "val2014", "test2015") if (layout.root / folder).is_dir()}
        val = layout.root / "val2017"  # 5,000 names, while train2017 has 118,287
        self._val_2017 = {path.name for path in val.iterdir()} if val.is_dir() else set()

    def path(self, number: int, folder: str) -> str:
        """A picture relative to the root.

        Args:
            number: of the picture.
            folder: the one of 2014 (or test2015) that it belongs to.
        """
        if folder in self._there or folder == "test2015":
            return f"{folder}/COCO_{folder}_{number:012d}.jpg"
        name = f"{number:012d}.jpg"
        return f"val2017/{name}" if name in self._val_2017 else f"train2017/{name}"
