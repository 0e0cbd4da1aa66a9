# SPDX-License-Identifier: Apache-2.0

"""The runbook that comes with the package, which the documentation shows."""

from collections.abc import Mapping
import functools
import importlib.resources
import re

_ANCHOR = re.compile(r'^\.\. _((?:code|alert)-[\w-]+):$', re.MULTILINE)
_UNDERLINE = re.compile(r'^(=+|-+)$', re.MULTILINE)
_CHAPTER = re.compile(r'^.+\n=+$', re.MULTILINE)
_ROLE = re.compile(r':ref:`([\w-]+)`')
_FIELD = re.compile(r'^:([\w ]+):', re.MULTILINE)

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
    return re.sub(r'\n{2,}', '\n\n', text)
