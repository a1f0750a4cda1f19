"""Responses travel compressed: negotiation, codings, and the edges that apply them."""
