"""A material in a few words, for the lines that commands print and the titles of pictures."""

from deeph_tracegrad.console import count
from deeph_tracegrad.material import Material


def headline(material: Material) -> str:
    """Formula, atoms, orbitals, basis and spin."""
    return (
        f"{_formula(material)}: {count(len(material.structure), 'atom')}, {material.num_orbitals:,} orbitals "
        f"({material.basis.describe()}), spin {material.spin}"
    )


def title(material: Material) -> str:
    """Formula and atoms."""
    return f"{_formula(material)}, {count(len(material.structure), 'atom')}"


def _formula(material: Material) -> str:
    composition = material.structure.composition
    return str(composition.elements[0]) if composition.is_element else composition.reduced_formula  # H, not H2
