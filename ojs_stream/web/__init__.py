"""The HTTP API: views turn requests into commands and read stored state. A view never writes Redis."""
