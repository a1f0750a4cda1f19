"""What a loader sees of Flask behind a request: ``request`` as it was, ``g`` and the application context of its own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest

flask = pytest.importorskip("flask")

from cachekit_flask import CacheKit, CacheKitSessionInterface  # noqa: E402
from flask import copy_current_request_context, current_app, g, has_app_context, has_request_context, request  # noqa: E402
from flask.globals import app_ctx  # noqa: E402

from cachekit import Cache, around  # noqa: E402
from cachekit._io import BLOCKING  # noqa: E402
from cachekit.testing import ManualClock  # noqa: E402
from cachekit.warm import Warmer  # noqa: E402
from cachekit.wsgi import Route  # noqa: E402
from tests.conftest import PATIENCE  # noqa: E402


@pytest.fixture
def clock():
    return ManualClock(1_000_000)


@pytest.fixture
def app():
    made = flask.Flask("shop")
    made.config.update(SECRET_KEY="secret")
    return made


@pytest.fixture
def kit(app, clock):
    return CacheKit(app, cache=Cache(clock=clock), routes=[Route("/bounded", timeout=PATIENCE)])


@pytest.fixture
def ended(patient):
    """Waits until no thread of a job is left."""
    others = set(threading.enumerate())  # of tests before
    return lambda: patient(
        lambda: not [one for one in set(threading.enumerate()) - others if one.name == "cachekit-background"]
    )


class Database:
    """The pattern of Flask's tutorial: one connection for an application context, closed by its teardown."""

    def __init__(self, app, path):
        self.path, self.opened, self.closed = str(path), [], []
        with closing(sqlite3.connect(self.path)) as made, made:
            made.execute("create table price (value int)")
            made.execute("insert into price values (100)")
        app.teardown_appcontext(self.close)

    def get(self):
        if "db" not in g:
            g.db = sqlite3.connect(self.path)
            self.opened.append(g.db)
        return g.db

    def price(self):
        return self.get().execute("select value from price").fetchone()[0]

    def change(self, value):
        with closing(sqlite3.connect(self.path)) as made, made:
            made.execute("update price set value = ?", (value,))

    def close(self, _):
        found = g.pop("db", None)
        if found is not None:
            found.close()
            self.closed.append(found)


@pytest.fixture
def database(app, tmp_path):
    return Database(app, tmp_path / "db")


def test_a_refresh_that_outlives_its_request(app, kit, clock, database, ended):
    go_on = threading.Event()

    @kit.memoize(ttl=10, stale_while_revalidate=60)
    def price():
        if clock() > 1_000_000:
            assert go_on.wait(PATIENCE)
        return database.price()

    @app.get("/")
    def page():
        database.get()  # a look at who is logged in, say
        return str(price())

    client = app.test_client()
    assert client.get("/").text == "100"
    database.change(200)
    clock.advance(11)
    assert client.get("/").text == "100"
    go_on.set()
    ended()
    assert client.get("/").text == "200"
    assert len(database.opened) == len(database.closed) == 4


def test_a_refresh_beside_a_request_that_goes_on(app, kit, clock, database, ended):
    @kit.memoize(ttl=10, stale_while_revalidate=60)
    def price():
        return database.price()

    @app.get("/")
    def page():
        mine = database.get()
        found = price()
        ended()
        assert database.get() is mine
        return f"{found} {database.price()}"

    client = app.test_client()
    assert client.get("/").text == "100 100"
    database.change(200)
    clock.advance(11)
    assert [client.get("/").text for _ in range(2)] == ["100 200", "200 200"]
    assert len(database.opened) == len(database.closed) == 4


def test_a_load_that_is_waited_for_only_so_long(app, kit, database, ended):
    price = kit.memoize(ttl=10, hard_timeout=PATIENCE)(lambda: database.price())
    with app.app_context():
        database.get()
        assert price() == 100
        ended()
        assert len(database.closed) == 1
    assert len(database.opened) == len(database.closed) == 2


def test_a_warm_up(app, kit, database):
    price = kit.memoize(ttl=10)(lambda number: database.price())
    warmer = Warmer(progress=False)
    warmer.add_each(price, [(number,) for number in range(3)])
    with app.app_context():
        assert warmer.run().succeeded == 3
    assert len(database.opened) == len(database.closed) == 3


def test_a_route_with_a_time_out(app, kit, database):
    app.add_url_rule("/bounded", "bounded", lambda: str(database.price()))
    with app.app_context():
        database.get()
        assert app.test_client().get("/bounded").text == "100"
    assert len(database.opened) == len(database.closed) == 2


def test_the_request_is_readable_and_g_is_another(app, kit, clock, ended):
    seen = []

    def look():
        seen.append((request.args["q"], g.get("user"), current_app.name, app_ctx._get_current_object()))
        g.user = "of the job"

    load = kit.memoize(ttl=10, hard_timeout=PATIENCE)(look)

    @app.get("/")
    def page():
        g.user = "ann"
        load()
        ended()
        seen.append(app_ctx._get_current_object())
        return g.user

    assert app.test_client().get("/?q=oak").text == "ann"
    (words, user, name, job), outer = seen
    assert (words, user, name) == ("oak", None, "shop") and job is not outer


def test_a_job_that_a_job_starts(app, kit, ended):
    contexts = []

    def inner():
        contexts.append(app_ctx._get_current_object())
        return request.path

    within = kit.memoize(ttl=10, hard_timeout=PATIENCE)(inner)

    @kit.memoize(ttl=10, hard_timeout=PATIENCE)
    def outer():
        contexts.append(app_ctx._get_current_object())
        found = within()
        assert app_ctx._get_current_object() is contexts[0]
        return found

    with app.test_request_context("/here"):
        assert outer() == "/here"
        assert len({id(one) for one in (*contexts, app_ctx._get_current_object())}) == 3
    ended()


def test_a_copy_of_the_request_context_within_a_loader(app, kit, database, ended):
    with app.test_request_context("/here"):
        within = copy_current_request_context(lambda: (request.path, database.price()))
        assert kit.memoize(ttl=10, hard_timeout=PATIENCE)(lambda: within())() == ("/here", 100)
    ended()
    assert len(database.opened) == len(database.closed) == 1


def test_each_application_has_its_own(app, kit, ended):
    other = flask.Flask("other")
    down = []
    other.teardown_appcontext(lambda _: down.append("other"))
    app.teardown_appcontext(lambda _: down.append("shop"))
    name = kit.memoize(ttl=10, hard_timeout=PATIENCE)(lambda: current_app.name)
    with app.test_request_context("/"), other.app_context():
        assert name() == "other"
        ended()
        assert down == ["other"]


def test_outside_of_any_application_there_is_none(kit, ended):
    look = kit.memoize(ttl=10, hard_timeout=PATIENCE)(lambda: [has_app_context(), has_request_context()])
    assert look() == [False, False]
    ended()


def test_a_request_context_alone_is_that_of_its_application(app, kit, ended):
    with app.test_request_context("/here"):
        context = app_ctx._get_current_object()
        context.pop()
        try:
            look = kit.memoize(ttl=10, hard_timeout=PATIENCE)(lambda: [current_app.name, request.path])
            assert look() == ["shop", "/here"]
            ended()
        finally:
            context.push()


def test_a_teardown_that_fails_costs_no_result(app, kit, caplog, ended):
    @app.teardown_appcontext
    def fail(_):
        raise ZeroDivisionError

    load = kit.memoize(ttl=10, hard_timeout=PATIENCE)(lambda: "made")
    with pytest.raises(ZeroDivisionError), app.app_context():  # the caller's own
        assert load() == "made"
        ended()
        assert load.peek() == "made"
    assert "what cachekit_flask puts around a job behind a request failed" in caplog.text


def test_an_async_view_and_its_job_have_each_their_own(app, kit):
    pytest.importorskip("asgiref")
    down = []
    app.teardown_appcontext(lambda _: down.append(g.get("user")))

    async def look():
        await asyncio.sleep(0)
        seen = g.get("user")
        g.user = "of the job"
        return [seen, request.path]

    load = kit.memoize(ttl=10, hard_timeout=PATIENCE)(look)

    @app.get("/")
    async def page():
        g.user = "ann"
        found = await load()
        return {"found": found, "user": g.user}

    assert app.test_client().get("/").json == {"found": [None, "/"], "user": "ann"}
    assert down == ["of the job", "ann"]


@pytest.mark.parametrize("make", [lambda: CacheKit(cache=Cache()), lambda: CacheKitSessionInterface(Cache())])
def test_whatever_is_bound_to_an_application_sees_to_it(make, app, monkeypatch, ended):
    monkeypatch.setattr(around, "_of_threads", {})
    monkeypatch.setattr(around, "_of_tasks", {})
    make()
    seen = []

    async def job():
        seen.append(g.get("user"))

    with app.app_context():
        g.user = "ann"
        BLOCKING.spawn(job())
        ended()
    assert seen == [None]


# -- Flask-SQLAlchemy -----------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(app, tmp_path):
    extension = pytest.importorskip("flask_sqlalchemy")
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'shop.db'}"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 2, "max_overflow": 0, "pool_timeout": PATIENCE}
    database = extension.SQLAlchemy(app)

    class Product(database.Model):
        id = database.Column(database.Integer, primary_key=True)
        price = database.Column(database.Integer)

    with app.app_context():
        database.create_all()
        database.session.add(Product(id=1, price=100))
        database.session.commit()
    database.price = lambda: database.session.get(Product, 1).price
    yield database
    with app.app_context():
        database.engine.dispose()


def test_refreshes_give_back_the_connections_of_flask_sqlalchemy(app, kit, clock, shop, ended):
    used = {}

    @kit.memoize(ttl=10, stale_while_revalidate=60)
    def report(number):
        used.setdefault(shop.session(), set()).add(threading.current_thread())
        return shop.price()

    @app.get("/report/<int:number>")
    def page(number):
        used.setdefault(shop.session(), set()).add(threading.current_thread())
        return str(report(number))

    @app.get("/price")
    def price():
        return str(shop.price())

    client = app.test_client()
    for _ in range(2):
        for number in range(5):  # more than the pool has connections
            assert client.get(f"/report/{number}").text == "100"
            ended()
        clock.advance(11)
    assert client.get("/price").text == "100"
    with app.app_context():
        assert shop.engine.pool.checkedout() == 0
    assert len(shop.session.registry.registry) == 0
    assert [len(threads) for threads in used.values()] == [1] * 15


def test_a_session_of_flask_sqlalchemy_is_not_shared_with_a_load(app, kit, shop, ended):
    load = kit.memoize(ttl=10, hard_timeout=PATIENCE)(lambda: [id(shop.session()), shop.price()])
    with app.app_context():
        mine = shop.session()
        found, price = load()
        ended()
        assert (found != id(mine), price, shop.price()) == (True, 100, 100)
        assert shop.engine.pool.checkedout() == 1
