"""Turns a data set, as downloaded, into PNG tiles and an index, to train and evaluate on.

  python -m nt_jax.prepare --dataset=sidd --raw_dir=SIDD_Medium_Srgb --data_dir=data
  python -m nt_jax.main --config=configs/noisetransfer.py --config.data.pairs=data/sidd/train ...

Data sets: sidd (Medium, Small, validation blocks), siddplus, dnd, polyu, div2k, bsds500; `pairs`
and `photos` are any folders. Images above --tile pixels are cut into tiles of that size once.
Splits are the published ones, or those of folders train, val and test; else whole scenes are held
out for `val`: --val_scenes, or a tenth of the images. --align is for pairs between whose shots the
camera moved a little, such as PolyU's. Wherever a folder of images is asked for, data/sidd means
all splits and data/sidd/train one.

data/sidd/index.jsonl has a line a tile: its files, camera, ISO, scene, origin and digests. The
tiles are data/sidd/train/clean/*.png and noisy/*.png, of 16 bits where their source is. `tfds.load`
reads them too: nt_jax/data/tfds.py.

Ended at any moment and started again, it goes on where it was.
"""

import argparse

from nt_jax.data.builders.run import DATASETS, prepare
from nt_jax.data.catalogue import prepared
from nt_jax.errors import ArgumentParser, quiet_decoders, run_command, unwind_on_signals
from nt_jax.paths import parse_path


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m nt_jax.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", required=True, choices=DATASETS)
    parser.add_argument(
        "--raw_dir", required=True, type=parse_path, help="folder of the files as published"
    )
    parser.add_argument("--data_dir", required=True, type=parse_path, help="folder to write into")
    parser.add_argument("--tile", default=512, type=int, help="largest side of a tile, in pixels")
    parser.add_argument("--val_scenes", help="SCENE[,SCENE...] held out for `val`; empty for none")
    parser.add_argument(
        "--align",
        action="store_true",
        help="take out of the noise of training pairs what a 3x3 filter of their clean images makes"
        " of it: edges of a shifted or sharper scene",
    )
    parser.add_argument(
        "--on_error",
        default="fail",
        choices=("fail", "skip"),
        help="a broken image ends it before anything is written, or is left out and listed in"
        " skipped.txt",
    )
    return parser


@quiet_decoders()
def main(argv: list[str] | None = None) -> None:
    """Runs the command.

    Raises:
      InputError: a wrong flag, layout or image.
    """
    args = _parser().parse_args(argv)
    unwind_on_signals()
    folder = prepare(
        args.dataset,
        args.raw_dir,
        args.data_dir,
        args.tile,
        args.val_scenes,
        args.on_error,
        args.align,
    )
    rows = prepared.read_index(folder)
    for split in sorted({row["split"] for row in rows}):
        tiles = [row for row in rows if row["split"] == split]
        images = {tile["image"] for tile in tiles}
        scenes = {tile["scene"] or tile["image"] for tile in tiles}
        print(
            f"{folder / split}: {len(tiles)} tiles of {len(images)} images, {len(scenes)} scenes",
            flush=True,
        )


if __name__ == "__main__":
    run_command(main)
