"""Bounded HTTP requests to other services."""

import aiohttp


class AnswerTooLong(aiohttp.ClientPayloadError):
    """The answer exceeds its maximum size."""


async def read_to_end(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read the whole content. (``content.read(n)`` returns only what has arrived so far.)

    :raises AnswerTooLong: it is longer than ``max_bytes``
    :raises aiohttp.ClientError: the connection broke before its end
    """
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > max_bytes:
            raise AnswerTooLong(f"{response.url.origin()} answered more than {max_bytes} bytes")
    return bytes(content)
