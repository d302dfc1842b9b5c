#!/usr/bin/env python3
# Writes the fuzz targets' seed corpus into seeds/: small valid files that use every feature, with Python's standard library alone.
# SPDX-License-Identifier: MIT
import gzip
import io
import json
import pathlib
import struct
import zipfile

root = pathlib.Path(__file__).parent / "seeds"


def put(kind, name, data):
    (root / kind).mkdir(parents=True, exist_ok=True)
    (root / kind / name).write_bytes(data)


def npy(descr, shape, data, fortran=False, version=1):
    header = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b" " * 3 + b"\n"
    length = struct.pack("<H", len(header)) if version == 1 else struct.pack("<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def npz(members, method, stream=False):
    class Stream(io.RawIOBase):  # cannot seek: sizes then follow the data
        def __init__(self):
            self.data = b""

        def writable(self):
            return True

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    out = Stream() if stream else io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = method
            with archive.open(info, "w", force_zip64=not stream) as member:
                member.write(data)
    return out.data if stream else out.getvalue()


def safetensors(tensors, metadata=None):
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


put("csv", "header.csv", b"a,b\n1,2\n3,4.5e-3\n")
put("csv", "plain.csv", b"1 2\n-3 4\n")
put("csv", "quoted.csv", b'\xef\xbb\xbf"na""me",v\r\n"x,\ny",1\r\n\xc3\xa9,NA\r\n,NaN\r\n')
put("csv", "column.csv", b"v\n1\n\n+2\n1e-400\n")
put("csv", "infinite.csv", b"v\ninf\n1e999\n")
put("csv", "gzip.csv", gzip.compress(b"a,b\n1,2\n" * 20, mtime=0))
put("npy", "f4.npy", npy("<f4", (2, 2), struct.pack("<4f", 1, 2, 3, 4)))
put("npy", "f8_fortran.npy", npy("<f8", (2, 1, 3), struct.pack("<6d", *range(6)), fortran=True, version=2))
put("npy", "i8.npy", npy("<i8", (2,), struct.pack("<2q", -1, 2**53), version=3))
put("npy", "b1.npy", npy("|b1", (3,), b"\0\1\1"))
put("npy", "u1.npy", npy("|u1", (1, 1, 1, 1, 1, 1, 1, 4), b"abcd"))
put("npy", "object.npy", npy("|O", (1,), b"\x80\x04N."))
small = npy("|u1", (3,), b"\0\1\2")
put("npz", "stored.npz", npz({"x.npy": small, "y.npy": small}, zipfile.ZIP_STORED))
put("npz", "deflated.npz", npz({"x.npy": npy("|u1", (300,), b"\7" * 300)}, zipfile.ZIP_DEFLATED))
put("npz", "stream.npz", npz({"x.npy": small}, zipfile.ZIP_STORED, stream=True))
put("npz", "empty.npz", npz({}, zipfile.ZIP_STORED))
put("safetensors", "model.safetensors",
    safetensors({"n": ("I64", [], struct.pack("<q", 7)), "w": ("F32", [2, 1], struct.pack("<2f", 1, -2)),
                 "h": ("F16", [1], b"\0\0"), "b": ("BOOL", [1], b"\1")}, {"k": 'v"\n', "format": "pt"}))
put("safetensors", "empty.safetensors", safetensors({}))
put("safetensors", "escaped.safetensors", safetensors({"\u00e9\U0001f600/": ("U8", [3], b"abc")}))
