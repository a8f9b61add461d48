"""The exchange's branding: name, logo, colour and links. Pure, except for reading the logo file.

The colour is one setting. A readable variant (WCAG 2.2 §1.4.3: contrast of 4.5 to 1) is derived from it for light and dark mode: a colour
that would be hard to read is darkened or lightened as far as necessary.
"""

from pathlib import Path
from typing import NamedTuple

from admin.config import Pages

_ENOUGH = 4.5
LIGHT, DARK = "#e3ebe6", "#24302b"
"""The backgrounds of text in the accent colour: the darkest of the light mode, the lightest of the dark mode."""
_SCHEME = """\
{open}:root {{
  --accent: {accent};
  --accent-hover: color-mix(in srgb, {accent} 82%, {away});
  --accent-ink: {ink};
  --accent-wash: color-mix(in srgb, {accent} 10%, var(--surface));
}}{close}
"""

Colour = tuple[int, int, int]


class Brand(NamedTuple):
    """The branding, for every template."""

    name: str
    help_url: str | None
    support_url: str | None
    has_logo: bool
    has_colours: bool


def brand(settings: Pages) -> Brand:
    return Brand(settings.site_name, settings.help_url, settings.support_url, settings.logo is not None, settings.accent is not None)


def files(settings: Pages) -> dict[str, bytes]:
    """The brand's assets, by name: a style sheet with colours, and a logo.

    :raises OSError: the logo cannot be read
    """
    added: dict[str, bytes] = {}
    if settings.accent is not None:
        added["brand.css"] = sheet(settings.accent).encode()
    if settings.logo is not None:
        added[logo_name(settings.logo)] = settings.logo.read_bytes()
    return added


def logo_name(logo: Path) -> str:
    return f"brand{logo.suffix.lower()}"


def sheet(accent: str) -> str:
    """:param accent: ``#rrggbb``"""
    light = _readable(accent, on=LIGHT, towards=(0, 0, 0))
    dark = _readable(accent, on=DARK, towards=(255, 255, 255))
    return _SCHEME.format(open="", close="", accent=light, ink=_ink(light), away="black") + _SCHEME.format(
        open="@media (prefers-color-scheme: dark) {\n", close="\n}", accent=dark, ink=_ink(dark), away="white"
    )


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, "contrast ratio"."""
    lighter, darker = sorted((_luminance(_parse(one)), _luminance(_parse(other))), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _readable(colour: str, *, on: str, towards: Colour) -> str:
    start = _parse(colour)
    for step in range(21):
        mixed = tuple(round(a + (b - a) * step / 20) for a, b in zip(start, towards, strict=True))
        text = "#{:02x}{:02x}{:02x}".format(*mixed)
        if contrast(text, on) >= _ENOUGH:
            return text
    raise AssertionError("black is readable on light, white on dark")


def _ink(ground: str) -> str:
    return max(("#ffffff", "#0b1210"), key=lambda ink: contrast(ink, ground))


def _parse(colour: str) -> Colour:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def _luminance(colour: Colour) -> float:
    def linear(part: int) -> float:
        share = part / 255
        return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)

    red, green, blue = map(linear, colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
