"""Formats of pictures: told by the first bytes, or by the suffix of a name."""

from __future__ import annotations

import re

HEAD_BYTES = 64
"""Number of first bytes of a file that `format_of` needs."""

UNKNOWN = "unknown"
"""The format of a file whose first bytes cannot be read."""

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"IIU\0": "camera raw",
    b"IIRO": "camera raw",
    b"IIRS": "camera raw",
    b"MMOR": "camera raw",
    b"FUJIFILMCCD-RAW": "camera raw",
    b"FOVb": "camera raw",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"II\xbc\x01": "JPEG XR",
    b"8BPS\0": "PSD",
    b"gimp xcf ": "XCF",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"qoif": "QOI",
    b"DDS |": "DDS",
    b"SIMPLE  =": "FITS",
}
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "camera raw",
}
_BMP_HEADER_BYTES = {12, 16, 40, 52, 56, 64, 108, 124}
_NETPBM = re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s+\d+\s")

_SUFFIXES = {
    "JPEG": ".jpg .jpeg .jpe .jfif .jfi .jif",
    "PNG": ".png .apng",
    "WebP": ".webp",
    "GIF": ".gif",
    "BMP": ".bmp .dib",
    "TIFF": ".tif .tiff",
    "HEIC": ".heic .heif .heics .hif",
    "AVIF": ".avif .avifs",
    "JPEG XL": ".jxl",
    "JPEG 2000": ".jp2 .j2k .jpf .jpx .j2c",
    "JPEG XR": ".jxr .wdp .hdp",
    "PSD": ".psd .psb",
    "XCF": ".xcf",
    "OpenEXR": ".exr",
    "Radiance HDR": ".hdr",
    "QOI": ".qoi",
    "DDS": ".dds",
    "Targa": ".tga",
    "Netpbm": ".ppm .pgm .pbm .pnm",
    "SVG": ".svg .svgz",
    "ICO": ".ico .cur",
    "camera raw": ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .raf .orf .rw2 .pef .srw .x3f .3fr .iiq .rwl .erf .kdc",
}
_BY_SUFFIX = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}


def format_of(content: bytes) -> str:
    """Return the format of a picture by its first `HEAD_BYTES` bytes or more, such as "JPEG"; "" for any other file."""
    head = content[:HEAD_BYTES]
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _format_of_brands(head)
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"
    return "Netpbm" if _NETPBM.match(head) else ""


def format_by_name(name: str) -> str:
    """Return the format that the suffix of a name claims, such as "JPEG"; "" if it is no suffix of a picture."""
    return _BY_SUFFIX.get(suffix_of(name).rstrip().lower(), "")


def suffix_of(name: str) -> str:
    """Return the extension as pathlib does, several times faster: there may be eight million names."""
    file = name.rpartition("/")[2]
    dot = file.rfind(".")
    return file[dot:] if 0 < dot < len(file) - 1 else ""


def _format_of_brands(head: bytes) -> str:
    """Return the format of a file of the MP4 family, which are mostly videos, by its major and compatible brands."""
    size = int.from_bytes(head[:4])
    brands = [head[8:12], *(head[start : start + 4] for start in range(16, min(size, len(head)), 4))]
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "")
