"""Picture files as arrays: found, decoded, turned upright, brought to one size and one mode."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hpo.data.features import Array
from hpo.errors import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")

Color = Literal["rgb", "grayscale"]
Size = tuple[int, int]

_BLOCK = 256


class _BadPictureError(Exception):
    """A file can't be read as a picture; the text says why."""


def find_pictures(folder: Path) -> list[str]:
    """Names of the picture files in a folder and those below it, relative to it and sorted.

    Files and folders whose name begins with a dot are passed over.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = Path(place).relative_to(folder)
        found += [(below / name).as_posix() for name in files if is_picture(name)]
    return sorted(found)


def is_picture(name: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def read_pictures(
    folder: Path, names: Sequence[str], size: Size | None, color: Color
) -> tuple[Array, dict[int, str]]:
    """Decodes the files in `folder`, on all cores.

    Args:
        size: (height, width) that each is resized to; None when all of them have the same.

    Returns:
        uint8 (pictures, height, width, channels) in the order of `names`, without those that can't
        be read; and why they can't, by their place in `names`.

    Raises DataError when no file can be read, or when sizes differ and `size` is None.
    """
    bad: dict[int, str] = {}
    pictures: Array | None = None
    first = ""
    for index, read in enumerate(_read_all(folder, names, size, color)):
        if isinstance(read, str):
            bad[index] = read
            continue
        if pictures is None:
            first, pictures = names[index], np.empty((len(names), *read.shape), np.uint8)
        check_one_size((folder / first, pictures[0]), (folder / names[index], read))
        pictures[index - len(bad)] = read
    if pictures is None:
        raise DataError(
            f"none of {len(names)} pictures can be read, the first is {folder / names[0]}: {bad[0]}"
        )
    return pictures[: len(names) - len(bad)], bad


def check_one_size(one: tuple[Path, Array], other: tuple[Path, Array]) -> None:
    """Raises DataError unless two decoded files are of one size."""
    if one[1].shape != other[1].shape:
        said = [
            f"{path} is {each.shape[0]} high and {each.shape[1]} wide"
            for path, each in (one, other)
        ]
        raise DataError(
            f"pictures differ in size: {', '.join(said)}; set `data.source.size` to the "
            "[height, width] that all of them are resized to"
        )


def _read_all(
    folder: Path, names: Sequence[str], size: Size | None, color: Color
) -> Iterator[Array | str]:
    read = partial(_read_or_reason, folder, size, color)
    # Pillow lets go of Python's lock while it decodes.
    with ThreadPoolExecutor(_cores()) as pool:
        for start in range(0, len(names), _BLOCK):
            yield from pool.map(read, names[start : start + _BLOCK])


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _read_or_reason(folder: Path, size: Size | None, color: Color, name: str) -> Array | str:
    try:
        return _read(folder / name, size, color)
    except _BadPictureError as error:
        return str(error)


def _read(path: Path, size: Size | None, color: Color) -> Array:
    try:
        with Image.open(path) as opened:
            return _as_array(opened, size, color)
    except MemoryError:
        raise
    except Exception as error:
        # What Pillow raises for a damaged file is not of one kind.
        raise _BadPictureError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it holds no picture"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text or type(error).__name__


def _as_array(image: Any, size: Size | None, color: Color) -> Array:
    if size is not None:
        # A JPEG decodes much faster to a half, a quarter or an eighth of its size. Twice what is
        # wanted is left for the resizing; the picture may still have to be turned by 90 degrees.
        image.draft(None, (2 * max(size), 2 * max(size)))
    ImageOps.exif_transpose(image, in_place=True)
    image = _eight_bits(image).convert("RGB" if color == "rgb" else "L")
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array if array.ndim == 3 else array[:, :, None]


def _eight_bits(image: Any) -> Any:
    """The upper 8 bits of 16, as Pillow reads 16-bit colour; what is transparent becomes white."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image.convert("RGBA"))
    return ground
