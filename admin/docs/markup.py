"""Renders the subset of Markdown that the guide's texts use to HTML. Pure."""

import re

from markupsafe import Markup, escape

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<strong>[^*]+)\*\*|\[(?P<text>[^\]]+)\]\((?P<to>#[\w.-]+|/[\w/.-]+|https://[^)\s]+)\)")


def html(text: str) -> Markup:
    """Render a text: fenced code, lists, paragraphs. Anything else is escaped."""
    done, start = Markup(), 0
    for fence in _FENCE.finditer(text):
        done += _plain(text[start : fence.start()]) + code(fence[2])
        start = fence.end()
    return done + _plain(text[start:])


def code(text: str) -> Markup:
    """A code block, which can be focused and scrolled by keyboard."""
    return Markup('<pre tabindex="0"><code>{}</code></pre>').format(text)


def inline(text: str) -> Markup:
    """Render one line: code, bold, links."""
    done, start = Markup(), 0
    for found in _INLINE.finditer(text):
        done += escape(text[start : found.start()])
        if found["code"]:
            done += Markup("<code>{}</code>").format(found["code"])
        elif found["strong"]:
            done += Markup("<strong>{}</strong>").format(found["strong"])
        else:
            done += Markup('<a href="{}">{}</a>').format(found["to"], found["text"])
        start = found.end()
    return done + escape(text[start:])


def _plain(text: str) -> Markup:
    done = Markup()
    for block in re.split(r"\n{2,}", text.strip()):
        lines = block.strip()
        if lines.startswith("- "):
            items = Markup().join(
                Markup("<li>{}</li>").format(inline(" ".join(item.split()))) for item in re.split(r"^- ", lines, flags=re.MULTILINE)[1:]
            )
            done += Markup("<ul>{}</ul>").format(items)
        elif lines:
            done += Markup("<p>{}</p>").format(inline(" ".join(lines.split())))
    return done
