"""HTTP/1.1 in bytes, parsed and serialized, in both directions (RFC 9110, RFC 9112). Pure: no I/O.

All of request smuggling is refused in these files, fewer than 1,000 lines together, in the order in which a request passes them:

* ``reader``, ``request_reader``: which bytes are a head, which content; llhttp judges the grammar
* ``shape``, ``memo``: what is read without llhttp, because the same was read before
* ``request_head``: the request line and the field lines
* ``framing``: the length of the content, and whether the connection persists
* ``chunked``: the chunked coding
* ``headers``: what goes no further; ``server.upstream_request`` writes what does

Responses (``response_reader``, ``response``, ``answer``) are framed by the same rules.
"""
