"""Checks of options that several datasets share: codes, names, values, fixes."""

import pytest

from mmfusion_jax.data.option_checks import (
    check_at_least,
    check_choice,
    data_folder,
    find_files,
    out_of_range,
)
from mmfusion_jax.errors import ConfigError, DataError

HELP = ("  folder/a.npz    one per subject", "python -m mmfusion_jax.main")


def test_a_choice_must_be_known():
    check_choice("crop", "face", ("face", "full"))
    with pytest.raises(ConfigError) as caught:
        check_choice("crop", "ful", iter(("face", "full")))
    assert caught.value.code == "C03"
    assert caught.value.args[0] == "config.data.crop='ful' is unknown."
    assert caught.value.fix == "did you mean 'full'?"


def test_options_below_the_minimum_are_named():
    check_at_least(1, window=1, hop=2)
    with pytest.raises(ConfigError) as caught:
        check_at_least(1, window=1, hop=0)
    assert caught.value.code == "C10"
    assert caught.value.args[0] == "config.data.hop=0 is out of range."
    assert caught.value.fix == "1 or more"


def test_an_option_out_of_range():
    error = out_of_range("snr_db", float("nan"), "-100 to 100")
    assert str(error).split("\n") == [
        "error[C10] config.data.snr_db=nan is out of range.",
        "  fix: -100 to 100",
    ]


def test_the_folder_of_a_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a").mkdir()
    assert data_folder("~/a", *HELP) == tmp_path / "a"
    for given, message in (
        ("", "config.data.data_dir is missing. Expected layout:"),
        ("~/b", "config.data.data_dir='~/b' is not a folder. Expected layout:"),
    ):
        with pytest.raises(DataError) as caught:
            data_folder(given, *HELP)
        assert caught.value.code == "D40" and caught.value.fix == HELP[1]
        assert caught.value.args[0] == f"{message}\n{HELP[0]}"


def test_the_files_of_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # "" is not the current folder
    (tmp_path / "deep").mkdir()
    deep, two, one = (tmp_path / name for name in ("deep/S0.npz", "S2.npz", "S1.npz"))
    for path in (deep, two, one):
        path.touch()
    assert find_files(str(tmp_path), "S*.npz", *HELP) == [one, two]
    assert find_files(str(tmp_path), "**/S*.npz", *HELP) == [one, two, deep]
    for given, pattern, message in (
        (str(tmp_path), "**/T*.npz", f"={str(tmp_path)!r} contains no T*.npz."),
        ("/no/where", "S*.npz", "='/no/where' contains no S*.npz."),
        ("", "S*.npz", " is missing."),
    ):
        with pytest.raises(DataError) as caught:
            find_files(given, pattern, *HELP)
        assert caught.value.code == "D40" and caught.value.fix == HELP[1]
        message = f"config.data.data_dir{message} Expected layout:\n{HELP[0]}"
        assert caught.value.args[0] == message
