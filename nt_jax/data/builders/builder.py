"""The TFDS builders. Importing this module imports tensorflow_datasets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from nt_jax.data.builders import dnd, pairs, photos, sidd, tiles
from nt_jax.data.builders.listing import Listing, Source, assign_splits
from nt_jax.data.catalogue import prepared
from nt_jax.errors import InputError


class Plan(NamedTuple):
    """Work that `prepare` hands to a builder: images checked and cut, and what to note beside them.

    Attributes:
      cut: sources with their splits, and the files of their tiles.
      fingerprint: of all that the data set is made of.
      skipped: lines about broken images.
    """

    cut: list[tuple[Source, Path]]
    fingerprint: str
    skipped: list[str]


class TileBuilder(tfds.core.GeneratorBasedBuilder):
    """A data set of tiles; see the features. 0 and "" stand for what is not known.

    Used as any TFDS builder: `Sidd(data_dir=...).download_and_prepare(download_config=
    tfds.download.DownloadConfig(manual_dir=...))`, which fails on the first broken image and
    starts from zero. `python -m nt_jax.prepare` resumes, shows progress and may skip.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First."}  # noqa: RUF012 (as TFDS wants it)
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The files as published; see nt_jax/data/builders."
    ROLES: tuple[str, ...] = ("clean", "noisy")
    TILE = 512

    def __init__(self, *, plan: Plan | None = None, **kwargs: Any) -> None:
        """Args: images that are cut already, and the arguments of every builder."""
        self._plan = plan
        super().__init__(**kwargs)

    def __init_subclass__(cls) -> None:
        """Keeps the names, of which `div2k` is taken, out of TFDS's registry."""
        super().__init_subclass__(skip_registration=True)

    @staticmethod
    def list_images(raw_dir: Path) -> Listing:
        """The images below a folder."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        text, number = tfds.features.Text, tfds.features.Scalar
        image = tfds.features.Image(shape=(None, None, 3), dtype=np.uint8, encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                dict.fromkeys(self.ROLES, image)
                | {
                    "name": text(doc="of the tile, unique"),
                    "image": text(doc="name of the image it was cut from"),
                    "dataset": text(),
                    "split": text(),
                    "scene": text(),
                    "camera": text(),
                    "iso": number(np.int32),
                    "shutter": number(np.int32, doc="inverse of the exposure in 1/s"),
                    "illuminant": number(np.int32, doc="colour temperature in K"),
                    "y": number(np.int32, doc="of the first pixel in the image"),
                    "x": number(np.int32),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        plan = self._plan or self._cut_all(Path(dl_manager.manual_dir), Path(self.data_dir))
        splits: dict[str, list[tuple[Source, Path]]] = {}
        for source, path in plan.cut:
            splits.setdefault(source.split, []).append((source, path))
        return {split: self._generate_examples(cut) for split, cut in splits.items()}

    def _cut_all(self, raw_dir: Path, work: Path) -> Plan:
        found = self.list_images(raw_dir)
        if found.broken:
            raise InputError(found.broken[0])
        listed = assign_splits(found.sources, self.name)
        return Plan([(source, tiles.cut(source, self.TILE, work)) for source in listed], "", [])

    def _generate_examples(
        self, cut: list[tuple[Source, Path]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for source, path in cut:
            parts = list(tiles.load(path))
            for part in parts:
                place = f"_y{part.y:05d}_x{part.x:05d}" if len(parts) > 1 else ""
                name = f"{source.name}{place}"
                yield (
                    name,
                    {role: getattr(part, role) for role in self.ROLES}
                    | {
                        "name": name,
                        "image": source.image or source.name,
                        "dataset": self.name,
                        "split": source.split,
                        "scene": source.capture.scene,
                        "camera": source.capture.camera,
                        "iso": source.capture.iso or 0,
                        "shutter": source.capture.shutter or 0,
                        "illuminant": source.capture.illuminant or 0,
                        "y": part.y,
                        "x": part.x,
                    },
                )

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """Adds the index, while the folder still has its temporary name."""
        super()._download_and_prepare(*args, **kwargs)
        folder = Path(self.data_dir)
        for left in folder.glob("*.zip"):  # of `_cut_all`
            left.unlink()
        skipped = self._plan.skipped if self._plan else []
        if skipped:
            (folder / "skipped.txt").write_text("".join(f"{line}\n" for line in skipped))
        fingerprint = self._plan.fingerprint if self._plan else ""
        prepared.write_index(folder, dataset=self.name, fingerprint=fingerprint)


class Sidd(TileBuilder):
    """SIDD-Medium, SIDD-Small and the SIDD validation blocks, sRGB."""

    list_images = staticmethod(sidd.list_sidd)


class SiddPlus(TileBuilder):
    """The validation blocks of SIDD+, sRGB."""

    name = "siddplus"
    list_images = staticmethod(sidd.list_siddplus)


class Dnd(TileBuilder):
    """The boxes of the Darmstadt Noise Dataset, sRGB; noisy only."""

    ROLES = ("noisy",)
    list_images = staticmethod(dnd.list_dnd)


class Polyu(TileBuilder):
    """PolyU real-world noisy images."""

    list_images = staticmethod(pairs.list_polyu)


class Div2k(TileBuilder):
    """The high-resolution photographs of DIV2K."""

    ROLES = ("clean",)
    name = "div2k"
    list_images = staticmethod(photos.list_div2k)


class Bsds500(TileBuilder):
    """The photographs of BSDS500."""

    ROLES = ("clean",)
    list_images = staticmethod(photos.list_bsds500)


class Pairs(TileBuilder):
    """Any folder of clean/noisy pairs."""

    list_images = staticmethod(pairs.list_pairs)


class Photos(TileBuilder):
    """Any folder of photographs."""

    ROLES = ("clean",)
    list_images = staticmethod(photos.list_photos)


BUILDERS: dict[str, type[TileBuilder]] = {
    builder.name: builder for builder in (Sidd, SiddPlus, Dnd, Polyu, Div2k, Bsds500, Pairs, Photos)
}
