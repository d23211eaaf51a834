"""From a trained network or a DFT Hamiltonian to sparse H(k), S(k), bands and pictures."""

if __name__ != "deeph_tracegrad.inference":
    raise ImportError(
        f"this folder was imported as {__name__!r}; import it as deeph_tracegrad.inference, its only name"
    )
