"""HTTP/1.1 parsing and serialization, in both directions (RFC 9110, RFC 9112). Pure: no I/O.

All of request smuggling is refused in these files, fewer than 1,000 lines together, in the order in which a request passes them:

* ``reader``, ``request_reader``: which bytes are a head and which are content; llhttp checks the grammar
* ``shape``, ``memo``: heads recognized without llhttp, because an equal one was parsed before
* ``request_head``: the request line and the field lines
* ``framing``: the length of the content, and whether the connection persists
* ``chunked``: the chunked coding
* ``headers``: the fields that are not forwarded; ``server.upstream_request`` writes those that are

Responses (``response_reader``, ``response``, ``answer``) are framed by the same rules.
"""
