"""Small applications that the tests serve; they know nothing of cachekit unless they say so."""
