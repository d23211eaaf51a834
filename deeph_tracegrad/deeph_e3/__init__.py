"""Models that the official DeepH-E3 program trained: what is in their folders, and the same network as a checkpoint."""
