"""Keeps what people wrote about a photograph in XMP and IPTC: title, keywords, rating, rights.

XMP holds far more: how a raw developer is to show the file, where in it a gain map or a film lies,
small copies of it, what EXIF says. Of a new file little of that is true, so only the vocabularies
of descriptions are kept.
"""

import contextlib
import struct
from collections.abc import Mapping
from xml.dom import minidom

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
# Vocabularies, and the names in them that tell of the file and not of the photograph.
_KEPT = {
    "http://purl.org/dc/elements/1.1/": {"format"},
    "http://ns.adobe.com/xap/1.0/": {"Thumbnails"},
    "http://ns.adobe.com/xap/1.0/rights/": set(),
    "http://ns.adobe.com/photoshop/1.0/": {"ColorMode", "ICCProfile", "History", "TextLayers"},
    "http://ns.adobe.com/lightroom/1.0/": set(),
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/": set(),
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": {"ImageRegion"},
    "http://ns.useplus.org/ldf/xmp/1.0/": set(),
    "http://creativecommons.org/ns#": set(),
    "http://www.digikam.org/ns/1.0/": {"ImageHistory"},
    "http://ns.microsoft.com/photo/1.0/": set(),
    "http://ns.acdsee.com/iptc/1.0/": set(),
}
_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
_END = '<?xpacket end="w"?>'
_MOST_READ = 2**20
_LARGEST = 65_502  # that JPEG holds
_LARGEST_IPTC = 65_000
_RESOURCE = 0x0404  # of Photoshop's, the one that holds IPTC
_KEYWORD = b"XML:com.adobe.xmp"  # of a PNG's text
XMP_OF_TIFF, IPTC_OF_TIFF = 700, 33723


def kept_xmp(data: bytes | str | None) -> bytes | None:
    """Packs the descriptions in XMP as UTF-8; None where there are none, or damaged.

    What is above 1 MiB before or 65,502 bytes after is left out as a whole.
    """
    with contextlib.suppress(Exception):  # damaged metadata is no reason to refuse a photograph
        text = data.decode() if isinstance(data, bytes) else data or ""
        text = text.strip("\0\ufeff \t\r\n")
        # No entities, which could unfold to any size.
        if not text or len(text) > _MOST_READ or "<!DOCTYPE" in text:
            return None
        with minidom.parseString(text.encode()) as document:
            root = document.documentElement
            assert root is not None
            descriptions = document.getElementsByTagNameNS(_RDF, "RDF")[0].childNodes
            found = [
                _keep_known(node) for node in descriptions if node.nodeType == node.ELEMENT_NODE
            ]
            kept = (_BEGIN + root.toxml() + _END).encode()
        return kept if any(found) and len(kept) <= _LARGEST else None
    return None


def _keep_known(description: minidom.Element) -> bool:
    """Removes what is not kept from an rdf:Description; tells whether anything is left."""
    found = False
    for attribute in list(description.attributes.values()):
        if (
            attribute.prefix == "xmlns"
            or attribute.name == "xmlns"
            or attribute.namespaceURI == _RDF
        ):
            continue
        if _is_kept(attribute):
            found = True
        else:
            description.removeAttributeNode(attribute)
    for child in list(description.childNodes):
        if child.nodeType == child.ELEMENT_NODE and _is_kept(child):
            found = True
        else:
            description.removeChild(child)
    return found


def _is_kept(node: minidom.Attr | minidom.Element) -> bool:
    return node.localName not in _KEPT.get(node.namespaceURI or "", {node.localName})


def kept_iptc(data: object) -> bytes | None:
    """Takes IPTC's records, if they are what they should be and JPEG can hold them."""
    if not isinstance(data, bytes) or not 5 <= len(data) <= _LARGEST_IPTC or data[0] != 0x1C:
        return None
    return data


def iptc_of_photoshop(resources: Mapping[int, object] | None) -> bytes | None:
    """Takes IPTC's records out of what a JPEG keeps for Photoshop."""
    return kept_iptc((resources or {}).get(_RESOURCE))


def photoshop_segment(iptc: bytes) -> bytes:
    """Makes the segment of a JPEG that holds IPTC."""
    block = b"8BIM" + struct.pack(">HHI", _RESOURCE, 0, len(iptc)) + iptc
    content = b"Photoshop 3.0\0" + block + b"\0" * (len(iptc) % 2)
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def png_text(xmp: bytes) -> bytes:
    """Makes what a PNG's iTXt chunk holds: not compressed, of no language."""
    return _KEYWORD + b"\0\0\0\0\0" + xmp


def tiff_tags(xmp: bytes | None, iptc: bytes | None) -> list[tuple[int, str, int, bytes, bool]]:
    """Makes tifffile's `extratags`."""
    tags = ((XMP_OF_TIFF, xmp), (IPTC_OF_TIFF, iptc))
    return [(tag, "B", len(data), data, True) for tag, data in tags if data is not None]
