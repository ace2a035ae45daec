"""Answers to the exercises of chapter 7."""

from vqvae_lib import nearest_code

RIGHT = {
    "7.1": [[512, 441]],
    "7.2": [2.0, 1.93],
    "7.3": [lambda z, codes, kept: kept[nearest_code(z, codes[kept])]],
    "7.4": [4.0],
}
WRONG = {
    "7.1": [[256, 392], [512, 9], [512]],
    "7.2": [-1.0, 1.0, 3.0],
    "7.3": [lambda z, codes, kept: nearest_code(z, codes[kept]), lambda z, codes, kept: nearest_code(z, codes)],
    "7.4": [16.0, 0.25, 1.0],
}
