"""What a cache does, shown to those who run it: exporters for Prometheus and OpenTelemetry, and a monitor of hit rates.

Each module is imported by itself, so that nobody pays for an exporter that they do not use.
"""
