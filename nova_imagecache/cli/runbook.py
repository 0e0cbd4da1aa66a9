# SPDX-License-Identifier: Apache-2.0

"""The runbook that comes with the package, which the documentation shows."""

from collections.abc import Mapping
import functools
import importlib.resources
import re
import textwrap

_ANCHOR = re.compile(r'^\.\. _((?:code|alert)-[\w-]+):$', re.MULTILINE)
_UNDERLINE = re.compile(r'^(=+|-+)$', re.MULTILINE)
_CHAPTER = re.compile(r'^.+\n=+$', re.MULTILINE)
_ROLE = re.compile(r':ref:`([\w-]+)`')
_FIELD = re.compile(r'^:([\w ]+):', re.MULTILINE)

# What begins a line at its start is not the rest of another one.
_FOLLOWED = re.compile(r'\n(?=\S)')

# Columns of a terminal.
_WIDTH = 79

#: Where the page is on the web, from the root of the documentation.
PAGE = 'admin/runbook.html'


@functools.cache
def entries() -> Mapping[str, str]:
    """Give the text of each entry by its anchor, as the page has it."""
    resource = importlib.resources.files('nova_imagecache') / 'runbook.rst'
    _before, *parts = _ANCHOR.split(resource.read_text(encoding='utf-8'))
    texts = [_CHAPTER.split(text)[0].strip() for text in parts[1::2]]
    return dict(zip(parts[::2], texts, strict=True))


def text_of(anchor: str) -> str:
    """Give an entry for a terminal.

    :raises KeyError: there is none
    """
    text = _UNDERLINE.sub('', entries()[anchor])
    text = _ROLE.sub(r'"\1" in the documentation', text)
    text = _FIELD.sub(r'\1:', text).replace('``', '')
    # What stands in the place of a role may be longer than it.
    return '\n\n'.join(
        '\n'.join(map(_wrapped, _FOLLOWED.split(part)))
        for part in re.split(r'\n{2,}', text)
    )


def _wrapped(field: str) -> str:
    return textwrap.fill(
        ' '.join(field.split()),
        _WIDTH,
        subsequent_indent='    ',
        break_long_words=False,
        break_on_hyphens=False,
    )
