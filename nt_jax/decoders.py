"""What the decoders of image files have in common, wherever they are used."""

import contextlib
import ctypes
import functools

from PIL import Image


@functools.cache
def silence_libtiff() -> None:
    """Keeps libtiff from printing what it finds wrong in a file; Pillow raises an error besides.

    Pillow has no option for it. Where its libtiff cannot be reached, that goes on printing.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(Image.core.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)
