"""PolyU (Xu et al. 2018), and any folder of clean/noisy pairs."""

from pathlib import Path

from nt_jax.data.builders.listing import SPLITS, Listing, pair
from nt_jax.data.catalogue import sources


def list_pairs(raw_dir: Path) -> Listing:
    """Lists the pairs of every layout that `sources.list_pairs` knows.

    Folders train, val and test are splits.
    """
    folders = [raw_dir / split for split in SPLITS if (raw_dir / split).is_dir()] or [raw_dir]
    listed, broken = [], []
    for folder in folders:
        found, problems = sources.list_pairs(folder)
        split = "" if folder == raw_dir else folder.name
        names = (f"{split}/{one.name}".lstrip("/") for one in found)
        listed += [
            pair(one._replace(name=name), raw_dir, split)
            for name, one in zip(names, found, strict=True)
        ]
        broken += problems
    return Listing(listed, broken)


def list_polyu(raw_dir: Path) -> Listing:
    """Lists `CroppedImages/*_{mean,real}.JPG`, `OriginalImages/*_{mean,Real}.JPG`, or both.

    Both hold the same scenes, and a scene is in one split only.
    """
    found, broken = sources.list_pairs(raw_dir)
    ours = [one for one in found if sources.parse_capture(one.name).camera]
    return Listing([pair(one, raw_dir) for one in ours], broken)
