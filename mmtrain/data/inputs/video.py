"""Videos: some frames of each, decoded by PyAV, transformed equally by torchvision v2, normalised floats."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from annotated_types import Ge, Le, Len
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from mmtrain.annotations import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Size
from mmtrain.data.decoding.frames import read_frames
from mmtrain.data.decoding.geometry import CropOffset, Interpolation
from mmtrain.data.decoding.image_file import oversize
from mmtrain.data.decoding.media import Probe, source_of
from mmtrain.data.inputs.image import ImageInput, key_of, seeded
from mmtrain.data.order import mix
from mmtrain.data.tables.columns import content_of
from mmtrain.data.tables.sample_errors import describe_content
from mmtrain.errors import ConfigError, SampleError
from mmtrain.types import Padded

Sampling = Literal["uniform", "random", "segments"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
PICTURES_ONLY = ("box", "hamming")  # interpolations that torchvision has only for Pillow


class VideoInput:
    """A video column: a path relative to the table, bytes, a value of `datasets`, or a list of images.

    The video is divided into as many equal parts as it has frames, and some of them are used. No frame is used twice: a
    video with fewer frames than `num_frames` has fewer, which the mask marks. Copies would look like a still video, and
    would have more weight in a mean over frames.

    Args:
        num_frames: maximum number of frames of each video.
        sampling: in training. uniform: the centres of equal parts of the video, as always in evaluation; random: any
            frames, in order of time; segments: one random frame from each of the equal parts (1608.00859).
        size: height and width in pixels of the model's input.
        mean: mean by channel, for pixels in 0..1.
        std: standard deviation by channel.
        resize_size, interpolation, crop_offset: how a frame becomes a square; see `Geometry`. The defaults are those of
            runs whose configuration does not have these keys.
        crop_scale: minimum fraction of the area that a random crop in training keeps; 1 disables it. All frames of a
            video have the same crop, rotation, flip and colours.
        rotate: maximum rotation in training, in degrees.
        flip: probability of a horizontal flip in training. Off by default, because captions can mention left and right.
        color_jitter: strength of changes of brightness, contrast and saturation in training.
        background: the colour under transparent pixels.
        max_pixels: a video with larger frames is not decoded, because it can fill the memory.
        max_video_pixels: maximum number of pixels of all used frames together.
        value_range: as in `ImageInput`, for a video of images.
    """

    kind = "video"

    def __init__(
        self,
        *,
        num_frames: Size,
        sampling: Sampling,
        size: Size,
        mean: Sequence[float],
        std: Sequence[PositiveFloat],
        crop_scale: Fraction,
        rotate: NonNegativeFloat,
        flip: Fraction,
        color_jitter: NonNegativeFloat,
        background: Sequence[Annotated[int, Ge(0), Le(255)]],
        max_pixels: PositiveInt,
        max_video_pixels: PositiveInt,
        value_range: Sequence[float] | None = None,
        resize_size: Size | Annotated[Sequence[Size], Len(1, 2)] | None = None,
        interpolation: Interpolation = "bilinear",
        crop_offset: CropOffset = "round",
    ) -> None:
        if num_frames < 1:
            raise ConfigError(f"num_frames = {num_frames} leaves nothing of a film; set it to 8, say")
        if sampling not in SAMPLINGS:
            raise ConfigError(f"sampling = {sampling}; set it to {', '.join(SAMPLINGS[:-1])} or {SAMPLINGS[-1]}")
        if interpolation in PICTURES_ONLY:
            raise ConfigError(
                f"interpolation = {interpolation} is for pictures; set it to bilinear or bicubic for films"
            )
        self.num_frames = num_frames
        self.sampling = sampling
        self.size = size
        self.background = tuple(background)
        self.max_pixels = max_pixels
        self.max_video_pixels = max_video_pixels
        # opens the images of a video that consists of files, and has the transforms of all videos
        self.pictures = ImageInput(
            size=size,
            mean=mean,
            std=std,
            crop_scale=crop_scale,
            rotate=rotate,
            flip=flip,
            color_jitter=color_jitter,
            background=background,
            max_pixels=max_pixels,
            value_range=value_range,
            resize_size=resize_size,
            interpolation=interpolation,
            crop_offset=crop_offset,
        )
        self.geometry, self.normalize = self.pictures.geometry, self.pictures.normalize
        self._train = v2.Compose([*self.pictures.augmentations, self.normalize])
        self._eval = v2.Compose([*self.geometry.evaluation(), self.normalize])

    def load(self, value: Any, folder: Path, *, seed: int, train: bool) -> tuple[Tensor, int] | None:
        """The frames (F, 3, size, size), float32, F <= num_frames, and the key; None for a file with only sound.

        Raises:
            SampleError: if it cannot be read.
        """
        pixels = self._read(value, folder, seed if train else None)
        if pixels is None:
            return None
        film = tv_tensors.Video(pixels)
        if not train:
            return self._eval(film), self.key(value)
        with seeded(seed):
            return self._train(film), self.key(value)

    def frames(self, value: Any, folder: Path) -> list[Image.Image]:
        """The frames of evaluation, uncropped, for display; none for a file with only sound.

        Raises:
            SampleError: if it cannot be read.
        """
        pixels = self._read(value, folder, None)
        if pixels is None:
            return []
        return [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in pixels]

    def open(self, value: Any, folder: Path) -> Image.Image | None:
        """A sheet of four of these frames, two by two in order of time; None for a file with only sound.

        Raises:
            SampleError: if it cannot be read.
        """
        frames = self.frames(value, folder)
        if not frames:
            return None
        width, height = frames[0].size
        sheet = Image.new("RGB", (2 * width, 2 * height))
        for place in range(4):
            frame = frames[round(place * (len(frames) - 1) / 3)]
            sheet.paste(frame, (place % 2 * width, place // 2 * height))
        return sheet

    def key(self, value: Any) -> int:
        """The key of a cell's content."""
        return key_of(value)

    def pad(self, values: Sequence[Tensor | None]) -> Padded:
        """Frames (B, num_frames, 3, size, size) padded with 0, and the mask (B, num_frames), always of one shape."""
        films = torch.zeros(len(values), self.num_frames, 3, self.size, self.size)
        mask = torch.zeros(len(values), self.num_frames, dtype=torch.bool)
        for row, value in enumerate(values):
            if value is not None:
                films[row, : len(value)] = value
                mask[row, : len(value)] = True
        return Padded(films, mask)

    def _read(self, value: Any, folder: Path, seed: int | None) -> Tensor | None:
        """(F, 3, H, W), uint8; without a seed, the frames of evaluation."""
        content = content_of(value)
        if isinstance(content, list | tuple):
            return self._stack(content, folder, seed)
        source = source_of(content, folder)
        try:
            result = read_frames(
                source,
                lambda film: self._times(film, seed),
                max_pixels=self.max_pixels,
                max_video_pixels=self.max_video_pixels,
                background=self.background,
            )
        except SampleError as error:  # with the name in the table
            raise SampleError(describe_content(content), error.reason) from error
        if result is None:
            return None
        height, width = result.pixels.shape[-2:]
        reason = oversize(width, height, size=self.geometry.scaled_side, max_pixels=self.max_pixels)
        if reason is not None:
            raise SampleError(describe_content(content), reason)
        new = result.seconds.diff(prepend=torch.tensor([-1.0], dtype=torch.float64)) != 0
        return result.pixels if new.all() else result.pixels[new]  # a long frame covers several parts

    def _times(self, film: Probe, seed: int | None) -> list[float]:
        """The centres of the used parts, in seconds."""
        return [(slot + 0.5) * film.seconds / film.frames for slot in self._slots(film.frames, seed)]

    def _stack(self, files: Sequence[Any], folder: Path, seed: int | None) -> Tensor:
        if not files:
            raise SampleError("a list of pictures", "is empty")
        first, *others = self._slots(len(files), seed)
        picture = self.pictures.open(files[first], folder)
        size, count = picture.size, 1 + len(others)
        if count * size[0] * size[1] > self.max_video_pixels:
            what = f"{count} pictures of {size[0]} x {size[1]} pixels"
            raise SampleError(
                describe_content(files[first]), f"{what} are more than max_video_pixels = {self.max_video_pixels}"
            )
        frames = [v2.functional.pil_to_tensor(picture)]
        for slot in others:
            picture = self.pictures.open(files[slot], folder)
            frames.append(v2.functional.pil_to_tensor(picture if picture.size == size else picture.resize(size)))
        return torch.stack(frames)

    def _slots(self, count: int, seed: int | None) -> list[int]:
        """Indices of the used frames of `count`: distinct, in order."""
        take = min(self.num_frames, count)
        if seed is None or self.sampling == "uniform":
            return [(2 * part + 1) * count // (2 * take) for part in range(take)]
        draws = torch.Generator().manual_seed(mix(seed, 1) >> 1)  # independent of the draws of the transforms
        if self.sampling == "random":
            return sorted(torch.randperm(count, generator=draws)[:take].tolist())
        edges = [part * count // take for part in range(take + 1)]
        return [int(torch.randint(low, high, (), generator=draws)) for low, high in itertools.pairwise(edges)]
