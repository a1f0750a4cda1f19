"""``@cached``: every kind of function, its handles, its refusals, and who may wait for whom."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from itertools import count

import pytest

import cachekit
from cachekit import Cache, CodecError, ConfigError, KeyArgumentError, Kind, Policy
from cachekit.testing import ManualClock


class Boom(Exception):
    """What a loader raises."""


# -- one key however it is called -----------------------------------------------------------------------------------


def _free(a, b=2, /, c=3, *, d=4):
    return (a, b, c, d)


def _star(*args, **kwargs):
    return (args, kwargs)


def _mixed(a, *rest, flag=False, **more):
    return (a, rest, flag, more)


def _nothing():
    return "nothing"


CALLS = {
    "positional and default": (_free, [((1,), {}), ((1, 2), {}), ((1, 2, 3), {}), ((1,), {"c": 3, "d": 4})]),
    "keyword-only": (_free, [((1, 2, 3), {"d": 5}), ((1,), {"d": 5, "c": 3})]),
    "variadic": (_star, [((1, 2), {"x": 1, "y": 2}), ((1, 2), {"y": 2, "x": 1})]),
    "mixed": (_mixed, [((1, 2, 3), {"z": 1}), ((1, 2, 3), {"flag": False, "z": 1})]),
    "no parameters": (_nothing, [((), {}), ((), {})]),
}


@pytest.mark.parametrize(("fn", "calls"), CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_calls_that_mean_the_same_share_one_result(cache: Cache, kind, fn, calls) -> None:
    runs = count()

    @functools.wraps(fn)
    def blocking(*args, **kwargs):
        next(runs)
        return [fn(*args, **kwargs)]

    @functools.wraps(fn)
    async def aio(*args, **kwargs):
        return blocking(*args, **kwargs)

    made = cache.cached(blocking if kind == "blocking" else aio)

    def call(args, kwargs):
        result = made(*args, **kwargs)
        return result if kind == "blocking" else asyncio.run(result)

    for _ in range(3):  # a load, a look-up by key, a look-up by arguments
        for args, kwargs in calls:
            assert call(args, kwargs) == [fn(*args, **kwargs)]
    assert next(runs) == 1
    assert len({made.key_for(*args, **kwargs) for args, kwargs in calls}) == 1


def test_what_is_bound_wrongly_is_a_type_error_as_without_the_cache(cache: Cache) -> None:
    made = cache.cached(_free)
    for args, kwargs in (((), {}), ((1,), {"a": 1}), ((1, 2, 3, 4), {}), ((1,), {"e": 5})):
        with pytest.raises(TypeError):
            made(*args, **kwargs)
        with pytest.raises(TypeError):
            made.key_for(*args, **kwargs)


@pytest.mark.parametrize("values", [(1, True, 1.0, "1", b"1"), (0, False, 0.0, -0.0, None, "None", "")])
def test_equal_values_of_other_types_are_other_keys(cache: Cache, values) -> None:
    @cache.cached
    def show(x):
        return repr(x)

    for _ in range(3):
        assert [show(value) for value in values] == [repr(value) for value in values]


def test_it_looks_like_the_function(cache: Cache) -> None:
    @cache.cached(ttl="5m")
    async def price(product_id: int, *, currency: str = "EUR") -> float:
        """Look a price up."""
        return 1.0

    assert (price.__name__, price.__doc__, price.__module__) == ("price", "Look a price up.", __name__)
    assert inspect.iscoroutinefunction(price)
    assert list(inspect.signature(price).parameters) == ["product_id", "currency"]


# -- methods ----------------------------------------------------------------------------------------------------------


def _methods(cache: Cache):
    class Shop:
        runs = count()

        @cache.cached
        def method(self, x):
            return [next(self.runs), x]

        @cache.cached
        async def coroutine(self, x):
            return [next(self.runs), x]

        @classmethod
        @cache.cached
        def class_inside(cls, x):
            return [next(cls.runs), cls, x]

        @cache.cached
        @classmethod
        def class_outside(cls, x):
            return [next(cls.runs), cls, x]

        @staticmethod
        @cache.cached
        def static_inside(x):
            return [next(Shop.runs), x]

        @cache.cached
        @staticmethod
        def static_outside(x):
            return [next(Shop.runs), x]

    return Shop


@pytest.mark.parametrize("name", ["method", "class_inside", "class_outside", "static_inside", "static_outside"])
def test_methods(cache: Cache, name) -> None:
    shop_class = _methods(cache)
    shop, other = shop_class(), shop_class()
    first = getattr(shop, name)(1)
    assert getattr(shop, name)(x=1) is getattr(shop, name)(1) is first
    assert getattr(shop, name)(2) is not first
    assert (getattr(other, name)(1) is first) is (name != "method")
    if name != "method":
        assert getattr(shop_class, name)(1) is first

    class Sub(shop_class):
        pass

    assert (getattr(Sub(), name)(1) is first) is name.startswith("static")


def test_coroutine_methods(cache: Cache) -> None:
    shop = _methods(cache)()

    async def job():
        assert await shop.coroutine(1) is await shop.coroutine(x=1)
        assert await shop.coroutine(1) is not await shop.coroutine(2)

    asyncio.run(job())


def test_handles_of_methods_take_the_instance_first(cache: Cache) -> None:
    shop_class = _methods(cache)
    shop = shop_class()
    first = shop.method(1)
    shop_class.method.invalidate(shop, 1)
    second = shop.method(1)
    assert second is not first
    assert shop_class.method.refresh(shop, 1) is shop.method(1) is not second
    with pytest.raises(TypeError, match=r"take the instance first: Shop.method.invalidate\(instance, ...\)"):
        shop_class.method.invalidate(1)


def test_handles_of_class_methods(cache: Cache) -> None:
    shop_class = _methods(cache)
    first = shop_class.class_outside(1)
    shop_class.class_outside.invalidate(1)
    assert shop_class.class_outside(1) is not first
    assert shop_class.class_outside.refresh(1) is shop_class.class_outside(1)
    assert shop_class.class_outside.key_for(1) != shop_class.class_outside.key_for(2)
    first = shop_class.class_inside(1)
    shop_class.class_inside.invalidate(shop_class, 1)
    assert shop_class.class_inside(1) is not first
    first = shop_class.static_inside(1)
    shop_class.static_inside.invalidate(1)
    assert shop_class.static_inside(1) is not first


def test_a_key_of_their_own_follows_the_instance_and_not_its_address(cache: Cache) -> None:
    class Repo:
        def __init__(self, tenant):
            self.tenant = tenant

        @cache.cached(key="rows:{self.tenant}:{x}")
        def rows(self, x):
            return f"rows of {self.tenant}"

    for tenant in range(50):  # a new instance usually gets the address of the one that has just died
        repo = Repo(tenant)
        assert [repo.rows(1) for _ in range(3)] == [f"rows of {tenant}"] * 3
        del repo
    repo = Repo("a")
    assert [repo.rows(1), repo.rows(1)] == ["rows of a"] * 2
    repo.tenant = "b"
    assert repo.rows(1) == "rows of b"


def test_a_key_function_is_asked_each_time(cache: Cache) -> None:
    tenant = contextvars.ContextVar("tenant")

    @cache.cached(key=lambda x: f"{tenant.get()}:{x}")
    def rows(x):
        return f"rows of {tenant.get()}"

    for name in ("a", "a", "b", "b", "a"):
        tenant.set(name)
        assert rows(1) == f"rows of {name}"


# -- handles ----------------------------------------------------------------------------------------------------------


def test_handles(cache: Cache) -> None:
    runs = count()

    @cache.cached(tags=["x:{x}"])
    def load(x, y=0):
        return next(runs)

    assert [load(1), load(1), load(2)] == [0, 0, 1]
    load.invalidate(x=1)
    assert [load(1), load(2)] == [2, 1]
    assert load.refresh(2) == 3 and load(2) == 3
    assert cache.get(load.key_for(1)) == 2
    asyncio.run(load.ainvalidate(1))
    assert load(1) == 4
    cache.invalidate("x:2")
    assert [load(1), load(2)] == [4, 5]


def test_handles_of_coroutine_functions_are_awaited(cache: Cache) -> None:
    runs = count()

    @cache.cached
    async def load(x):
        return next(runs)

    async def job():
        assert [await load(1), await load(1)] == [0, 0]
        await load.invalidate(1)
        assert await load(1) == 1
        assert await load.refresh(1) == 2 and await load(1) == 2
        assert load.key_for(1) == load.key_for(x=1)

    asyncio.run(job())


def test_refresh_overtakes_a_load_that_is_running(cache: Cache, thread, watch) -> None:
    """The older load started first and ends last: its value must not replace that of the refresh."""
    source, reading, go_on = ["old"], threading.Event(), threading.Event()

    @cache.cached
    def load(x):
        value = source[0]
        if value == "old":
            reading.set()
            go_on.wait(10)
        return value

    older = thread(load, 1)
    reading.wait(10)
    source[0] = "new"
    assert load.refresh(1) == "new"
    go_on.set()
    assert older.result() == "old"
    assert load(1) == "new"


def test_a_failed_refresh_keeps_what_is_there(cache: Cache) -> None:
    fail = [False]

    @cache.cached
    def load(x):
        if fail[0]:
            raise Boom
        return "kept"

    load(1)
    fail[0] = True
    with pytest.raises(Boom):
        load.refresh(1)
    assert load(1) == "kept"


# -- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, False, 0, "", [], ()])
def test_results_that_are_false_are_cached(cache: Cache, value) -> None:
    runs = count()

    @cache.cached
    def load(x):
        next(runs)
        return value

    assert [load(1) for _ in range(4)] == [value] * 4
    assert next(runs) == 1


@pytest.mark.parametrize("error", [Boom("no"), KeyError("k"), TypeError("t"), TimeoutError(), ConfigError("own")])
def test_exceptions_pass_untouched_and_are_not_cached(cache: Cache, error) -> None:
    @cache.cached
    def load(x):
        raise error

    @cache.cached
    async def aload(x):
        raise error

    for _ in range(2):
        for call in (lambda: load(1), lambda: asyncio.run(aload(1))):
            with pytest.raises(type(error)) as caught:
                call()
            assert caught.value is error
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None  # nothing of ours in the traceback's "during handling of"
    assert cache.stats().total.load_errors == 4


def _generator():
    yield 1


async def _async_generator():
    yield 1


@pytest.mark.parametrize("fn", [_generator, _async_generator])
def test_generators_are_refused_when_decorated(cache: Cache, fn) -> None:
    with pytest.raises(ConfigError, match="return a list"):
        cache.cached(fn)


async def _coroutine():
    return 1


@pytest.mark.parametrize("make", [_coroutine, _generator, _async_generator, lambda: iter([1]), lambda: map(str, [1])])
def test_results_that_can_be_used_once_are_refused(cache: Cache, make) -> None:
    @cache.cached
    def load(x):
        return make()

    @cache.cached
    async def aload(x):
        return make()

    for call in (lambda: load(1), lambda: asyncio.run(aload(1)), lambda: cache.get_or_set("k", lambda: make())):
        with pytest.raises(ConfigError, match="can be used only once"):
            call()
    assert cache.stats().entries == 0


def test_copy_gives_everybody_their_own(cache: Cache) -> None:
    @cache.cached(copy=True)
    def load(x):
        return {"list": [x]}

    for _ in range(3):
        found = load(1)
        assert found == {"list": [1]}
        found["list"].append("changed")

    @cache.cached
    def shared(x):
        return {"list": [x]}

    assert shared(1) is shared(1)


# -- how long ---------------------------------------------------------------------------------------------------------


def test_ttl_classes(clock: ManualClock) -> None:
    cache = Cache(clock=clock, ttl="1h", ttl_classes={"quick": 10, "slow": Policy(ttl=100, stale_if_error=5)})
    runs = count()

    @cache.cached(ttl="quick")
    def quick(x):
        return next(runs)

    @cache.cached(ttl="slow", stale_while_revalidate="1s")
    def slow(x):
        return next(runs)

    @cache.cached
    def usual(x):
        return next(runs)

    before = [quick(1), slow(1), usual(1)]
    for after, same in ((9.9, [True, True, True]), (10.1, [False, True, True]), (3000, [False, False, True])):
        clock.advance(after)
        now = [quick(1), slow(1), usual(1)]
        assert [new == old for new, old in zip(now, before, strict=True)] == same
        before = now
    assert cache.ttl_classes == ("quick", "slow")
    assert cache.stats().by_class["quick"].loads == 3
    with pytest.raises(ConfigError, match="'quick', 'slow'"):
        cache.cached(ttl="unknown")(lambda x: x)


def test_a_result_is_not_served_after_its_ttl(cache: Cache, clock: ManualClock) -> None:
    runs = count()

    @cache.cached(ttl="10s")
    def load(x):
        return next(runs)

    assert [load(1), load(1), load(1)] == [0, 0, 0]
    clock.advance(9.999)
    assert load(1) == 0
    clock.advance(0.001)
    assert [load(1), load(1)] == [1, 1]


def test_early_refresh_happens_on_results_that_are_hit_in_memory(clock: ManualClock, watch, monkeypatch) -> None:
    """With chance -> 1 the refresh is due long before the end; with 0 never. The loader takes 2 s by the stopwatch."""
    time, draw = ManualClock(0.0), [0.0]
    monkeypatch.setattr("cachekit.engine.stopwatch", time)
    cache = Cache(clock=clock, chance=lambda: draw[0], observers=[watch])

    @cache.cached(ttl=100, beta=1.0)
    def load(x):
        time.advance(2.0)
        return time.now

    first = load(1)
    clock.advance(95)
    assert [load(1), load(1)] == [first, first]
    draw[0] = 1 - 1e-9  # -ln(1e-9) * 2 s = 41 s early
    assert load(1) == first  # the caller does not wait
    watch.wait(Kind.STORED, 2)
    assert load(1) > first
    assert len(watch.of(Kind.LOAD)) == 2


# -- tags -------------------------------------------------------------------------------------------------------------


def test_tags_from_arguments_result_and_body(cache: Cache) -> None:
    runs = count()

    @cache.cached(tags=["by:{x}", "all"], result_tags=lambda result: [f"owner:{result['owner']}"])
    def load(x):
        cachekit.tag("body")
        return {"owner": "ann", "run": next(runs)}

    for tag in ("by:1", "all", "owner:ann", "body"):
        before = load(1)
        assert load(1) is before
        cache.invalidate("by:2", "owner:bob")
        assert load(1) is before
        cache.invalidate(tag)
        assert load(1) is not before, tag


def test_a_bad_result_tag_is_the_developers_to_know(cache: Cache) -> None:
    @cache.cached(result_tags=lambda result: result)
    def load(x):
        return x

    with pytest.raises(ConfigError, match="tags must be a list"):
        load("text")
    with pytest.raises(ConfigError, match="control"):
        load(("a\nb",))
    assert load(("fine",)) == ("fine",)


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_tags_pass_outward(cache: Cache, kind) -> None:
    """Dropping what was used drops what was made of it, whether the inner result was loaded, found or collected."""
    runs = count()

    if kind == "blocking":

        @cache.cached(tags=["product:{x}"])
        def inner(x):
            return x

        @cache.cached(tags=["page"])
        def middle(x):
            return inner(x)

        @cache.cached
        def outer():
            return [middle(1), inner(2), next(runs)]

        call = outer
    else:

        @cache.cached(tags=["product:{x}"])
        async def ainner(x):
            return x

        @cache.cached(tags=["page"])
        async def amiddle(x):
            return (await asyncio.gather(ainner(x), ainner(x)))[0]

        @cache.cached
        async def aouter():
            return [*await asyncio.gather(amiddle(1), ainner(2)), next(runs)]

        def call():
            return asyncio.run(aouter())

    for tag in ("product:1", "product:2", "page", "product:1"):
        before = call()
        assert call() is before
        cache.invalidate(tag)
        assert call() is not before, tag
    with cachekit.collecting() as used:
        call()
    assert set(used) == {"product:1", "product:2", "page"}


def test_tags_of_direct_reads_pass_outward(cache: Cache) -> None:
    cache.set("rate", 5, tags=["rates"])
    runs = count()

    @cache.cached
    def outer():
        return [cache.get("rate"), cache.get_or_set("more", lambda: 1, tags=["more"]), next(runs)]

    before = outer()
    for tag in ("rates", "more"):
        cache.invalidate(tag)
        assert outer() is not before
        before = outer()
        cache.set("rate", 5, tags=["rates"])


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ttl": -1}, "ttl=-1"),
        ({"ttl": 0}, "ttl=0"),
        ({"ttl": "0s"}, "ttl=0"),
        ({"ttl": "5 parsecs"}, "'5 parsecs'"),
        ({"ttl": float("nan")}, "nan"),
        ({"ttl": True}, "True"),
        ({"stale_while_revalidate": -1}, "stale_while_revalidate=-1"),
        ({"stale_if_error": "soon"}, "stale_if_error='soon'"),
        ({"jitter": 1}, "jitter=1"),
        ({"jitter": -0.1}, "jitter=-0.1"),
        ({"beta": -1}, "beta=-1"),
        ({"lease": 0}, "lease=0"),
        ({"lease": None}, "lease"),
        ({"tags": "user:{x}"}, r"tags=\['user:\{x\}'\]"),
        ({"tags": 5}, "tags must be"),
        ({"tags": [5]}, "a tag must be a string"),
        ({"tags": ["user:{y}"]}, r"names \{y\}, which is no parameter \(parameters: x\)"),
        ({"tags": ["user:{x"]}, "not a valid template"),
        ({"tags": ["user:{x!r}"]}, "conversion"),
        ({"tags": [""]}, "empty"),
        ({"tags": ["a\tb"]}, "control"),
        ({"tags": ["a" * 513]}, "512"),
        ({"key": "row:{y}"}, r"names \{y\}"),
        ({"key": "row:{}"}, "no parameter"),
        ({"key": 5}, "key=5"),
        ({"key": "row:{x}", "ignore": "x"}, "ignore"),
        ({"ignore": ["y"]}, "'y', which is no parameter"),
        ({"result_tags": ["a"]}, "result_tags must be a callable"),
        ({"tll": 5}, "no option tll"),
    ],
    ids=str,
)
def test_options_that_cannot_be_used(cache: Cache, options, says) -> None:
    with pytest.raises(ConfigError, match=says):

        @cache.cached(**options)
        def load(x):
            return x


@pytest.mark.parametrize("thing", [5, "text", None, functools.partial(_free, 1)], ids=str)
def test_what_is_no_function_is_refused(cache: Cache, thing) -> None:
    with pytest.raises(ConfigError, match="def"):
        cache.cached(ttl=5)(thing)


def test_one_key_template_for_two_functions_is_refused(cache: Cache) -> None:
    cache.cached(key="row:{x}")(lambda x: x)

    def load(x):
        return x

    with pytest.raises(ConfigError, match="row:.*is used by .*lambda"):
        cache.cached(key="row:{x}")(load)
    Cache().cached(key="row:{x}")(load)


def test_arguments_that_cannot_be_in_a_key_are_named(cache: Cache) -> None:
    @cache.cached
    def load(x, y=None):
        return x

    for args, where in (((1, object()), "y"), ((1, [{"k": object()}]), r"y\[0\]\['k'\]")):
        with pytest.raises(KeyArgumentError, match=rf"argument {where} of type object.*ignore=\(\"y\",\)") as caught:
            load(*args)
        assert caught.value.argument == "y"
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(KeyArgumentError, match="argument x"):
        load(loop)


@pytest.mark.parametrize("made", [None, 5, b"key", ""])
def test_a_key_function_must_return_text(cache: Cache, made) -> None:
    @cache.cached(key=lambda x: made)
    def load(x):
        return x

    with pytest.raises(ConfigError, match="must be a string"):
        load(1)


def test_tags_of_arguments_that_cannot_be_tags(cache: Cache) -> None:
    @cache.cached(tags=["x:{x}"])
    def load(x):
        return x

    for bad, says in (("a\x00b", "control"), ("a" * 600, "512")):
        with pytest.raises(ConfigError, match=says):
            load(bad)


def test_an_unencodable_default_codec_value_is_fine_in_memory(cache: Cache) -> None:
    with pytest.raises(CodecError):
        cache.codec.encode(object())
    marker = object()
    cache.set("k", marker)
    assert cache.get("k") is marker


# -- nobody waits for themselves ----------------------------------------------------------------------------------------


def test_a_function_that_calls_itself_with_the_same_key(cache: Cache, thread) -> None:
    depth = count()

    @cache.cached
    def load(x):
        return load(x) + 1 if next(depth) < 3 else 0

    assert thread(load, 1).result() == 3
    assert load(1) == 3

    adepth = count()

    @cache.cached
    async def aload(x):
        return await aload(x) + 1 if next(adepth) < 3 else 0

    assert thread(asyncio.run, aload(1)).result() == 3


def test_two_functions_that_call_each_other_at_once(cache: Cache, thread, watch) -> None:
    both_in = threading.Barrier(2)
    runs = {"a": count(), "b": count()}

    @cache.cached
    def a():
        if next(runs["a"]):
            return "a"
        both_in.wait(10)
        return f"a({b()})"

    @cache.cached
    def b():
        if next(runs["b"]):
            return "b"
        both_in.wait(10)
        return f"b({a()})"

    results = [thread(a).result, thread(b).result]
    assert all("a" in result() and "b" in result() for result in results)


def test_a_circle_through_a_load_within_a_load(cache: Cache, thread, watch) -> None:
    """T1: a -> b -> c. T2: c -> a. T1 waits for c first; then T2 must not wait for a, whose inner b waits for c."""
    c_is_running = threading.Event()
    runs = {"a": count(), "b": count(), "c": count()}

    @cache.cached
    def a():
        return "a" if next(runs["a"]) else b()

    @cache.cached
    def b():
        next(runs["b"])
        c_is_running.wait(10)
        return c()

    @cache.cached
    def c():
        if next(runs["c"]):
            return "c"
        c_is_running.set()
        watch.wait(Kind.COLLAPSED)  # T1 waits for this load now
        return f"c({a()})"

    second = thread(c)
    c_is_running.wait(10)
    first = thread(a)
    assert second.result() == first.result() == "c(a)"


def test_the_same_in_tasks(cache: Cache, watch) -> None:
    runs = {"a": count(), "b": count(), "c": count()}

    @cache.cached
    async def a():
        return "a" if next(runs["a"]) else await b()

    @cache.cached
    async def b():
        await until_running.wait()
        return await c()

    @cache.cached
    async def c():
        if next(runs["c"]):
            return "c"
        until_running.set()
        await watch.await_(Kind.COLLAPSED)
        return f"c({await a()})"

    async def job():
        global until_running
        until_running = asyncio.Event()
        async with asyncio.timeout(10):
            return await asyncio.gather(c(), a())

    assert asyncio.run(job()) == ["c(a)", "c(a)"]


def test_a_blocking_call_in_a_loop_that_loads_the_same_key(cache: Cache, thread) -> None:
    """The blocking caller stops the loop; if it waited for the loop's load, both would wait for ever."""
    runs = count()

    async def job():
        loading, go_on = asyncio.Event(), asyncio.Event()

        async def aload():
            next(runs)
            loading.set()
            await go_on.wait()
            return "async"

        task = asyncio.create_task(cache.aget_or_set("k", aload))
        await loading.wait()
        value = cache.get_or_set("k", lambda: "blocking")
        go_on.set()
        return value, await task

    assert thread(asyncio.run, job()).result() == ("blocking", "async")
    assert cache.get("k") in ("async", "blocking")


def test_functions_of_one_factory_do_not_share_results(cache: Cache) -> None:
    def make(tenant, db):
        @cache.cached(ttl=60)
        def report(month):
            return f"{tenant} {month}"

        return report

    db = object()
    assert make("a", db)("may") == "a may"
    assert make("b", db)("may") == "b may"
    assert make("1", db).key_for("may") != make(1, db).key_for("may")
    assert make("a", object()).key_for("may") == make("a", db).key_for("may")


def test_a_function_that_calls_itself_by_name_has_a_stable_key(cache: Cache) -> None:
    @cache.cached(ttl=60)
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(20) == 6765
    assert "[" not in fibonacci.key_for(1)


def test_lambdas_on_different_lines_do_not_share_results(cache: Cache) -> None:
    one = cache.cached(ttl=60)(lambda x: x + 1)
    two = cache.cached(ttl=60)(lambda x: x + 2)
    assert [one(1), two(1)] == [2, 3]
