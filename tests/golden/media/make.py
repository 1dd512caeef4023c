"""Makes the files of this folder: python make.py (Pillow 10.4, numpy, safetensors, the ffmpeg program).

Small videos in containers that state no length, and pictures of kinds where decoders differ, with what Pillow's
convert("RGB") shows of them: FILE.0, FILE.1, ... for the pictures of a GIF, in order, else FILE.0.
"""
import os
import struct
import subprocess

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

random = np.random.RandomState(0)
PALETTE = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (10, 20, 30), (200, 100, 50), (255, 255, 255), (0, 0, 0)]
GRAY = [(36 * i,) * 3 for i in range(8)]
LOCAL = [(1, 2, 3), (250, 240, 230), (90, 80, 70), (33, 66, 99)]
HEIGHT, WIDTH = 9, 12


def lzw(indices, bits):
    """Codes of single indices, with a clear code before the table would make them longer."""
    clear, out = 1 << bits, []

    def put(code):
        out.extend(code >> k & 1 for k in range(bits + 1))

    put(clear)
    for i, index in enumerate(indices):
        put(int(index))
        if i % (clear - 2) == clear - 3:
            put(clear)
    put(clear + 1)
    out += [0] * (-len(out) % 8)
    return bytes(sum(out[i + k] << k for k in range(8)) for i in range(0, len(out), 8))


def table(palette):
    size = max(1, (len(palette) - 1).bit_length())
    return size, b"".join(map(bytes, palette)) + bytes(3 * ((1 << size) - len(palette)))


def gif(*pictures, palette=PALETTE, background=0):
    size, colours = table(palette)
    out = b"GIF89a" + struct.pack("<HHBBB", WIDTH, HEIGHT, 0xF0 | size - 1, background, 0) + colours
    for p in pictures:
        flags = p.get("disposal", 0) << 2 | ("transparent" in p)
        out += b"\x21\xf9\x04" + struct.pack("<BHBB", flags, p.get("delay", 7), p.get("transparent", 0), 0)
        rows, bits, extra, local = p["rows"], size, 0, b""
        if "palette" in p:
            bits, local = table(p["palette"])
            extra = 0x80 | bits - 1
        height, width = rows.shape
        if p.get("interlaced"):
            extra |= 0x40
            order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
            rows = rows[order]
        x, y = p.get("at", (0, 0))
        out += b"," + struct.pack("<HHHHB", x, y, width, height, extra) + local
        data, bits = lzw(rows.ravel(), max(2, bits)), max(2, bits)
        out += bytes([bits])
        for i in range(0, len(data), 255):
            out += bytes([len(data[i : i + 255])]) + data[i : i + 255]
        out += b"\0"
    return out + b";"


def rows(height=HEIGHT, width=WIDTH, colours=8):
    return random.randint(0, colours, (height, width))


def part(**more):
    return dict(rows=rows(4, 5), at=(3, 2), **more)


def whole(**more):
    return dict(rows=rows(), **more)


GIFS = {
    "transparent.gif": gif(whole(transparent=2), whole(transparent=3), part(transparent=4)),
    "part.gif": gif(part(), whole(transparent=1), background=3),
    "part_transparent.gif": gif(part(transparent=2)),
    "interlaced.gif": gif(whole(interlaced=True, transparent=1), part(interlaced=True)),
    "background.gif": gif(whole(transparent=2, disposal=2), part(transparent=3, disposal=2), part(), part()),
    "background_solid.gif": gif(whole(disposal=2), part(disposal=2), part(), background=5),
    "restore.gif": gif(whole(disposal=1), part(disposal=3), part(disposal=3), part()),
    "restore_first.gif": gif(whole(transparent=5, disposal=3), part(disposal=3), part(delay=0)),
    "local.gif": gif(whole(), dict(rows=rows(4, 5, 4), at=(3, 2), palette=LOCAL), whole(transparent=1)),
    "local_first.gif": gif(dict(rows=rows(colours=4), palette=LOCAL, transparent=1), part(transparent=1)),
    "gray.gif": gif(whole(transparent=1), whole(transparent=1, disposal=2), part(), palette=GRAY),
}


def make_pictures():
    for name, data in GIFS.items():
        with open(name, "wb") as file:
            file.write(data)
    colours = [Image.fromarray(random.randint(0, 256, (23, 31, 4), "u1")) for _ in range(3)]
    plain = [image.convert("RGB") for image in colours]
    colours[0].save("animated_alpha.webp", save_all=True, append_images=colours[1:], duration=80, quality=60)
    plain[0].save("animated.webp", save_all=True, append_images=plain[1:], duration=80, quality=60)
    plain[0].save("animated_lossless.webp", save_all=True, append_images=plain[1:], lossless=True)
    plain[0].save("jpeg.tiff", compression="jpeg")
    plain[0].save("plain.png")
    for kind in ("rgb555le", "rgb565le"):
        run("-i", "plain.png", "-pix_fmt", kind, kind + ".bmp")
    os.remove("plain.png")
    plain[0].quantize(9).save("trns.png", transparency=3)


def run(*arguments):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-bitexact", *arguments], check=True)


def make_videos():
    kinds = {
        "mpeg2.ts": "-c:v mpeg2video -bf 2",
        "mpeg1.mpg": "-c:v mpeg1video",
        "theora.ogv": "-c:v libtheora -q:v 3",
        "wmv2.wmv": "-c:v wmv2 -b:v 60k",
        "msmpeg4.asf": "-c:v msmpeg4 -b:v 60k",
        "flv1.flv": "-c:v flv -b:v 60k",
        "live.mkv": "-c:v mpeg4 -b:v 60k -live 1",
        "mpeg4.mkv": "-c:v mpeg4 -b:v 60k",
        "msmpeg4.avi": "-c:v msmpeg4 -b:v 60k",
        "raw.h264": "-c:v libx264 -bf 0",
    }
    for name, options in kinds.items():
        source = "testsrc2=size=96x64:rate=25:duration=0.48"
        run("-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", "-flags", "+bitexact", *options.split(), name)


def expect():
    expected = {}
    for name in [*GIFS, "animated.webp", "animated_alpha.webp", "animated_lossless.webp", "rgb555le.bmp", "rgb565le.bmp", "trns.png"]:
        image = Image.open(name)
        for i in range(image.n_frames if name in GIFS else 1):
            image.seek(i)
            expected["%s.%d" % (name, i)] = np.asarray(image.convert("RGB")).copy()
    save_file(expected, "expected.safetensors")


make_pictures()
make_videos()
expect()
