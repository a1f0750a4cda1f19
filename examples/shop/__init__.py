"""A small shop whose visitors keep their carts while the servers behind it are replaced."""
