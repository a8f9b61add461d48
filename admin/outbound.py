"""Bounded HTTP requests to other services."""

import aiohttp


class AnswerTooLong(aiohttp.ClientPayloadError):
    """More bytes than what was asked for can have."""


async def read_to_end(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """The whole content, in however many pieces it comes. (``content.read(n)`` returns what has arrived so far.)

    :raises AnswerTooLong: it is longer than ``max_bytes``
    :raises aiohttp.ClientError: the connection broke before its end
    """
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > max_bytes:
            raise AnswerTooLong(f"{response.url.origin()} answered more than {max_bytes} bytes")
    return bytes(content)
