"""DIV2K (Agustsson and Timofte 2017), BSDS500 (Arbeláez et al. 2011), any folder of photographs."""

from pathlib import Path

from nt_jax.data.builders.listing import SPLITS, Listing, photo, split_of
from nt_jax.data.catalogue.layouts import check_clean
from nt_jax.images import list_images
from nt_jax.paths import folders_named, is_folder


def list_photos(raw_dir: Path) -> Listing:
    """Lists every image file; folders train, val and test are splits.

    Raises:
      InputError: noisy images are among them by their names.
    """
    found = check_clean(raw_dir)
    return Listing([photo(path, raw_dir, split_of(path, raw_dir)) for path in found], [])


def list_div2k(raw_dir: Path) -> Listing:
    """Lists `DIV2K_train_HR/*.png` and `DIV2K_valid_HR/*.png`, anywhere below a folder.

    That may be the download folder of TFDS's own `div2k`, which extracts them by these names.
    """
    listed = []
    for name, split in (("DIV2K_train_HR", "train"), ("DIV2K_valid_HR", "val")):
        folders = [raw_dir] if raw_dir.name == name else folders_named(raw_dir, name)
        for folder in folders:
            listed += [photo(path, raw_dir, split) for path in list_images(folder)]
    return Listing(listed, [])


def list_bsds500(raw_dir: Path) -> Listing:
    """Lists `images/{train,val,test}/*.jpg` below a folder, or `{train,val,test}/*.jpg`.

    `images` may lie anywhere below it.
    """
    for root in (raw_dir, *folders_named(raw_dir, "images")):
        listed = [
            photo(path, root, split)
            for split in SPLITS
            if is_folder(root / split)
            for path in list_images(root / split)
        ]
        if listed:
            return Listing(listed, [])
    return Listing([], [])
