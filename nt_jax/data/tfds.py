"""`tfds.load` over what `python -m nt_jax.prepare` wrote; nothing is copied.

import tensorflow_datasets as tfds
import nt_jax.data.tfds  # makes the name known

train = tfds.load("nt_jax/sidd", data_dir="data", split="train")
"""

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from nt_jax.data.builders.run import DATASETS
from nt_jax.data.catalogue import prepared
from nt_jax.errors import InputError
from nt_jax.paths import expand

_TEXTS = ("name", "image", "dataset", "split", "scene", "camera")
_NUMBERS = ("iso", "shutter", "illuminant", "y", "x")


class NtJax(tfds.core.DatasetBuilder):
    """Tiles of a prepared data set, which `data_dir` holds; 0 and "" stand for what is not known.

    Images are uint16 where a tile has 16 bits. Splits are whole: `train[:10%]` is not understood.
    """

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {"2.0.0": "PNG files beside an index."}  # noqa: RUF012 (as TFDS wants it)
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=name, description=dataset.layout)
        for name, dataset in DATASETS.items()
    ]

    def __init__(self, *, data_dir: Any, config: Any, version: Any = None) -> None:
        """Takes the arguments of every builder.

        Raises:
          InputError: `prepare` wrote no such data set there.
        """
        name = config if isinstance(config, str) else config.name
        self._folder = expand(data_dir) / name
        if not (self._folder / prepared.INDEX).is_file():
            raise InputError(
                f"{self._folder}: no prepared data set: run `python -m nt_jax.prepare"
                f" --dataset={name} --data_dir={data_dir}` first"
            )
        self._rows = prepared.read_index(self._folder)
        super().__init__(data_dir=data_dir, config=config, version=version)
        self._data_dir = str(self._folder)
        splits = sorted({row["split"] for row in self._rows})
        self.info.set_splits(
            tfds.core.SplitDict(
                tfds.core.SplitInfo(
                    name=split, shard_lengths=[len(self._rows_of(split))], num_bytes=0
                )
                for split in splits
            )
        )

    def _rows_of(self, split: str) -> list[dict[str, Any]]:
        return [row for row in self._rows if row["split"] == split]

    def _info(self) -> tfds.core.DatasetInfo:
        deep = any(row["bits"] > 8 for row in self._rows)
        image = tfds.features.Image(
            shape=(None, None, 3), dtype=np.uint16 if deep else np.uint8, encoding_format="png"
        )
        doc = prepared.COLUMNS
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {role: image for role in prepared.ROLES if self._rows[0][role]}
                | {name: tfds.features.Text(doc=doc[name]) for name in _TEXTS}
                | {name: tfds.features.Scalar(np.int32, doc=doc[name]) for name in _NUMBERS}
            ),
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Does nothing: `prepare` did."""

    def _download_and_prepare(self, **kwargs: Any) -> None:
        raise NotImplementedError

    def _as_dataset(
        self, split: Any, shuffle_files: bool = False, decoders: Any = None, read_config: Any = None
    ) -> tf.data.Dataset:
        rows = self._rows_of(str(split))
        if not rows:
            raise InputError(f"{split}: no such split: one of {', '.join(self.info.splits)}")
        roles = [role for role in prepared.ROLES if rows[0][role]]
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in _TEXTS}
        for name in _NUMBERS:
            columns[name] = np.asarray([row[name] or 0 for row in rows], np.int32)
        for role in roles:
            columns[role] = [str(self._folder / row[role]) for row in rows]
        dataset = tf.data.Dataset.from_tensor_slices(columns)
        if shuffle_files:
            dataset = dataset.shuffle(len(rows))

        def decode(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            files = {role: tf.io.read_file(example[role]) for role in roles}
            return self.info.features.decode_example(example | files, decoders=decoders)

        return dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
