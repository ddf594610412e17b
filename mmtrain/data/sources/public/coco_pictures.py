"""The image folders of COCO: train2014, val2014 and test2015, or train2017 and val2017, which have the same images.

The 2017 folders split the images of 2014 differently and name them only by number. Either fits either annotation.
"""

from mmtrain.data.sources.public.layout import Layout


class CocoPictures:
    """The existing image folders.

    Args:
        layout: layout of the data set.
        folders: usual folders. At least one must exist; messages name the first one.

    Raises:
        ConfigError: if none of them exists.
    """

    def __init__(self, layout: Layout, *, folders: tuple[str, ...]) -> None:
        layout.need(*folders)
        self._there = {folder for folder in ("train2014", "val2014", "test2015") if (layout.root / folder).is_dir()}
        val = layout.root / "val2017"  # 5,000 names, while train2017 has 118,287
        self._val_2017 = {path.name for path in val.iterdir()} if val.is_dir() else set()

    def path(self, number: int, folder: str) -> str:
        """Path of an image relative to the root.

        Args:
            number: number of the image.
            folder: its folder in 2014 (or test2015).
        """
        if folder in self._there or folder == "test2015":
            return f"{folder}/COCO_{folder}_{number:012d}.jpg"
        name = f"{number:012d}.jpg"
        return f"val2017/{name}" if name in self._val_2017 else f"train2017/{name}"
