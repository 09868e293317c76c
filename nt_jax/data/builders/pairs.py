"""PolyU (Xu et al. 2018), and any folder of clean/noisy pairs."""

from pathlib import Path

from nt_jax.data.builders.listing import Listing, pair
from nt_jax.data.catalogue import sources


def list_pairs(raw_dir: Path) -> Listing:
    """Lists the pairs of every layout that `sources.list_pairs` knows.

    Folders train, val and test are splits.
    """
    found, broken = sources.list_pairs(raw_dir)
    return Listing([pair(one, raw_dir) for one in found], broken)


def list_polyu(raw_dir: Path) -> Listing:
    """Lists `CroppedImages/*_{mean,real}.JPG`, `OriginalImages/*_{mean,Real}.JPG`, or both.

    Both hold the same scenes, and a scene is in one split only.
    """
    found, broken = sources.list_pairs(raw_dir)
    ours = [one for one in found if sources.parse_capture(one.name).camera]
    return Listing([pair(one, raw_dir) for one in ours], broken)
