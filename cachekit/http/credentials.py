"""By which fields of a request an application may know who is asking, beside what RFC 9111 names.

A response to somebody who is known is for that person alone, unless it is declared to be for everyone. RFC 9111 says so of
Authorization; a page does not care by which field its visitor came to be known. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_STANDARD: Final = ("authorization", "cookie", "proxy-authorization", "client-cert", "client-cert-chain")
"""RFC 9110 section 11, RFC 6265, RFC 9440."""
_KEYS: Final = (
    "x-api-key", "api-key", "apikey", "x-apikey", "x-goog-api-key", "x-auth-token", "x-auth-key", "x-authorization",
    "x-access-token", "x-session-token", "x-token", "x-amz-security-token",
)  # fmt: skip
"""What clients send in place of Authorization."""
_PROXIES: Final = (
    "remote-user", "remote-email", "x-remote-user", "x-user", "x-user-id", "x-user-email", "x-webauth-user",
    "x-forwarded-user", "x-forwarded-email", "x-forwarded-preferred-username", "x-forwarded-access-token",
    "x-auth-request-user", "x-auth-request-email", "x-auth-request-access-token", "x-authentik-username",
    "x-authenticated-userid", "x-consumer-id", "x-consumer-username", "cf-access-jwt-assertion",
    "cf-access-authenticated-user-email", "x-goog-iap-jwt-assertion", "x-goog-authenticated-user-id",
    "x-goog-authenticated-user-email", "x-amzn-oidc-identity", "x-amzn-oidc-data", "x-amzn-oidc-accesstoken",
    "x-ms-client-principal", "x-ms-client-principal-id", "x-ms-client-principal-name", "tailscale-user-login",
    "x-forwarded-client-cert", "x-client-cert", "x-ssl-cert", "x-ssl-client-cert", "x-ssl-client-dn",
    "x-ssl-client-s-dn", "ssl-client-cert", "x-client-dn",
)  # fmt: skip
"""What proxies add that ask for the password themselves (oauth2-proxy, Authelia, Authentik, Kong, Cloudflare Access, Google
IAP, AWS, Azure, Tailscale), or that check certificates (Envoy, nginx, HAProxy)."""

CREDENTIALS: Final = (*_STANDARD, *_KEYS, *_PROXIES)

SECRETS: Final = frozenset(CREDENTIALS)
"""Fields of which only digests are kept, where they select a response."""

BY_SERVER: Final[Mapping[str, str]] = {"REMOTE_USER": "remote-user", "SSL_CLIENT_S_DN": "client-cert"}
"""Variables by which a WSGI server says who is asking (RFC 3875 section 4.1.11, mod_ssl), and the fields they stand for."""


KNOWN: Final = "cachekit.user"
"""Under this name an adapter says in a scope or environ that its framework knows who is asking, by whatever that may be."""

USER: Final = "user"
"""Under this name a scope has it in Starlette (AuthenticationMiddleware), Channels and Litestar."""

SOMEBODY: Final = "remote-user"
"""The field for which a user counts who came by none."""


def knows(asked: Mapping[str, Any], user: object = None) -> bool:
    """Say whether it is known who is asking, by now, in what a scope or environ holds.

    That is what an adapter says, and ``REMOTE_USER``; and *user*, where one is given, who is somebody unless he says that he
    ``is_authenticated`` not.
    """
    if asked.get(KNOWN) or asked.get("REMOTE_USER"):
        return True
    try:
        return user is not None and bool(getattr(user, "is_authenticated", True))
    except Exception:  # noqa: BLE001 - one that is loaded when somebody looks: nobody did
        return False


def certificate_of(scope: Mapping[str, Any]) -> str:
    """Return whose certificate the client of an ASGI *scope* has shown, by the TLS extension of ASGI; or an empty text."""
    if (extensions := scope.get("extensions")) and (tls := extensions.get("tls")):
        return str(tls.get("client_cert_name") or "")
    return ""
