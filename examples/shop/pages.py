"""The pages of the shop, as text. Must not know requests or sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from time import gmtime, strftime

from cachekit.sessions import SessionInfo
from examples.shop.catalogue import PRODUCTS, price

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: #0a6b5e }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem }
header { display: flex; gap: 1.5rem; align-items: baseline; border-bottom: 1px solid var(--line); margin-bottom: 1.5rem }
header h1 { font-size: 1.4rem; margin: 0 auto 0 0 }
a { color: var(--accent) }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem }
.card { display: flex; flex-direction: column; gap: .25rem }
.card form { margin-top: auto; display: flex; justify-content: space-between; align-items: center }
button { font: inherit; border: 0; border-radius: .35rem; padding: .35rem .8rem; cursor: pointer }
button { background: var(--accent); color: #fff }
button.quiet { background: none; color: inherit; border: 1px solid var(--line) }
input { font: inherit; padding: .3rem .5rem; border: 1px solid var(--line); border-radius: .35rem }
input { background: none; color: inherit }
input[type=number] { width: 4.5rem }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
td, th { text-align: left; padding: .4rem; border-bottom: 1px solid var(--line) }
td form { display: inline-flex; gap: .4rem }
td.right, th.right { text-align: right }
.note { border-left: 4px solid var(--accent); padding: .4rem .8rem; margin: .5rem 0 }
footer { margin-top: 2rem; font-size: .85rem; opacity: .75 }
"""


def page(title: str, body: str, foot: str) -> str:
    """Return a whole page."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><header><h1>Kettle &amp; Board</h1><a href='/'>Shop</a><a href='/cart'>Your cart</a>"
        f"</header><main>{body}</main><footer>{escape(foot)}</footer></html>"
    )


def shelf() -> str:
    """Return what everybody sees: nothing of any visitor is in it, so that the HTTP cache may keep it."""
    cards = "".join(
        f"<div class=card><strong>{escape(item.name)}</strong><span>{escape(item.about)}</span>"
        f"<form method=post action=/add><input type=hidden name=sku value={item.sku}>"
        f"<span>{price(item.price)}</span><button>Add</button></form></div>"
        for item in PRODUCTS.values()
    )
    return f"<div class=grid>{cards}</div>"


def cart(lines: Mapping[str, int], notes: Sequence[tuple[str, str]], token: str, *, degraded: bool) -> str:
    """Return the cart of one visitor."""
    hidden = f"<input type=hidden name=token value={escape(token)}>"
    said = "".join(f"<p class=note>{escape(text)}</p>" for _, text in notes)
    if degraded:
        said += "<p class=note>The store of sessions is away: what you do is kept here until it is back.</p>"
    known = {sku: count for sku, count in lines.items() if sku in PRODUCTS}
    if not known:
        return said + "<p>Your cart is empty.</p>"
    rows = "".join(
        f"<tr><td>{escape(PRODUCTS[sku].name)}<td><form method=post action=/set>{hidden}"
        f"<input type=hidden name=sku value={sku}><input type=number name=count min=0 max=99 value={count}>"
        f"<button class=quiet>Change</button></form><td class=right>{price(PRODUCTS[sku].price * count)}"
        for sku, count in sorted(known.items())
    )
    total = price(sum(PRODUCTS[sku].price * count for sku, count in known.items()))
    return (
        f"{said}<table><tr><th>Item<th>Count<th class=right>Price{rows}<tr><th>Total<th><th class=right>{total}</table>"
    )


def account(user: str, sessions: Sequence[SessionInfo], own: str, token: str) -> str:
    """Return who is logged in, and where else."""
    hidden = f"<input type=hidden name=token value={escape(token)}>"
    if not user:
        return (
            f"<h2>Log in</h2><form method=post action=/login>{hidden}<input name=name required maxlength=40 "
            "placeholder='Your name'> <label><input type=checkbox name=remember> remember me</label> "
            "<button>Log in</button></form><p>No password: this is an example.</p>"
        )
    rows = "".join(
        f"<tr><td>{escape(each.agent[:60] or 'unknown')}<td>{strftime('%d %b %H:%M', gmtime(each.created_at))} UTC"
        f"<td>{'this one' if each.handle == own else ''}"
        for each in sessions
    )
    return (
        f"<h2>Hello, {escape(user)}</h2><table><tr><th>Where you are logged in<th>Since<th>{rows}</table>"
        f"<form method=post action=/logout-others style='display:inline'>{hidden}<button class=quiet>Log out everywhere else"
        f"</button></form> <form method=post action=/logout style='display:inline'>{hidden}<button>Log out</button></form>"
    )
