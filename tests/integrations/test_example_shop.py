"""The shop: its pages do what they say, and a rolling restart under load loses no session."""

import asyncio
import re
import warnings

import pytest

pytest.importorskip("starlette")
pytest.importorskip("python_multipart")
pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

from cachekit import Cache  # noqa: E402
from cachekit.asgi import CacheKit  # noqa: E402
from cachekit.sessions import SessionOptions, Sessions  # noqa: E402
from examples.shop import fleet  # noqa: E402
from examples.shop.app import create_app  # noqa: E402


@pytest.fixture
def browser():
    sessions = Sessions("memory://", SessionOptions(secrets="a secret of this test", development=True))
    app = CacheKit(create_app(sessions), cache=Cache(), sessions=sessions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
    with TestClient(app) as client:
        client.sessions = sessions
        client.fork = lambda: TestClient(app)
        yield client


def token(browser):
    return re.search(r"name=token value=([\w-]+)", browser.get("/cart").text)[1]


def test_the_shelf_is_kept_for_everybody_and_the_cart_for_nobody(browser):
    assert [browser.get("/").headers["cache-status"].split("; ")[1] for _ in range(3)][-1] == "hit"
    browser.post("/add", data={"sku": "kettle"})
    for _ in range(3):
        got = browser.get("/cart")
        assert (got.headers["cache-control"], got.headers["vary"]) == ("private", "Cookie")
        assert "hit" not in got.headers["cache-status"]
    assert "Enamel kettle" in got.text
    assert "Your cart is empty" in browser.fork().get("/cart").text


def test_a_visit(browser):
    page = browser.post("/add", data={"sku": "kettle"}).text
    assert "is in your cart" in page
    assert "is in your cart" not in browser.get("/cart").text
    browser.post("/set", data={"token": token(browser), "sku": "mugs", "count": "3"})
    page = browser.post("/login", data={"token": token(browser), "name": "<Ann>", "remember": "on"}).text
    assert "Welcome, &lt;Ann&gt;" in page and "£100.90" in page
    assert browser.get("/state").json()["cart"] == {"kettle": 1, "mugs": 3}
    assert len(browser.sessions.of("<Ann>")) == 1
    browser.post("/logout", data={"token": token(browser)})
    assert browser.get("/state").json() == {**browser.get("/state").json(), "cart": {}, "user": ""}
    assert browser.sessions.of("<Ann>") == []


def test_what_is_refused(browser):
    assert browser.post("/set", data={"sku": "mugs", "count": "3"}).status_code == 403
    assert browser.post("/login", data={"token": "x" * 86, "name": "eve"}).status_code == 403
    assert browser.post("/add", data={"sku": "mugs"}, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert browser.post("/add", data={"sku": "nothing"}).status_code == 404
    for count in ("-1", "100", "x", ""):
        given = {"token": token(browser), "sku": "mugs", "count": count}
        assert browser.post("/set", data=given).status_code == 422


@pytest.mark.server
def test_a_rolling_restart_loses_nothing(capsys):
    assert fleet.main(["--workers", "2", "--clients", "6", "--seconds", "4", "--rolls", "1"]) == 0
    said = capsys.readouterr().out
    assert "sessions lost: 0" in said
    assert "2 of them were replaced" in said


def test_the_count_notices_what_is_lost():
    """The script can fail: a session that came back empty is counted."""
    tally = fleet.Tally()
    visitor = fleet.Visitor("http://shop", tally, __import__("random").Random(1))
    visitor.cart = {"mugs": 2}
    answers = iter([{"cart": {}, "user": "", "worker": 1}, {"cart": {"jar": 1}, "user": "", "worker": 1}])
    visitor.client = httpx.AsyncClient(
        transport=httpx.MockTransport(lambda request: httpx.Response(200, json=next(answers))), base_url="http://shop"
    )

    async def job():
        await visitor.check()
        await visitor.check()

    asyncio.run(job())
    assert (tally.lost, tally.wrong) == (1, 1)
