"""The exchange's own colours, logo and links; without them, no name but the page's."""

import re
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from admin.config import Pages
from admin.pages import brand
from tests.support.pages import running_site


@given(st.integers(0, 0xFFFFFF))
def test_text_can_be_read_in_any_colour(value):
    light, dark = re.findall(r"--accent: (#\w{6});", brand.sheet(f"#{value:06x}"))
    assert brand.contrast(light, "#ffffff") >= brand.contrast(light, brand.LIGHT) >= 4.5
    assert brand.contrast(dark, brand.DARK) >= 4.5
    for accent, ink in zip((light, dark), re.findall(r"--accent-ink: (#\w{6});", brand.sheet(f"#{value:06x}")), strict=True):
        assert brand.contrast(accent, ink) >= 4.5


def test_contrast_is_that_of_wcag():
    assert brand.contrast("#000000", "#ffffff") == 21
    assert brand.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_a_colour_that_can_be_read_stays_as_it_is():
    assert "--accent: #0b3b8c;" in brand.sheet("#0b3b8c")


@pytest.mark.parametrize("name", ["missing.svg", "logo.gif", "large.png"])
def test_a_logo_that_cannot_be_shown_is_a_fault_of_the_configuration(tmp_path: Path, name: str):
    (tmp_path / "logo.gif").write_bytes(b"GIF89a")
    (tmp_path / "large.png").write_bytes(b"x" * 70_000)
    with pytest.raises(ValidationError):
        Pages(logo=tmp_path / name)


async def test_the_brand_is_on_every_page_and_gerbang_on_none(database, redis_url, tmp_path):
    logo = tmp_path / "logo.svg"
    logo.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    given = {
        "site_name": "Bursa Contoh",
        "logo": str(logo),
        "accent": "#0b3b8c",
        "help_url": "https://bursa.example/bantuan",
        "support_url": "https://bursa.example/dukungan",
    }
    for settings in (given, {}):
        async with running_site(database, redis_url, pages=settings) as site, aiohttp.ClientSession() as http:
            page = await (await http.get(site.url + "/login")).text()
            assert "gerbang" not in page.lower()
            assert ("Bursa Contoh</span>" in page) == bool(settings)
            assert all((link in page) == bool(settings) for link in (given["help_url"], given["support_url"]))
            for file in re.findall(r'(?:href|src)="(/static/[^"]+/brand\.\w+)"', page):
                answer = await http.get(site.url + file)
                assert (answer.status, "immutable" in answer.headers["Cache-Control"]) == (200, True)
            assert ("brand.css" in page) == ("brand.svg" in page) == bool(settings)
