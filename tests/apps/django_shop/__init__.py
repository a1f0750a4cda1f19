"""A small Django project: products in categories, pages of every kind, for the tests of the adapter."""
