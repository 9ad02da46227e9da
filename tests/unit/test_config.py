"""The settings table, and the configuration file that is read with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from papr_hook.config import (
    AttachWithoutSpare,
    Config,
    IncompletePe,
    Mode,
    OnNoncompliantStart,
    load_config,
    sample_config,
)
from papr_hook.errors import ConfError


def test_words_are_enumerations(tmp_path: Path) -> None:
    """Each setting that takes words is read as a member of its enumeration."""
    file = tmp_path / "papr-hook.conf"
    file.write_text(
        "[papr-hook]\nmode = keep\non_noncompliant_start = warn\nincomplete_pe = add\nattach_without_spare = share\n"
    )
    config = load_config(file)
    assert config.mode is Mode.KEEP
    assert config.on_noncompliant_start is OnNoncompliantStart.WARN
    assert config.incomplete_pe is IncompletePe.ADD
    assert config.attach_without_spare is AttachWithoutSpare.SHARE


def test_every_word_is_documented() -> None:
    """A setting that takes words says what each of them does."""
    for name, field in Config.settings().items():
        if isinstance(field.default, (Mode, OnNoncompliantStart, IncompletePe, AttachWithoutSpare)):
            assert list(field.metadata["words"]) == [str(word) for word in type(field.default)], name
        else:
            assert not field.metadata["words"], name


def test_documentation_is_sentences() -> None:
    """Every text of the table starts with a capital letter and ends with a full stop."""
    for field in Config.settings().values():
        for text in (field.metadata["doc"], *field.metadata["words"].values()):
            assert text[0].isupper() and text.endswith("."), text


def test_a_missing_file_means_the_defaults_or_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/etc/papr-hook.conf may be missing; a file named on the command line must exist."""
    monkeypatch.setattr("papr_hook.config.CONF", tmp_path / "none.conf")
    assert load_config() == Config()
    with pytest.raises(ConfError, match="none.conf: no such file"):
        load_config(tmp_path / "none.conf")


@pytest.mark.parametrize("content", [b"[papr-hook]\nuri = \xff\n", None])
def test_a_file_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    """Text that is not UTF-8, and a directory, are errors of one line."""
    file = tmp_path / "papr-hook.conf"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(ConfError, match="not UTF-8 text|Is a directory"):
        load_config(file)


@pytest.mark.parametrize(
    ("conf", "says"),
    [
        ("spares = 4\n", "line 1: missing section header [papr-hook]"),
        ("[papr-hook]\nspares = 31\n", "line 2: spares = '31' is not a number from 0 to 30"),
        ("[papr-hook]\nspares = four\n", "spares = 'four' is not a number from 0 to 30"),
        ("[papr-hook]\non_noncompliant_start = maybe\n", "on_noncompliant_start = 'maybe' is not refuse or warn"),
        ("[papr-hook]\nsysfs = sys\n", "sysfs = 'sys' is not an absolute path"),
        ("[papr-hook]\nspare = 4\n", "unknown setting 'spare'"),
        ("[papr-hook]\nspares = 4\nspares = 5\n", "line 3: spares is set twice"),
        ("[hook]\nspares = 4\n", "unknown section [hook]"),
        ("[papr-hook]\nspares\n", "line 2: not of the form"),
        ("[DEFAULT]\nspares = 4\n", "unknown section [DEFAULT]"),
        (f"[papr-hook]\nspares = {'9' * 5000}\n", "9...' is not a number from 0 to 30"),
        ("[papr-hook]\nsysfs = /sys\0\n", "is not an absolute path"),
    ],
)
def test_errors_name_the_file_and_the_fault(conf: str, says: str, tmp_path: Path) -> None:
    """The error names the file and what is wrong in it, on one line."""
    file = tmp_path / "papr-hook.conf"
    file.write_text(conf)
    with pytest.raises(ConfError) as caught:
        load_config(file)
    text = str(caught.value)
    assert text.startswith(f"{file}: ")
    assert says in text
    assert len(text.splitlines()) == 1 and len(text) < 300


def test_sample_has_the_defaults(tmp_path: Path) -> None:
    """The sample reads as the defaults, also with its comment signs removed."""
    file = tmp_path / "sample.conf"
    file.write_text(sample_config())
    assert load_config(file) == Config()
    defaults = {name: field.default for name, field in Config.settings().items()}
    file.write_text("".join(line.lstrip("#") for line in sample_config().splitlines(True) if line[:2] != "# "))
    assert vars(load_config(file)) == defaults
