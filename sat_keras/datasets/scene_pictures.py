"""The pixels of the drawn scenes: textured backgrounds and antialiased shapes."""

import colorsys
import functools

import numpy as np
from PIL import Image, ImageDraw

_SUPERSAMPLING = 4
# Hue in degrees, saturation and value of each colour name: shades vary, hues stay 15 degrees apart.
_SHADES = {
    "red": ((-8, 6), (0.80, 1.0), (0.70, 0.95)),
    "orange": ((23, 32), (0.85, 1.0), (0.92, 1.0)),
    "yellow": ((50, 58), (0.75, 1.0), (0.88, 1.0)),
    "green": ((105, 145), (0.65, 1.0), (0.45, 0.80)),
    "blue": ((208, 232), (0.75, 1.0), (0.65, 1.0)),
    "purple": ((272, 290), (0.70, 0.95), (0.50, 0.80)),
}
# Degrees a shape may be turned by, either way, without becoming another.
_MAX_TURN = {"circle": 0, "ring": 0, "square": 12, "triangle": 12, "star": 18, "cross": 12}


def shape_outline(shape: str, turn: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns the polygons of a shape, centred on its box and scaled to a longest side of 1.

    Args:
        shape: One of `SHAPES`.
        turn: rotation as a share, -1 to 1, of what the shape allows.

    Returns:
        `(polygons, extent)`: a list of arrays `(num_points, 2)` of x and y, filled and cut out in
        turn, and the array `(2,)` of width and height, the larger of which is 1.
    """
    polygons = _base_polygons(shape)
    angle = np.radians(turn * _MAX_TURN[shape])
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    polygons = [polygon @ rotation for polygon in polygons]
    low, high = polygons[0].min(axis=0), polygons[0].max(axis=0)
    longest = (high - low).max()
    return [(polygon - (low + high) / 2) / longest for polygon in polygons], (high - low) / longest


@functools.cache
def _base_polygons(shape: str) -> list[np.ndarray]:
    if shape == "circle":
        return [_regular_polygon(48)]
    if shape == "ring":
        return [_regular_polygon(48), 0.52 * _regular_polygon(48)]
    if shape == "star":
        radii = np.tile([1.0, 0.42], 5)[:, None]
        return [radii * _regular_polygon(10)]
    if shape == "triangle":
        return [_regular_polygon(3)]
    if shape == "square":
        return [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)]
    arm = 0.34  # half the width of a cross's arm
    quarter = np.array([[arm, -1], [arm, -arm], [1, -arm]])
    turns = [np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
    return [np.concatenate([quarter @ turn for turn in turns])]


def _regular_polygon(num_points: int) -> np.ndarray:
    """Returns points on the unit circle, clockwise from the top."""
    angles = 2 * np.pi * np.arange(num_points) / num_points
    return np.stack([np.sin(angles), -np.cos(angles)], axis=-1)


def paint_background(background: str, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Paints a greyish texture.

    Args:
        background: One of `BACKGROUNDS`.
        image_size: Width and height in pixels.
        rng: `numpy.random.Generator` of colours, period, direction and noise.

    Returns:
        float array `(image_size, image_size, 3)` of RGB in 0..1.
    """
    x, y = np.meshgrid(*[(np.arange(image_size) + 0.5) * 64 / image_size] * 2)  # 0..64 at any size
    angle, period, shift_x, shift_y = rng.uniform((0, 8, 0, 0), (np.pi, 12, 12, 12))
    x, y = x + shift_x, y + shift_y
    if background == "striped":
        pattern = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    elif background == "checkered":
        pattern = np.sin(np.pi * x / period) * np.sin(np.pi * y / period) * 2
    elif background == "dotted":
        to_dot = np.hypot((x % period) - period / 2, (y % period) - period / 2)
        pattern = 0.28 * period - to_dot
    else:
        pattern = np.zeros_like(x)
    blend = np.clip(0.5 + 1.5 * pattern, 0, 1)[..., None]
    value = rng.uniform(0.3, 0.85)
    contrast = rng.uniform(0.16, 0.28) * (1 if value < 0.55 else -1)
    first, second = (
        np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.2), v))
        for v in (value, value + contrast)
    )
    light = 1 + 0.1 * ((x - 32) * np.cos(2 * angle) + (y - 32) * np.sin(2 * angle)) / 32
    picture = (first * (1 - blend) + second * blend) * light[..., None]
    return picture + rng.normal(0, 0.02, picture.shape)


def paint_object(
    picture: np.ndarray,
    polygons: list[np.ndarray],
    colour: str,
    centre: np.ndarray,
    diameter: float,
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Paints a shape into `picture`, in place, in a random shade of its colour.

    Args:
        picture: Float array `(height, width, 3)` of RGB in 0..1.
        polygons: As `shape_outline` returns them.
        colour: One of `COLOURS`.
        centre: X and y of the box's centre in pixels.
        diameter: Longest side of the box in pixels.
        rng: `numpy.random.Generator` of shade, lighting and grain.

    Returns:
        The box `(x0, y0, x1, y1)` in whole pixels; x1 and y1 are the first ones outside.
    """
    outline = [polygon * diameter + centre for polygon in polygons]
    x0, y0 = np.floor(outline[0].min(axis=0) + 1e-6).astype(int)
    x1, y1 = np.ceil(outline[0].max(axis=0) - 1e-6).astype(int)
    mask = Image.new("L", ((x1 - x0) * _SUPERSAMPLING, (y1 - y0) * _SUPERSAMPLING))
    draw = ImageDraw.Draw(mask)
    for polygon, fill in zip(outline, (255, 0), strict=False):
        points = (polygon - (x0, y0)) * _SUPERSAMPLING
        draw.polygon([tuple(point) for point in points - 0.5], fill=fill)
    alpha = np.asarray(mask.reduce(_SUPERSAMPLING), float)[..., None] / 255

    hue, saturation, value = (rng.uniform(*limits) for limits in _SHADES[colour])
    shade = np.array(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value))
    light = np.linspace(1.08, 0.88, y1 - y0)[:, None, None]
    grain = rng.normal(1, 0.03, (y1 - y0, x1 - x0, 1))
    patch = picture[y0:y1, x0:x1]
    patch += alpha * (shade * light * grain - patch)
    return int(x0), int(y0), int(x1), int(y1)


def to_image(picture: np.ndarray) -> Image.Image:
    """Rounds a float picture `(height, width, 3)` in 0..1 to an 8-bit RGB `PIL.Image`."""
    return Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
