"""Frames: what was encoded comes back, from any picture; damage is an error that names camera and picture."""

import hashlib
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

from flyball.base import Damaged, InputError, Unsupported
from flyball.episodes.episode import Frames
from flyball.episodes.frames import decoded, encode_frames, read_frames

pytest.importorskip("av", reason="av is not installed")
H, W, N = 48, 64, 25


def scene(n=N, height=H, width=W):
    """Pictures that change smoothly over place and time: a ball over a gradient."""
    y, x = np.mgrid[:height, :width]
    out = []
    for i in range(n):
        ball = 1 / (1 + np.exp(((x - 8 - 2 * i) ** 2 + (y - 24) ** 2 - 100) / 40.0))
        base = np.stack([60 + x, 80 + y, np.full_like(x, 100)], -1)
        out.append((base * (1 - ball[..., None]) + ball[..., None] * [220, 60, 40]).astype(np.uint8))
    return np.array(out)


SCENE = scene()


def stream(tmp_path, encoding, packets, height=0, width=0):
    """(frames, blob) of (bytes, key) of each picture."""
    data = b"".join(p for p, _ in packets)
    blob = tmp_path / "blob"
    blob.write_bytes(data)
    stop = np.cumsum([len(p) for p, _ in packets]).astype(np.int64)
    start = np.concatenate([[0], stop[:-1]]).astype(np.int64)
    t_ns = np.arange(len(packets)) * 40_000_000
    key = np.array([k for _, k in packets])
    return Frames(
        "camera.wrist", encoding, height, width, hashlib.sha256(data).hexdigest(), t_ns, start, stop, key
    ), blob


ERRORS = {"png": 0, "jpeg": 2, "h264": 4, "h265": 4, "vp9": 4, "av1": 4}  # mean of grey levels


@pytest.mark.parametrize("encoding", ERRORS)
def test_pictures_come_back_and_random_access_equals_sequential(tmp_path, encoding):
    packets = list(encode_frames(SCENE, encoding, key_every=10))
    frames, blob = stream(tmp_path, encoding, packets)
    keys = list(range(N)) if encoding in ("png", "jpeg") else [0, 10, 20]
    assert len(packets) == N and np.flatnonzero(frames.key).tolist() == keys
    whole = read_frames(frames, blob)
    assert whole.shape == (N, H, W, 3) and whole.dtype == np.uint8
    error = np.abs(whole.astype(int) - SCENE)
    assert error.mean() <= ERRORS[encoding] and (encoding != "png" or error.max() == 0)
    # A wrong picture would be off by more than the ball's motion from one to the next.
    nearest = [int(np.abs(SCENE.astype(int) - p).mean(axis=(1, 2, 3)).argmin()) for p in whole]
    assert nearest == list(range(N))
    order = np.random.default_rng(0).permutation(N)
    np.testing.assert_array_equal(read_frames(frames, blob, order), whole[order])
    np.testing.assert_array_equal(read_frames(frames, blob, [17]), whole[17:18])
    np.testing.assert_array_equal(read_frames(frames, blob, [-1, 3, 3]), whole[[-1, 3, 3]])
    np.testing.assert_array_equal(read_frames(frames, blob, slice(5, 22, 4)), whole[5:22:4])
    small = read_frames(frames, blob, [4], height=24, width=32)
    assert small.shape == (1, 24, 32, 3)
    assert np.abs(small[0].astype(int) - SCENE[4].reshape(24, 2, 32, 2, 3).mean((1, 3))).mean() < ERRORS[encoding] + 2


def raw(tmp_path, kind, array):
    return stream(tmp_path, f"raw:{kind}", [(p.tobytes(), True) for p in array], *array.shape[1:3])


def test_raw_pictures(tmp_path):
    rgba = np.concatenate([SCENE[:3], SCENE[:3, ..., :1]], -1)
    cases = {"rgb8": (rgba[..., :3], [0, 1, 2]), "bgr8": (rgba[..., :3], [2, 1, 0]), "rgba8": (rgba, [0, 1, 2, 3]),
             "bgra8": (rgba, [2, 1, 0, 3]), "mono8": (rgba[..., :1], [0])}  # fmt: skip
    for kind, (pictures, order) in cases.items():
        frames, blob = raw(tmp_path, kind, pictures[..., order])
        np.testing.assert_array_equal(read_frames(frames, blob), pictures)
    depth = np.random.default_rng(0).uniform(0.2, 5, (2, H, W, 1))
    for kind, array in (("32FC1", depth.astype("<f4")), ("mono16", (depth * 1000).astype("<u2"))):
        frames, blob = raw(tmp_path, kind, array)
        got = read_frames(frames, blob)
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)
        half = read_frames(frames, blob, height=H // 2, width=W // 2)
        assert half.shape == (2, H // 2, W // 2, 1) and np.isin(half, array).all()  # picked, not averaged
    frames, blob = raw(tmp_path, "rgb8", SCENE[:1])
    assert read_frames(frames, blob, width=32).shape == (1, H, 32, 3)


def test_png_of_all_kinds_is_exact(tmp_path):
    rng = np.random.default_rng(0)
    for channels, dtype in ((1, np.uint8), (3, np.uint8), (4, np.uint8), (1, np.uint16)):
        pictures = rng.integers(0, np.iinfo(dtype).max, (2, H, W, channels), dtype, endpoint=True)
        frames, blob = stream(tmp_path, "png", list(encode_frames(pictures, "png")))
        got = read_frames(frames, blob)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, pictures)


def test_nothing_asked_for_is_nothing(tmp_path):
    frames, blob = stream(tmp_path, "png", list(encode_frames(SCENE[:2], "png")), H, W)
    assert read_frames(frames, blob, []).shape == (0, H, W, 3)


@pytest.mark.parametrize(
    "encoding", ["png", "jpeg", "h264", "av1"]
)  # FFmpeg takes a cut off h265 slice for a whole one
def test_a_cut_off_picture_is_named(tmp_path, encoding):
    packets = list(encode_frames(SCENE, encoding, key_every=10))
    packets[13] = (packets[13][0][: len(packets[13][0]) * 2 // 3], packets[13][1])
    frames, blob = stream(tmp_path, encoding, packets)
    with pytest.raises(Damaged, match=r"^camera camera\.wrist: picture 1[3-9]: ") as caught:
        read_frames(frames, blob)
    assert "\n" not in caught.value.line()
    np.testing.assert_array_equal(read_frames(frames, blob, [9, 20]).shape, (2, H, W, 3))  # others are not touched


def test_a_flipped_bit_of_a_png_is_noticed(tmp_path):
    data = next(encode_frames(SCENE[:1], "png"))[0]
    body = data.index(b"IDAT")
    for at in range(body + 4, len(data) - 12, (len(data) - body) // 40):
        bad = bytearray(data)
        bad[at] ^= 8
        frames, blob = stream(tmp_path, "png", [(bytes(bad), True)])
        with pytest.raises(Damaged, match="picture 0"):
            read_frames(frames, blob)


def test_bytes_that_are_no_picture(tmp_path):
    for encoding in ("png", "jpeg", "h264", "h265", "vp9", "av1", "raw:rgb8"):
        frames, blob = stream(tmp_path, encoding, [(b"\0\1\2\3" * 20, True)], H, W)
        with pytest.raises(Damaged, match="picture 0"):
            read_frames(frames, blob)
    frames, blob = stream(tmp_path, "png", list(encode_frames(SCENE[:2], "png")))
    blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(Damaged, match="picture 1: its bytes are not in the blob"):
        read_frames(frames, blob)
    with pytest.raises(Damaged, match="picture 0"):
        read_frames(replace(frames, stop=frames.start), blob)
    with pytest.raises(Damaged, match="no key picture before it"):
        read_frames(replace(frames, encoding="h264", key=np.zeros(2, bool)), blob)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_picture_that_claims_to_be_huge_is_refused(tmp_path):
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    )
    frames, blob = stream(tmp_path, "png", [(bomb, True)])
    with pytest.raises(Damaged, match="picture 0"):
        read_frames(frames, blob)
    head = struct.pack(">IIBBBBB", 6000, 6000, 1, 0, 0, 0, 0)  # a sound one of 36 million pixels in 5 kB
    large = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(751 * 6000)))
    frames, blob = stream(tmp_path, "png", [(large + chunk(b"IEND", b""), True)])
    with pytest.raises(Damaged, match="picture 0"):
        read_frames(frames, blob)
    frames, blob = raw(tmp_path, "rgb8", SCENE[:1])
    with pytest.raises(Damaged, match="are no 100000 x 100000 pixels"):
        read_frames(replace(frames, height=100_000, width=100_000), blob)
    many = replace(
        frames, t_ns=np.zeros(500_000), start=np.zeros(500_000, np.int64), stop=np.full(500_000, frames.stop[0])
    )
    with pytest.raises(InputError, match="500000 pictures of 9216 bytes at once; allowed: 4 GiB"):
        read_frames(replace(many, key=np.ones(500_000, bool)), blob)


def test_what_cannot_be_asked(tmp_path):
    packets = [*encode_frames(SCENE[:1], "png"), *encode_frames(scene(1, 24, 24), "png")]
    frames, blob = stream(tmp_path, "png", packets)
    with pytest.raises(InputError, match="picture 1 is 24 x 24 .* others are 64 x 48 .* height and width to scale to"):
        read_frames(frames, blob)
    assert read_frames(frames, blob, height=24, width=24).shape == (2, 24, 24, 3)
    assert [p.shape for _, p in decoded(frames, blob, [0, 1])] == [(H, W, 3), (24, 24, 3)]
    for which in ([2], [-3]):
        with pytest.raises(InputError, match="allowed: -2 to 1"):
            read_frames(frames, blob, which)
    with pytest.raises(Unsupported, match="'gif'"):
        read_frames(replace(frames, encoding="gif"), blob)
    with pytest.raises(Unsupported, match="'bayer'"):
        read_frames(replace(frames, encoding="raw:bayer"), blob)
    with pytest.raises(InputError, match="even sizes"):
        list(encode_frames(scene(1, 25, 24), "h264"))
    for bad in (SCENE[0].astype(float), SCENE[0, ..., 0], np.zeros((4, 4, 2), np.uint8)):
        with pytest.raises(InputError, match="a picture of shape"):
            list(encode_frames([bad], "png"))
    with pytest.raises(InputError, match="uint16"):
        list(encode_frames([np.zeros((4, 4, 1), np.uint16)], "jpeg"))
