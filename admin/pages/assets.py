"""Static assets: read at start, served under content-addressed URLs.

Only files in the table are served, so no request path reaches the file system.
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
    """All files under ``static/``, by their path.

    :param added: further files by name, those of the brand
    """

    def __init__(self, added: Mapping[str, bytes]) -> None:
        files = sorted(path for path in _FOLDER.rglob("*") if path.suffix in _TYPES)
        self._table = {path.relative_to(_FOLDER).as_posix(): _Asset(path.read_bytes(), _TYPES[path.suffix]) for path in files}
        self._table |= {name: _Asset(body, _TYPES[PurePath(name).suffix]) for name, body in added.items()}
        content = hashlib.sha256()
        for name, asset in self._table.items():
            content.update(f"{name}\0{len(asset.body)}\0".encode() + asset.body)
        # In the path, not the query, so that a script's own imports ("./api.js") include it, too.
        self._version = content.hexdigest()[:16]

    def url(self, name: str) -> str:
        """:raises KeyError: the file does not exist, which fails when a page is rendered, not when a browser requests it"""
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
            # An open page of an older version gets the current file, but must not cache it under the old name.
            headers={"Cache-Control": "public, max-age=31536000, immutable" if current else "no-store"},
        )
