"""Sizes of the frames of compressed audio, from their headers.

Files of MP3, AAC or AC-3 are frames one after the other, without a total. Whether such
a file is complete shows only in its last frame.
"""

_BIT_RATES = {
    # (MPEG-1, layer) -> kbit/s of each index
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES = (44100, 48000, 32000)
_AC3_BIT_RATES = (
    *(32, 40, 48, 56, 64, 80, 96, 112, 128, 160),
    *(192, 224, 256, 320, 384, 448, 512, 576, 640),
)
HEADER = 8
"""Bytes of a frame that its size is read from."""


def frame_size(header: bytes) -> int:
    """Returns the size in bytes of a frame of audio; 0 for other bytes.

    Args:
        header: The first `HEADER` bytes.
    """
    if len(header) < HEADER:
        return 0
    for read in (_mpeg, _adts, _ac3):
        if size := read(header):
            return size
    return 0


def _mpeg(header: bytes) -> int:
    """MPEG audio, layers 1 to 3."""
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bit_rate, sample_rate = header[2] >> 4, header[2] >> 2 & 3
    synchronized = header[0] == 0xFF and header[1] >> 5 == 7
    if not synchronized or version == 1 or layer == 4:
        return 0
    if not 1 <= bit_rate <= 14 or sample_rate == 3:
        return 0
    first = version == 3  # MPEG-1; 2 is MPEG-2, 0 is MPEG-2.5
    rate = _SAMPLE_RATES[sample_rate] // {3: 1, 2: 2, 0: 4}[version]
    bits = _BIT_RATES[first, layer][bit_rate - 1] * 1000
    padding = header[2] >> 1 & 1
    if layer == 1:
        return 4 * (12 * bits // rate + padding)
    samples = 72 if layer == 3 and not first else 144
    return samples * bits // rate + padding


def _adts(header: bytes) -> int:
    """AAC with ADTS headers."""
    if header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    return int.from_bytes(header[3:6]) >> 5 & 0x1FFF


def _ac3(header: bytes) -> int:
    """AC-3 and E-AC-3."""
    if header[:2] != b"\x0b\x77":
        return 0
    if header[5] >> 3 > 10:  # E-AC-3
        return 2 * ((int.from_bytes(header[2:4]) & 0x7FF) + 1)
    rate, index = header[4] >> 6, header[4] & 0x3F
    if rate == 3 or index >= 2 * len(_AC3_BIT_RATES):
        return 0
    bits = _AC3_BIT_RATES[index // 2] * 1000
    # 1536 samples in words of 16 bits.
    words = bits * 1536 // 16 // (48000, 44100, 32000)[rate]
    return 2 * (words + (index & 1 if rate == 1 else 0))
