"""Structures without a calculation: read from the files of other programs, or made."""
