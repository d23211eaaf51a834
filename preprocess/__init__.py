"""Readers of DFT output, and the building of graph datasets from it."""

if __name__ != "deeph_tracegrad.preprocess":
    raise ImportError(
        f"this folder was imported as {__name__!r}; import it as deeph_tracegrad.preprocess, its only name"
    )
