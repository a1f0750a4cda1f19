"""Applications to start, wrap and measure."""
