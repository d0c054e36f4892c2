"""Pictures: what files become, what is refused, what is left out with a word, what is cached."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hpo.data import open_search_data
from hpo.data import pictures as decoding
from hpo.data.pictures import find_pictures, read_pictures
from hpo.data.raw import RawData
from hpo.data.rows import row_names
from hpo.data.sources import load_source
from hpo.errors import DataError
from hpo.spec.models import DataSpec

Load = Callable[..., RawData]
RED, BLUE = (200, 10, 20), (10, 20, 200)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """Six pictures of each of two classes, 4 high and 6 wide; one lies deeper than the others."""
    folder = tmp_path / "flowers"
    for name, colour in (("rose", RED), ("iris", BLUE)):
        (folder / name / "more").mkdir(parents=True)
        for index in range(5):
            save(folder / name / f"{index}.png", colour, index)
        save(folder / name / "more" / "5.PNG", colour, 5)
    return folder


def save(path: Path, colour: tuple[int, int, int], dot: int = 0, wide: int = 6) -> None:
    image = Image.new("RGB", (wide, 4), colour)
    image.putpixel((dot, 0), (dot, dot, dot))
    image.save(path)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_folder(**section: Any) -> RawData:
        return load_source(data(**section), tmp_path)

    return load_folder


def data(**section: Any) -> DataSpec:
    source = {"type": "images", "path": "flowers", **section.pop("source", {})}
    return DataSpec.model_validate({"source": source, **section})


def pixels(image: Image.Image, tmp_path: Path, name: str = "a.png", **look: Any) -> np.ndarray:
    """What one picture becomes that was saved as `name`."""
    image.save(tmp_path / name, **look.pop("saved", {}))
    array, bad = read_pictures(tmp_path, [name], look.get("size"), look.get("color", "rgb"))
    assert not bad
    return array[0]


def test_class_folders(flowers: Path, load: Load) -> None:
    (flowers / ".hidden").mkdir()
    (flowers / "rose" / "._0.png").write_bytes(b"")
    (flowers / "rose" / "notes.txt").write_text("no picture")
    (flowers / "readme.md").write_text("no picture")
    raw = load()
    assert raw.x.shape == (12, 4, 6, 3)
    assert raw.x.dtype == np.uint8
    assert raw.y.tolist() == ["iris"] * 6 + ["rose"] * 6
    # In the order of their names.
    assert raw.x[:, 0, :, 0].argmin(axis=1)[6:].tolist() == [0, 1, 2, 3, 4, 5]
    assert tuple(raw.x[-1, 3, 5]) == RED
    assert raw.form == {"type": "images", "size": [4, 6], "color": "rgb"}
    assert raw.warnings == ()


def test_size_and_colour(flowers: Path, load: Load) -> None:
    raw = load(source={"size": [8, 5], "color": "grayscale"})
    assert raw.x.shape == (12, 8, 5, 1)
    assert raw.form == {"type": "images", "size": [8, 5], "color": "grayscale"}
    with Image.open(flowers / "iris" / "0.png") as picture:
        one = picture.convert("L")
    expected = np.asarray(one.resize((5, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(raw.x[0, :, :, 0], expected)


def test_the_data_of_a_study(flowers: Path, tmp_path: Path) -> None:
    split = {"validation": 0.25, "test": 0.25}
    opened = open_search_data(data(split=split, preprocess={"normalize": "standard"}), tmp_path)
    assert opened.signature.class_names == ("iris", "rose")
    assert opened.signature.input_shape == (4, 6, 3)
    assert opened.signature.rows == (6, 3, 3)
    assert opened.signature.task == "binary"
    assert opened.train.x.mean(axis=(0, 1, 2)) == pytest.approx([0, 0, 0], abs=1e-5)
    assert opened.train.x.std(axis=(0, 1, 2)) == pytest.approx([1, 1, 1], abs=1e-5)
    again = open_search_data(data(split=split, preprocess={"normalize": "standard"}), tmp_path)
    assert again.signature == opened.signature
    save(flowers / "iris" / "0.png", RED, 0)
    other = open_search_data(data(split=split, preprocess={"normalize": "standard"}), tmp_path)
    assert other.signature.fingerprint != opened.signature.fingerprint


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_the_same_colours(tmp_path: Path, mode: str) -> None:
    white = Image.new("L", (3, 2), 255)
    white.putpixel((0, 0), 0)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(white).astype(np.uint16) * 257)
    else:
        image = white.convert("RGB").convert(mode)
    name = "a.jpg" if mode == "CMYK" else "a.png"
    saved = {"quality": 100} if mode == "CMYK" else {}
    for color in ("rgb", "grayscale"):
        found = pixels(image, tmp_path, name, color=color, saved=saved).astype(int)
        expected = np.asarray(white, int)[:, :, None]
        # JPEG is not exact.
        np.testing.assert_allclose(found, expected + 0 * found, atol=12 if mode == "CMYK" else 0)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert pixels(image, tmp_path).tolist() == [[[200, 0, 0], [255, 255, 255]]]
    palette = image.convert("RGB").quantize(4)
    place = palette.getpixel((1, 0))
    found = pixels(palette, tmp_path, saved={"transparency": place})
    assert found[0, 1].tolist() == [255, 255, 255]


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lay on its left side
    image = Image.new("RGB", (4, 2), "white")
    image.putpixel((0, 0), (0, 0, 0))
    found = pixels(image, tmp_path, saved={"exif": exif})
    assert found.shape == (4, 2, 3)
    assert found[0, 1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a.bmp", "a.gif", "a.webp"])
def test_every_kind_of_file(tmp_path: Path, name: str) -> None:
    found = pixels(Image.new("RGB", (8, 8), RED), tmp_path, name)
    np.testing.assert_allclose(found.astype(int) - RED, 0, atol=4)
    assert find_pictures(tmp_path) == [name]


def test_a_large_jpeg_is_not_far_from_the_exact_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (16, 12, 3), np.uint8))
    image = coarse.resize((960, 1280), Image.Resampling.BICUBIC)
    found = pixels(image, tmp_path, "a.jpg", size=(40, 30)).astype(int)
    exact = np.asarray(image.resize((30, 40), Image.Resampling.BILINEAR), int)
    assert np.abs(found - exact).mean() < 2


def test_pictures_of_other_sizes_need_a_size(flowers: Path, load: Load) -> None:
    save(flowers / "rose" / "3.png", RED, wide=7)
    with pytest.raises(DataError) as caught:
        load()
    assert f"{flowers / 'iris' / '0.png'} is 4 high and 6 wide" in str(caught.value)
    assert f"{flowers / 'rose' / '3.png'} is 4 high and 7 wide; set `data.source.size`" in str(
        caught.value
    )
    assert load(source={"size": [4, 4]}).x.shape == (12, 4, 4, 3)


def broken_rose(flowers: Path) -> Path:
    path = flowers / "rose" / "2.png"
    path.write_bytes(path.read_bytes()[:60])
    (flowers / "rose" / "4.png").write_text("no picture")
    return path


def test_a_broken_picture_is_named(flowers: Path, load: Load) -> None:
    path = broken_rose(flowers)
    for _ in range(2):  # decoded, and out of the cache
        with pytest.raises(DataError) as caught:
            load()
        assert f"2 of 12 pictures can't be read, the first is {path}: " in str(caught.value)
        assert "`data.source.corrupt: skip`" in str(caught.value)


def test_broken_pictures_are_skipped_with_a_word(flowers: Path, load: Load) -> None:
    path = broken_rose(flowers)
    for _ in range(2):
        raw = load(source={"corrupt": "skip"})
        assert raw.y.tolist() == ["iris"] * 6 + ["rose"] * 4
        assert raw.x[6:, 0, :, 0].argmin(axis=1).tolist() == [0, 1, 3, 5]
        (warning,) = raw.warnings
        assert f"2 of 12 pictures can't be read and are left out, the first is {path}: " in warning
    for each in flowers.rglob("*.png"):
        each.write_bytes(b"GIF89a")
    for each in flowers.rglob("*.PNG"):
        each.unlink()
    with pytest.raises(DataError, match=r"none of 10 pictures can be read, the first is .*0\.png"):
        load(source={"corrupt": "skip"})


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.gif", "a.bmp", "a.png"])
def test_every_kind_of_file_that_is_cut_off(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    Image.fromarray(noise).save(tmp_path / "good.png")
    pictures, bad = read_pictures(tmp_path, [name, "good.png"], None, "rgb")
    assert len(pictures) == 1
    assert list(bad) == [0]


def test_an_empty_class_folder(flowers: Path, load: Load) -> None:
    (flowers / "tulip").mkdir()
    (flowers / "tulip" / "a.txt").write_text("no picture")
    raw = load()
    assert set(raw.y) == {"iris", "rose"}
    assert raw.warnings[0].startswith(f"the class folder {flowers / 'tulip'} holds no picture (")


def test_pictures_beside_the_class_folders(flowers: Path, load: Load) -> None:
    save(flowers / "b.png", RED)
    save(flowers / "a.png", RED)
    raw = load()
    assert len(raw.x) == 12
    first = flowers / "a.png"
    assert raw.warnings == (
        f"2 pictures lie beside the class folders and are left out, the first is {first}",
    )


def test_folders_that_hold_no_classes(tmp_path: Path, load: Load) -> None:
    folder = tmp_path / "flowers"
    with pytest.raises(DataError, match=rf"folder not found: {folder}.*relative to the project"):
        load()
    folder.write_text("")
    with pytest.raises(DataError, match=rf"{folder} is a file; expected a folder of pictures"):
        load()
    folder.unlink()
    folder.mkdir()
    with pytest.raises(DataError, match=rf"{folder} is empty; expected a folder for each class"):
        load()
    save(folder / "a.png", RED)
    with pytest.raises(DataError, match=rf"{folder} has no folders, but 1 pictures; .*labels`"):
        load()
    (folder / "rose").mkdir()
    with pytest.raises(DataError, match=rf"the class folders in {folder} hold no picture"):
        load()
    save(folder / "rose" / "a.png", RED)
    with pytest.raises(DataError, match=rf"{folder} has pictures of one class only, 'rose'"):
        load()


def test_folders_of_their_own_for_the_parts(flowers: Path, tmp_path: Path, load: Load) -> None:
    for name in ("rose", "tulip"):
        (tmp_path / "held" / name).mkdir(parents=True)
        save(tmp_path / "held" / name / "0.png", RED)
    raw = load(split={"test": "held"})
    assert raw.y.tolist() == ["iris"] * 6 + ["rose"] * 6 + ["rose", "tulip"]
    assert raw.parts is not None
    assert raw.parts.tolist() == [""] * 12 + ["test"] * 2
    opened = open_search_data(data(split={"test": "held", "stratify": False}), tmp_path)
    assert any("no row of train is of the class tulip" in w for w in opened.signature.warnings)
    for name in ("rose", "tulip"):
        save(tmp_path / "held" / name / "0.png", RED, wide=9)
    with pytest.raises(DataError, match="pictures differ in size"):
        load(split={"test": "held"})
    with pytest.raises(DataError, match=r"folder not found: .*nowhere"):
        load(split={"test": "nowhere"})
    with pytest.raises(DataError, match="asks for the column 'day', but class folders have no"):
        load(split={"time": "day"})


@pytest.fixture
def table(flowers: Path) -> pd.DataFrame:
    names = find_pictures(flowers)
    return pd.DataFrame(
        {
            "file": names[::-1],
            "kind": [name.partition("/")[0] for name in names[::-1]],
            "day": pd.date_range("2026-01-01", periods=12).astype(str),
            "height": np.linspace(0.0, 1.0, 12),
            "wild": [0, 1] * 6,
            "rare": [0, 0, 1] * 4,
        }
    )


@pytest.fixture
def labelled(tmp_path: Path, load: Load) -> Load:
    def load_table(frame: pd.DataFrame, **section: Any) -> RawData:
        frame.to_csv(tmp_path / "labels.csv", index=False)
        labels = {"path": "labels.csv", "image": "file", "label": "kind"}
        labels |= section.pop("labels", {})
        return load(source={"labels": labels, **section.pop("source", {})}, **section)

    return load_table


def test_a_table_of_labels(flowers: Path, table: pd.DataFrame, labelled: Load) -> None:
    raw = labelled(table, split={"time": "day"})
    assert raw.y.tolist() == ["rose"] * 6 + ["iris"] * 6
    assert tuple(raw.x[0, 3, 5]) == RED
    assert raw.columns["day"].dtype.kind == "M"
    assert raw.form["image"] == "file"
    heights = labelled(table, labels={"label": "height"})
    assert heights.y.dtype.kind == "f"
    both = labelled(table, labels={"label": ["wild", "rare"]})
    assert both.y.shape == (12, 2)
    assert both.class_names == ("wild", "rare")
    broken_rose(flowers)
    skipped = labelled(table, source={"corrupt": "skip"}, split={"group": "wild"})
    assert skipped.y.tolist() == ["rose"] * 4 + ["iris"] * 6
    assert len(skipped.columns["wild"]) == len(skipped.x) == 10


def test_pictures_whose_names_are_digits(
    flowers: Path, table: pd.DataFrame, labelled: Load, tmp_path: Path
) -> None:
    for row, name in enumerate(table["file"]):
        (flowers / name).rename(flowers / f"{row:05}")
    raw = labelled(table.assign(file=[f"{row:05}" for row in range(12)]))
    assert len(raw.x) == 12
    (flowers / "some.csv").write_text("file\n00003\n00007\n")
    assert row_names(flowers / "some.csv", raw.form) == ["00003", "00007"]


def test_tables_that_do_not_fit(
    flowers: Path, table: pd.DataFrame, labelled: Load, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"no column 'kid'; .* Did you mean 'kind'"):
        labelled(table, labels={"label": "kid"})
    with pytest.raises(DataError, match="no column 'files'"):
        labelled(table, labels={"image": "files"})
    with pytest.raises(DataError, match="the target 'file' is among the features"):
        labelled(table, labels={"label": "file"})
    with pytest.raises(DataError, match=r"not found: .*none\.csv"):
        labelled(table, labels={"path": "none.csv"})
    with pytest.raises(DataError, match=r"`split.test` names the folder 'flowers', but"):
        labelled(table, split={"test": "flowers"})
    with pytest.raises(DataError, match=r"labels\.csv: expected at least one row"):
        labelled(table[:0])
    gap = table.copy()
    gap.loc[3, "kind"] = None
    with pytest.raises(DataError, match="'kind' has 1 of 12 values missing, the first in row 3"):
        labelled(gap)
    gap = table.copy()
    gap.loc[2, "file"] = "rose/none.png"
    gap.loc[5, "file"] = None
    with pytest.raises(DataError) as caught:
        labelled(gap)
    assert (
        f"{tmp_path / 'labels.csv'}: 2 of 12 pictures are not there; the first is "
        f"{flowers / 'rose' / 'none.png'} in row 2, counted from 0"
    ) in str(caught.value)


def test_pictures_are_decoded_once(
    flowers: Path, load: Load, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load()
    monkeypatch.setattr(decoding, "_read", None)
    second = load()
    np.testing.assert_array_equal(first.x, second.x)
    assert not second.x.flags.writeable
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]
    monkeypatch.undo()


def test_what_the_cache_depends_on(
    flowers: Path, load: Load, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_CACHE", str(cache))

    def count() -> int:
        return len(list(cache.glob("*.npy")))

    load()
    for section in ({"size": [2, 2]}, {"color": "grayscale"}):
        before = count()
        load(source=section)
        assert count() == before + 1
    os.utime(flowers / "rose" / "0.png", ns=(0, 0))
    load()
    assert count() == 4
    (flowers / "rose" / "0.png").rename(flowers / "rose" / "00.png")
    load()
    assert count() == 5


def test_a_damaged_cache_is_made_again(flowers: Path, load: Load, cache: Path) -> None:
    first = load().x.copy()
    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-30])
    np.testing.assert_array_equal(load().x, first)


def test_a_cache_that_can_not_be_written_is_no_error(
    flowers: Path, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load().x) == 12
