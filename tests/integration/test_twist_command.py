"""`deeph-tracegrad twist`, through the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deeph_tracegrad.structures.reader import read_structure


def test_graphene(command, tmp_path, capsys):
    out = tmp_path / "new" / "POSCAR"
    assert command("twist", 2, 3, "--out", out) == 0
    told = capsys.readouterr().out
    assert told == f"{out}: C76, 76 atoms, twisted by 13.1736°, a = b = 10.7229 Å, c = 23.3500 Å\n"
    structure = read_structure(out)
    assert structure.formula == "C76"
    assert structure.lattice.c == pytest.approx(23.35)


def test_a_terminal_that_lacks_letters(tmp_path):
    command = [Path(sys.executable).with_name("deeph-tracegrad"), "twist", "1", "2", "--out", "POSCAR"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert r"twisted by 21.7868\xb0, a = b = 6.5085 \xc5" in done.stdout


def test_another_monolayer(command, tmp_path, unpacked, capsys):
    layer = unpacked("abacus/mos2") / "deeph_dock" / "POSCAR"
    out = tmp_path / "mos2.vasp"
    assert command("twist", 1, 2, "--out", out, "--monolayer", layer, "--distance", 3, "--vacuum", 15) == 0
    assert "Mo14 S28, 42 atoms" in capsys.readouterr().out
    assert read_structure(out).formula == "Mo14 S28"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["0", "0"], "is no twist"),
        (["5000", "5001"], "more than 1000000"),
        ([200 * "9", "1"], "100000"),
        (["1", "2", "--monolayer", "{run}"], "monolayer with a hexagonal lattice is needed"),
        (["1", "2", "--monolayer", "nowhere.cif"], "nowhere.cif: the file is missing"),
        (["1", "2", "--distance", "0"], "--distance"),
        (["-1", "2"], ""),
    ],
)
def test_what_is_refused(command, tmp_path, unpacked, capsys, arguments, reason):
    run = unpacked("abacus/si2") / "deeph_dock" / "POSCAR"
    out = tmp_path / "POSCAR"
    assert command("twist", *(word.format(run=run) for word in arguments), "--out", out) == 2
    assert reason in capsys.readouterr().err.replace("\n", " ")
    assert not out.exists()


def test_names_that_are_taken_or_of_another_format(command, tmp_path, capsys):
    taken: Path = tmp_path / "POSCAR"
    taken.write_text("mine")
    assert command("twist", 1, 2, "--out", taken) == 2
    assert "exists; give another name" in capsys.readouterr().err
    assert taken.read_text() == "mine"
    assert command("twist", 1, 2, "--out", tmp_path / "a.cif") == 2
    assert "call it POSCAR or NAME.vasp" in capsys.readouterr().err
