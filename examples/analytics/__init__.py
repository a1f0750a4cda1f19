"""A flights dashboard that knows nothing about caching, and the tools that measure it with and without a cache."""
