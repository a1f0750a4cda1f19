"""``{% cache %}`` in Jinja2 templates, blocking and asyncio."""

from __future__ import annotations

import asyncio

import pytest
from jinja2 import DictLoader, Environment, TemplateSyntaxError

from cachekit import Cache, default, tag
from cachekit.errors import ConfigError
from cachekit.jinja import CacheExtension, fragment_key
from cachekit.tags import collecting


@pytest.fixture(params=[False, True], ids=["blocking", "asyncio"])
def env(request, cache):
    made = Environment(extensions=[CacheExtension], autoescape=True, enable_async=request.param)
    made.cachekit_cache = cache
    made.globals["tag"] = lambda *names: tag(*names) or ""
    return made


def render(env, text, **values):
    template = env.from_string(text) if isinstance(text, str) else text
    if env.is_async:
        return asyncio.run(template.render_async(**values))
    return template.render(**values)


HELLO = '{% cache "5m", "hello" %}Hello {{ name }}{% endcache %}!'


def test_a_fragment_is_rendered_once_for_its_time(env, clock):
    assert render(env, HELLO, name="Ann") == "Hello Ann!"
    assert render(env, HELLO, name="Bob") == "Hello Ann!"
    clock.advance(300)
    assert render(env, HELLO, name="Bob") == "Hello Bob!"


def test_what_is_in_the_key_sets_fragments_apart(env):
    text = '{% cache "5m", "hello", name, n %}{{ name }}{{ n }}{% endcache %}'
    for name, n in [("a", 1), ("a", "1"), ("a:i1", None), ("b", 1)]:
        assert render(env, text, name=name, n=n) == f"{name}{n}"
    assert fragment_key(["a", 1]) != fragment_key(["a", "1"]) != fragment_key(["a:s1"])
    assert fragment_key(["x", True]) != fragment_key(["x", 1])


@pytest.mark.parametrize("bad", [object(), [1], {"a": 1}, b"x"])
def test_a_key_must_be_stable(env, bad):
    with pytest.raises(ConfigError, match="key"):
        render(env, '{% cache "5m", "hello", x %}{% endcache %}', x=bad)


def test_escaping_is_kept(env):
    text = '{% cache "5m", "f" %}{{ x }}{% endcache %}{{ x }}'
    for _ in range(2):
        assert render(env, text, x="<b>") == "&lt;b&gt;&lt;b&gt;"
    raw = "{% autoescape false %}" + text + "{% endautoescape %}"
    for _ in range(2):
        assert render(env, raw, x="<b>") == "<b><b>"
        assert render(env, text, x="<b>") == "&lt;b&gt;&lt;b&gt;"


def test_tags_drop_it_and_reach_whatever_it_is_part_of(env, cache):
    text = '{% cache "5m", "f", tags=["given", "item:%d" % n] %}{{ tag("inside") }}{{ x }}{% endcache %}'
    for x in ("first", "again"):
        with collecting() as tags:
            assert render(env, text, x=x, n=1) == "first"
        assert set(tags) == {"given", "item:1", "inside"}
    for number, name in enumerate(["given", "item:1", "inside"]):
        cache.invalidate(name)
        assert render(env, text, x=str(number), n=1) == str(number)


def test_fragments_in_fragments(env, cache):
    text = (
        '{% cache "1h", "outer" %}{{ a }}{% cache "5m", "inner", tags=["inner"] %}{{ b }}{% endcache %}{% endcache %}'
    )
    assert render(env, text, a=1, b=1) == "11"
    assert render(env, text, a=2, b=2) == "11"
    cache.invalidate("inner")  # the outer one was made of it
    assert render(env, text, a=3, b=3) == "33"


def test_loops_macros_includes_and_variables(env):
    env.loader = DictLoader({"part": '{% cache "5m", "part", n %}[{{ n }}]{% endcache %}'})
    text = (
        '{% macro one(n) %}{% cache "5m", "one", n %}{{ n }}{% endcache %}{% endmacro %}'
        '{% for n in range(3) %}{{ one(n) }}{% include "part" %}{% endfor %}'
    )
    for _ in range(2):
        assert render(env, text) == "0[0]1[1]2[2]"


def test_ttl_classes(clock):
    env = Environment(extensions=[CacheExtension])
    env.cachekit_cache = Cache(clock=clock, ttl_classes={"short": "10s"})
    text = '{% cache "short", "f" %}{{ x }}{% endcache %}'
    assert [render(env, text, x=x) for x in (1, 2)] == ["1", "1"]
    clock.advance(10)
    assert render(env, text, x=3) == "3"


def test_the_default_cache_is_used(monkeypatch, cache):
    monkeypatch.setattr(default, "default_cache", lambda: cache)
    env = Environment(extensions=[CacheExtension])
    assert [render(env, HELLO, name=name) for name in "ab"] == ["Hello a!", "Hello a!"]
    assert cache.get("fragment:hello:raw") == "Hello a"


@pytest.mark.parametrize(
    "text",
    [
        "{% cache %}{% endcache %}",
        '{% cache "5m" %}{% endcache %}',
        '{% cache "5m", "a" %}',
        '{% cache "5m", %}{% endcache %}',
    ],
)
def test_wrong_syntax_says_so(env, text):
    with pytest.raises(TemplateSyntaxError):
        env.from_string(text)


@pytest.mark.parametrize(
    "text", ['{% cache "soon", "a" %}{% endcache %}', '{% cache "5m", "a", tags="b" %}{% endcache %}']
)
def test_wrong_values_say_so(env, text):
    with pytest.raises(ConfigError):
        render(env, text)


def test_an_error_inside_comes_through_and_is_not_kept(env):
    text = '{% cache "5m", "f" %}{{ 1 // n }}{% endcache %}'
    with pytest.raises(ZeroDivisionError):
        render(env, text, n=0)
    assert render(env, text, n=1) == "1"
