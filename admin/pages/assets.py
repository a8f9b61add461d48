"""Static assets: read at start, served under content-addressed URLs.

Only what is in the table exists, so no path of a request reaches the file system.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import NamedTuple

from aiohttp import web

_FOLDER = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png"}


class _Asset(NamedTuple):
    body: bytes
    content_type: str


class Assets:
    """Everything under ``static/``, by its path there.

    :param added: further files, by name: those of the brand
    """

    def __init__(self, added: Mapping[str, bytes]) -> None:
        files = sorted(path for path in _FOLDER.rglob("*") if path.suffix in _TYPES)
        self._table = {path.relative_to(_FOLDER).as_posix(): _Asset(path.read_bytes(), _TYPES[path.suffix]) for path in files}
        self._table |= {name: _Asset(body, _TYPES[PurePath(name).suffix]) for name, body in added.items()}
        content = hashlib.sha256()
        for name, asset in self._table.items():
            content.update(f"{name}\0{len(asset.body)}\0".encode() + asset.body)
        # Part of the path and not of the query: a script's own imports ("./api.js") then carry it too.
        self._version = content.hexdigest()[:16]

    def url(self, name: str) -> str:
        """:raises KeyError: for a file that does not exist, when a page is rendered and not when a browser asks"""
        self._table[name]
        return f"/static/{self._version}/{name}"

    async def serve(self, request: web.Request) -> web.Response:
        """``GET /static/{version}/{name}``."""
        asset = self._table.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        current = request.match_info["version"] == self._version
        return web.Response(
            body=asset.body,
            content_type=asset.content_type,
            charset=None if asset.content_type == "image/png" else "utf-8",
            # A page of an older version that is still open gets the present file, but must not keep it under the old name.
            headers={"Cache-Control": "public, max-age=31536000, immutable" if current else "no-store"},
        )
