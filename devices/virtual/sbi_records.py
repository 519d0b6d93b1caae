"""Records of ISO/IEC 19794 as a device makes them of pixels: one image each, in JPEG 2000 without loss.

Only what the simulated devices need. The readers, and the whole of the standards, are in the next stage,
which devices may not import.
"""

import io
import struct
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from devices.frame import DeviceKind

_PPI = 500
_JPEG_2000_LOSSLESS = {DeviceKind.FINGERPRINT: 5, DeviceKind.IRIS: 10, DeviceKind.FACE: 2}


def record(kind: DeviceKind, position: int, pixels: NDArray[np.uint8], taken_at: datetime) -> bytes:
    """19794-4, -5 or -6 of 2011; `pixels` `(H, W)` or `(H, W, 3) uint8`, fingers at 500 ppi. Cost: 50 ms."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG2000", irreversible=False)
    image, (height, width), code = stream.getvalue(), pixels.shape[:2], _JPEG_2000_LOSSLESS[kind]
    capture = struct.pack(">H5BH", *taken_at.utctimetuple()[:6], 0) + bytes(6)
    if kind is DeviceKind.FINGERPRINT:
        grid = struct.pack(">B4HBB", 1, _PPI, _PPI, _PPI, _PPI, 8, code)
        body = capture + bytes([position, 0]) + grid + struct.pack(">BHHI", 0, width, height, len(image))
        head = b"FIR\x00020\x00", struct.pack(">HBB", 1, 0, 1)
    elif kind is DeviceKind.IRIS:
        body = capture + struct.pack(">H4BHHBH", 1, position, 1, code, 0, width, height, 8, 0)
        body += b"\xff\xff\xff\xff" + bytes(12) + struct.pack(">I", len(image))
        head = b"IIR\x00020\x00", struct.pack(">HBB", 1, 0, 1)
    else:
        body = capture + bytes(17) + struct.pack(">BBHH", 0, code, width, height)
        body += bytes(3) + bytes([0, 1]) + struct.pack(">I", len(image))
        head = b"FAC\x00030\x00", struct.pack(">HBH", 1, 0, 0)
    body += image
    length = len(head[0]) + 4 + len(head[1]) + 4 + len(body)
    return head[0] + struct.pack(">I", length) + head[1] + struct.pack(">I", 4 + len(body)) + body
