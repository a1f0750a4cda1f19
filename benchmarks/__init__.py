"""What cachekit costs, beside the floor and beside the peers that are installed. Not part of the test run."""
