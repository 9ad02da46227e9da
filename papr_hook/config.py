"""The settings: one table, from which the configuration, its defaults and the help come."""

from __future__ import annotations

import configparser
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfError

CONF = Path("/etc/papr-hook.conf")
SECTION = "papr-hook"


def number(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole decimal numbers from low to high; it raises ValueError."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError
        return int(text)

    return read


def choice(*words: str) -> Callable[[str], str]:
    """A reader of one of some words; it raises ValueError."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


def path(text: str) -> Path:
    """A reader of absolute paths; it raises ValueError."""
    if not text.startswith("/"):
        raise ValueError
    return Path(text)


def word(text: str) -> str:
    """A reader of text that is not empty; it raises ValueError."""
    if not text:
        raise ValueError
    return text


def _setting(default: object, read: Callable[[str], object], takes: str, doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"read": read, "takes": takes, "doc": doc})


@dataclass(frozen=True)
class Config:
    """What the host's administrator wants; the fields are the settings of the configuration."""

    mode: str = _setting(
        "auto",
        choice("auto", "keep"),
        "auto or keep",
        "auto: lay guests out; keep: leave every guest as it is, unless its own definition says auto",
    )
    spares: int = _setting(
        4,
        number(0, 30),
        "a number from 0 to 30",
        "empty vPHBs that each guest has for hotplug",
    )
    on_noncompliant_start: str = _setting(
        "refuse",
        choice("refuse", "warn"),
        "refuse or warn",
        "what the hook does when a guest starts that does not comply. refuse: define the "
        "laid-out XML and fail this start, so that the next one works; warn: say so in the "
        "journal and let it start",
    )
    incomplete_pe: str = _setting(
        "warn",
        choice("warn", "add", "refuse"),
        "warn, add or refuse",
        "what to do about a partitionable endpoint that is passed through in part. warn: name the "
        "missing devices; add: pass them through too, all but bridges and what the host itself "
        "uses; refuse: the guest does not comply",
    )
    attach_without_spare: str = _setting(
        "refuse",
        choice("refuse", "share"),
        "refuse or share",
        "what the gateway does with a device that is attached when its guest has no empty vPHB "
        "left. refuse: fail the attach; share: put an emulated device next to other emulated ones. "
        "A host device is refused in any case",
    )
    uri: str = _setting(
        "qemu:///system",
        word,
        "a libvirt connection URI",
        "how the hook's helper and the command reach libvirt",
    )
    sysfs: Path = _setting(
        Path("/sys"),
        path,
        "an absolute path",
        "where the host's IOMMU groups are read from",
    )
    domain_dir: Path = _setting(
        Path("/etc/libvirt/qemu"),
        path,
        "an absolute path",
        "where libvirt keeps the definitions of its guests, and in networks/ of its networks",
    )
    snapshot_dir: Path = _setting(
        Path("/var/lib/libvirt/qemu/snapshot"),
        path,
        "an absolute path",
        "where libvirt keeps the definitions of its snapshots; a revert to one is never refused",
    )
    libvirt_run_dir: Path = _setting(
        Path("/run/libvirt"),
        path,
        "an absolute path",
        "libvirt's run directory: its active networks are known from network/, and the hook "
        "notes in papr-hook/ which guests are migrating in or being restored",
    )

    @classmethod
    def settings(cls) -> Mapping[str, dataclasses.Field[Any]]:
        """The table: each setting's field by its name."""
        return {field.name: field for field in dataclasses.fields(cls)}

    def override(self, name: str, text: str, where: str) -> Config:
        """This policy with one setting read from text.

        where: what the message names when the setting is unknown or the text is not one of its
        values; raises ConfError.
        """
        field = self.settings().get(name)
        if field is None:
            known = ", ".join(self.settings())
            raise ConfError(f"{where}: unknown setting '{name}'; there are {known}")
        try:
            value = field.metadata["read"](text)
        except ValueError:
            takes = field.metadata["takes"]
            raise ConfError(f"{where}: {name} = {text!r} is not {takes}") from None
        return dataclasses.replace(self, **{name: value})


def load_config(file: Path | None = None) -> Config:
    """The policy of a configuration file.

    file: which; None means /etc/papr-hook.conf, and the defaults where there is none. Raises
    ConfError when it cannot be read or says something that is not a setting.
    """
    source = CONF if file is None else file
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        if file is None:
            return Config()
        raise ConfError(f"{source}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfError(f"{source}: {reason}") from None
    config = Config()
    for name, value in _read(text, source).items():
        config = config.override(name, value, f"{source}: line {_line(text, name)}")
    return config


def _read(text: str, source: Path) -> Mapping[str, str]:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=True)
    try:
        parser.read_string(text, str(source))
    except configparser.Error as error:
        raise ConfError(f"{source}: {_fault(error)}") from None
    for section in parser.sections():
        if section != SECTION:
            raise ConfError(f"{source}: unknown section [{section}]; there is [{SECTION}]")
    return dict(parser[SECTION]) if parser.has_section(SECTION) else {}


def _fault(error: configparser.Error) -> str:
    """What is wrong with a file, in one line."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno}: settings go below a line [{SECTION}]"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {error.lineno}: {error.option} is set twice"
    if isinstance(error, configparser.ParsingError):
        return f"line {error.errors[0][0]}: not of the form 'setting = value'"
    return " ".join(error.message.split())


def _line(text: str, name: str) -> int:
    """The line of a file that sets something."""
    lines = enumerate(text.splitlines(), 1)
    return next((n for n, line in lines if line.partition("=")[0].strip().lower() == name), 0)


def sample_config() -> str:
    """A configuration file that says every default, as a comment."""
    lines = [f"[{SECTION}]"]
    for name, field in Config.settings().items():
        lines += ["", f"# {field.metadata['doc']}", f"# ({field.metadata['takes']})"]
        lines += [f"#{name} = {field.default}"]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """The manual page of the configuration, in man(7)'s language."""
    entries = "".join(
        f'.TP\n.BR {name} " (default: " "{field.default}" )\n'
        f"{field.metadata['doc'][0].upper()}{field.metadata['doc'][1:]}.\n"
        f"Takes {field.metadata['takes']}.\n"
        for name, field in Config.settings().items()
    )
    return (
        '.TH PAPR-HOOK.CONF 5 "" "papr-hook" "File Formats"\n'
        ".SH NAME\npapr-hook.conf \\- settings of papr-hook\n"
        f".SH SYNOPSIS\n.I {CONF}\n"
        f".SH DESCRIPTION\nLines of the form\n.I setting = value\nbelow a line\n.BR [{SECTION}] ,\n"
        "and comments that start with #.\nA setting that is not there has its default.\n"
        f".SH SETTINGS\n{entries}"
        ".SH SEE ALSO\n.BR papr-hook (1),\n.BR papr-hook (8)\n"
    )
