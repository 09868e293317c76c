"""PNG: the colour profile, where it is larger than Pillow takes it to be sound."""

import contextlib
import struct
import zlib

_SIGNATURE = 8
_FRAME = 12  # bytes of a chunk besides its content
_LARGEST_PROFILE = 2**24  # a profile of a printer has up to 4 MiB


def split_profile(data: bytes) -> tuple[bytes, bytes | None]:
    """Takes the profile out of a file.

    Returns:
      The file without it, and the profile; None where it is damaged or above 16 MiB.
    """
    profile, kept, at = None, [data[:_SIGNATURE]], _SIGNATURE
    while at + _FRAME <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + _FRAME + length]
        if kind == b"iCCP":
            profile = _unpacked(chunk[8:-4])
        else:
            kept.append(chunk)
        at += len(chunk)
    return b"".join(kept), profile


def _unpacked(content: bytes) -> bytes | None:
    """Decompresses what follows the profile's name and a byte for the method."""
    _, _, packed = content.partition(b"\0")
    unpacker = zlib.decompressobj()
    with contextlib.suppress(zlib.error):
        profile = unpacker.decompress(packed[1:], _LARGEST_PROFILE)
        return profile if unpacker.eof else None
    return None
