"""The network: DeepH-E3 in the frames of its edges, with TraceGrad."""
