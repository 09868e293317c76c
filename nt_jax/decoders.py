"""What the decoders of image files have in common, wherever they are used."""

import contextlib
import ctypes
import functools
import logging

from PIL import Image


@functools.cache
def silence_decoders() -> None:
    """Keeps decoders from printing what they find wrong in a file; they raise an error besides.

    A program that wants what they log adds a handler to their loggers: one of the root would print
    it, and other libraries put one there unasked. libtiff prints by itself, and Pillow has no
    option for it; where it cannot be reached it goes on printing.
    """
    for name in ("PIL", "tifffile", "imagecodecs"):
        logging.getLogger(name).propagate = False
        logging.getLogger(name).addHandler(logging.NullHandler())
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(Image.core.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)
