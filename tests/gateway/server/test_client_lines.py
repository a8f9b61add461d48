"""The lines that tell an upstream who asked, from where and for what."""

from gateway.server.client_lines import ClientLines


def test_they_are_rendered_once_as_long_as_nothing_changes():
    lines = ClientLines()
    first = lines.render("2001:db8::1", b"api.example", secure=True)
    assert first == (
        b"x-client-ip: 2001:db8::1\r\nx-forwarded-for: 2001:db8::1\r\nx-forwarded-proto: https\r\nx-forwarded-host: api.example\r\n"
    )
    assert lines.render("2001:db8::1", b"api.example", secure=True) is first


def test_each_change_is_rendered():
    lines = ClientLines()
    asked = [("192.0.2.1", b"a", False), ("192.0.2.2", b"a", False), ("192.0.2.2", b"b", False), ("192.0.2.2", b"b", True)]
    rendered = [lines.render(client_ip, host, secure=secure) for client_ip, host, secure in asked]
    assert len(set(rendered)) == 4
    assert rendered[3] == b"x-client-ip: 192.0.2.2\r\nx-forwarded-for: 192.0.2.2\r\nx-forwarded-proto: https\r\nx-forwarded-host: b\r\n"


def test_without_a_host_no_line_tells_one():
    assert b"x-forwarded-host" not in ClientLines().render("192.0.2.1", b"", secure=False)
