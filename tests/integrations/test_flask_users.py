"""Flask-Login that goes by a field of its own: what a user is given reaches nobody else."""

from __future__ import annotations

import flask
import flask_login
import pytest
from cachekit_flask import CacheKit, Rule

from cachekit import Cache


class User(flask_login.UserMixin):
    def __init__(self, name):
        self.id = name


@pytest.fixture
def app():
    made = flask.Flask("shop")
    made.config.update(TESTING=True, SECRET_KEY="secret")
    manager = flask_login.LoginManager(made)
    manager.request_loader(lambda request: User(name) if (name := request.headers.get("X-Member")) else None)
    return made


@pytest.fixture
def client(app):
    return app.test_client(use_cookies=False)


def page():
    user = flask_login.current_user
    return f"page of {user.id}" if user.is_authenticated else "page of a stranger"


def visits(client, path):
    return [client.get(path, headers={"X-Member": who} if who else {}) for who in ("ann", "bob", "", "", "", "ann")]


@pytest.mark.parametrize("stored", ["by rule", "where the decorator stands"])
def test_what_a_user_is_given_is_theirs(app, client, stored):
    if stored == "by rule":
        CacheKit(app, cache=Cache(), rules=[Rule("/**", ttl="5m", cache_control="max-age=300")])
        app.add_url_rule("/", "page", page)
    else:
        app.add_url_rule("/", "page", CacheKit(app, cache=Cache()).cached(ttl="5m")(page))
    first = visits(client, "/")
    assert [got.text for got in first[:5]] == ["page of ann", "page of bob", *["page of a stranger"] * 3]
    if stored == "by rule":
        assert "private" in first[0].headers["Cache-Control"]
        assert "hit" in first[4].headers["Cache-Status"]


def test_who_is_not_looked_at_is_nobody(app, client):
    CacheKit(app, cache=Cache(), rules=[Rule("/**", ttl="5m")])
    app.add_url_rule("/", "plain", lambda: "plain")
    assert ["hit" in got.headers["Cache-Status"] for got in visits(client, "/")] == [False, *[True] * 5]
