"""Tags from the query of a URL: ``carrier:{query.carrier}``.

Pure. What visitors write becomes part of a tag here, so that this module owns what they cannot do with it: a value never
makes more than the one tag that the template is for, and never one that cannot be a tag. Must not know about rules.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Final
from urllib.parse import unquote_plus

from cachekit.errors import ConfigError
from cachekit.keys import TagTemplates, check_tag

_FIELD: Final = re.compile(r"\{query\.([^{}]*)\}")
_PARAMETER: Final = re.compile(r"[A-Za-z0-9_.~-]+\Z")
_LONGEST: Final = 2048
_MOST: Final = 8
"""Values of one parameter, or combinations of several; whoever sends more gets no stored response."""


class QueryTag:
    """A template with parameters of the query in it.

    Args:
        template: such as ``carrier:{query.carrier}``; it may name parts of the path too.
        names: those of the path.

    Raises:
        ConfigError: it is no template, or begins with a value: then a visitor could write any tag.
    """

    def __init__(self, template: str, names: Sequence[str]) -> None:
        self._names = tuple(dict.fromkeys(_FIELD.findall(template)))
        for name in self._names:
            if not _PARAMETER.match(name):
                raise ConfigError(f"tag template {template!r}: {name!r} is not the name of a parameter of a query")
        if template.startswith("{"):
            raise ConfigError(f"tag template {template!r} must begin with a word, such as carrier:{{query.carrier}}")
        # Each parameter stands as a name of its own, so that the values go the way of all other values.
        self._fields = {name: f"query_{number}" for number, name in enumerate(self._names)}
        plain = _FIELD.sub(lambda match: f"{{{self._fields[match[1]]}}}", template)
        self._template = TagTemplates([plain], [*names, *self._fields.values()])

    def render(self, named: Mapping[str, str], asked: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the tags for the parts *named* of the path and the parameters *asked*; none where one is absent.

        Raises:
            ConfigError: one cannot be a tag, or there would be too many.
        """
        values = [asked.get(name, ()) for name in self._names]
        if math.prod(map(len, values)) > _MOST:
            raise ConfigError("too many values of a parameter of the query")
        return [
            check_tag(self._template.render({**named, **dict(zip(self._fields.values(), chosen, strict=True))})[0])
            for chosen in product(*values)
        ]


def parameters(query: str) -> dict[str, list[str]]:
    """Return the values of each parameter of *query*, without repeats. Raises ``ConfigError`` for one that is too long."""
    if len(query) > _LONGEST:
        raise ConfigError("the query is too long to make tags of")
    found: dict[str, list[str]] = {}
    for part in query.split("&"):
        name, _, value = part.partition("=")
        known = found.setdefault(unquote_plus(name, errors="replace"), [])
        if (text := unquote_plus(value, errors="replace")) not in known:
            known.append(text)
            if len(known) > _MOST:
                raise ConfigError("too many values of a parameter of the query")
    return found
