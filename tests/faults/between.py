"""A Unix socket in front of another one, through which a scenario makes a store slow, or keeps what is sent to it. Knows no protocol."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Between:
    """Passes everything on, both ways, until it is told otherwise."""

    def __init__(self, target: Path, path: Path) -> None:
        self.kept = asyncio.Event()
        """Something was sent that is not passed on. See :meth:`keep`."""
        self.path = path
        self._target = target
        self._seconds = 0.0
        self._prompt = asyncio.Event()
        self._keeping = False
        self._serving: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}

    def slow(self, seconds: float) -> None:
        """Let every answer come so late."""
        self._seconds = seconds
        self._prompt.clear()

    def fast(self) -> None:
        """Give the answers that are late now, and those to come at once."""
        self._prompt.set()

    def keep(self) -> None:
        """Pass nothing on any more of what is sent to the target: it is as if the sender had died before."""
        self._keeping = True

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = (writer,)
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            self._serving[task] = (writer, far_writer)
            await asyncio.gather(self._there(reader, far_writer), self._back(far_reader, writer))
        except OSError:
            writer.transport.abort()  # nobody listens there
        finally:
            del self._serving[task]

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if self._keeping:
                    self.kept.set()
                else:
                    writer.write(data)
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds):
                        await self._prompt.wait()
                writer.write(data)
        writer.close()

    async def close(self) -> None:
        """Drop every connection."""
        self.fast()
        tasks = list(self._serving)
        for writer in (writer for writers in self._serving.values() for writer in writers):
            writer.transport.abort()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def between(target: Path, path: Path) -> AsyncIterator[Between]:
    """A new socket at ``path`` that leads to the one at ``target``."""
    made = Between(target, path)
    server = await asyncio.start_unix_server(made.connected, path)
    try:
        yield made
    finally:
        server.close()
        await made.close()
