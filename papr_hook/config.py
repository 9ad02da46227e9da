"""The settings: one table that gives the configuration file, its defaults, --help and the manual page."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from .errors import ConfError
from .records import Record

TYPE_CHECKING = False  # not from typing: the hook waits for each module
if TYPE_CHECKING:
    import configparser
    from typing import Any

CONF = Path("/etc/papr-hook.conf")
SECTION = "papr-hook"
LIBVIRT_RUN_DIR = Path("/run/libvirt")
STATE_DIR = "papr-hook"
"""papr-hook's directory in the run directory of libvirt. hooks/qemu writes there as well."""


class _Word(str, Enum):
    """A setting that takes one of several words; str() is the word."""

    def __str__(self) -> str:
        return str(self.value)


class Mode(_Word):
    """Whether guests are laid out, unless their domain XML says otherwise."""

    AUTO = "auto"
    KEEP = "keep"


class OnNoncompliantStart(_Word):
    """What the hook does about a cold start with a layout that breaks a rule."""

    REFUSE = "refuse"
    WARN = "warn"


class IncompletePe(_Word):
    """What to do about a partitionable endpoint of which only some members are passed through."""

    WARN = "warn"
    ADD = "add"
    REFUSE = "refuse"


class AttachWithoutSpare(_Word):
    """What to do with an emulated device that is attached when no vPHB is empty."""

    REFUSE = "refuse"
    SHARE = "share"


def number(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of decimal numbers from low to high, which raises ValueError."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise ValueError
        return int(text)

    return parse


def path(text: str) -> Path:
    """Return an absolute path, or raise ValueError."""
    if not text.startswith("/") or "\0" in text:
        raise ValueError
    return Path(text)


def word(text: str) -> str:
    """Return text that is not empty, or raise ValueError."""
    if not text:
        raise ValueError
    return text


def _setting(default: object, parse: Callable[[str], object], takes: str, doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"parse": parse, "takes": takes, "doc": doc, "words": {}})


def _choice(default: _Word, doc: str, words: Mapping[str, str]) -> Any:
    """Return a setting that takes the words of an enumeration.

    Args:
        default: Its default, a member of the enumeration.
        doc: What it is for, a sentence.
        words: What each word means, a sentence each.
    """
    *others, last = (str(member) for member in type(default))
    takes = f"{', '.join(others)} or {last}"
    metadata = {"parse": type(default), "takes": takes, "doc": doc, "words": words}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, eq=False, repr=False)
class Config(Record):
    """The settings of a host; each field is a setting of the configuration file."""

    mode: Mode = _choice(
        Mode.AUTO,
        "Whether guests are laid out. The domain XML of a guest overrides this.",
        {
            "auto": "Lay guests out.",
            "keep": "Leave guests unchanged.",
        },
    )
    spares: int = _setting(
        4,
        number(0, 30),
        "a number from 0 to 30",
        "The number of vPHBs kept empty for hotplug in each guest.",
    )
    on_noncompliant_start: OnNoncompliantStart = _choice(
        OnNoncompliantStart.REFUSE,
        "What the hook does when a guest with a non-compliant layout is cold-started.",
        {
            "refuse": "Fail the start and define the laid-out domain XML. The next start succeeds.",
            "warn": "Log a warning and let the guest start.",
        },
    )
    incomplete_pe: IncompletePe = _choice(
        IncompletePe.WARN,
        "What to do when only some devices of a partitionable endpoint are passed through.",
        {
            "warn": "Name the missing devices.",
            "add": "Pass the missing devices through as well, except bridges and devices that the host uses.",
            "refuse": "Treat the guest as non-compliant.",
        },
    )
    attach_without_spare: AttachWithoutSpare = _choice(
        AttachWithoutSpare.REFUSE,
        "What the gateway does when an emulated device is attached and no vPHB is empty. "
        "A host device is always refused then.",
        {
            "refuse": "Fail the attach.",
            "share": "Put the device next to other emulated devices.",
        },
    )
    uri: str = _setting(
        "qemu:///system",
        word,
        "a libvirt connection URI",
        "The libvirt connection URI that the hook's helper and the commands use.",
    )
    sysfs: Path = _setting(
        Path("/sys"),
        path,
        "an absolute path",
        "The directory from which IOMMU groups are read.",
    )
    domain_dir: Path = _setting(
        Path("/etc/libvirt/qemu"),
        path,
        "an absolute path",
        "The directory where libvirt keeps domain XML. Its subdirectory networks/ has the networks.",
    )
    snapshot_dir: Path = _setting(
        Path("/var/lib/libvirt/qemu/snapshot"),
        path,
        "an absolute path",
        "The directory where libvirt keeps snapshot XML. The hook reads it to recognize a revert.",
    )
    libvirt_run_dir: Path = _setting(
        LIBVIRT_RUN_DIR,
        path,
        "an absolute path",
        "The run directory of libvirt. Its subdirectory network/ has the active networks, "
        "and papr-hook/ the marks of guests being migrated in or restored.",
    )

    @classmethod
    def settings(cls) -> Mapping[str, dataclasses.Field[Any]]:
        """Return the field of each setting by its name."""
        return {field.name: field for field in dataclasses.fields(cls)}

    def override(self, name: str, text: str, where: str) -> Config:
        """Return a copy with one setting changed.

        Args:
            name: The setting.
            text: Its value as written in the configuration file.
            where: The file or option that an error message names.

        Raises:
            ConfError: The setting is unknown, or does not take this value.
        """
        field = self.settings().get(name)
        if field is None:
            known = ", ".join(self.settings())
            raise ConfError(f"{where}: unknown setting '{name}'; valid settings: {known}")
        try:
            value = field.metadata["parse"](text)
        except ValueError:
            takes = field.metadata["takes"]
            raise ConfError(f"{where}: {name} = {_cut(text)!r} is not {takes}") from None
        return dataclasses.replace(self, **{name: value})


def load_config(file: Path | None = None) -> Config:
    """Return the settings of a configuration file.

    Args:
        file: The file; None means /etc/papr-hook.conf, and the defaults if that does not exist.

    Raises:
        ConfError: The file cannot be read, or has a line that is not a valid setting.
    """
    source = CONF if file is None else file
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        if file is None:
            return Config()
        raise ConfError(f"{source}: no such file") from None
    except UnicodeDecodeError:
        raise ConfError(f"{source}: not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise ConfError(f"{source}: {error.strerror if isinstance(error, OSError) else error}") from None
    if _sets_nothing(text):
        return Config()
    config = Config()
    for name, value in _parse(text, source).items():
        config = config.override(name, value, f"{source}: line {_line(text, name)}")
    return config


def _cut(text: str) -> str:
    """Return text short enough for a message."""
    return text if len(text) <= 40 else f"{text[:40]}..."


def _sets_nothing(text: str) -> bool:
    """Tell whether a file has its section and comments only, as it is installed: most hosts need no parser."""
    lines = [line.strip() for line in text.splitlines() if not line.startswith("#")]
    return [line for line in lines if line] in ([], [f"[{SECTION}]"])


def _parse(text: str, source: Path) -> Mapping[str, str]:
    # Imported late: most hosts set nothing, and the hook waits for each module.
    import configparser

    # Without a default section, [DEFAULT] is an unknown section like any other.
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=True, default_section="")
    try:
        parser.read_string(text, str(source))
    except configparser.Error as error:
        raise ConfError(f"{source}: {_describe_error(error)}") from None
    for section in parser.sections():
        if section != SECTION:
            raise ConfError(f"{source}: unknown section [{section}]; valid section: [{SECTION}]")
    return dict(parser[SECTION]) if parser.has_section(SECTION) else {}


def _describe_error(error: configparser.Error) -> str:
    """Return a syntax error of a configuration file as one line."""
    import configparser

    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno}: missing section header [{SECTION}]"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {error.lineno}: {error.option} is set twice"
    if isinstance(error, configparser.ParsingError):
        return f"line {error.errors[0][0]}: not of the form 'setting = value'"
    return " ".join(error.message.split())


def _line(text: str, name: str) -> int:
    """Return the number of the line that sets a setting."""
    lines = enumerate(text.splitlines(), 1)
    return next((n for n, line in lines if line.partition("=")[0].strip().lower() == name), 0)


def sample_config() -> str:
    """Return a configuration file that has every setting with its default, as a comment."""
    lines = [f"[{SECTION}]"]
    for name, field in Config.settings().items():
        lines += ["", f"# {field.metadata['doc']}"]
        lines += [f"#   {word}: {meaning}" for word, meaning in field.metadata["words"].items()]
        lines += [] if field.metadata["words"] else [f"# Takes {field.metadata['takes']}."]
        lines += [f"#{name} = {field.default}"]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Return the manual page of the configuration file in man(7) markup."""
    entries = "".join(_entry(name, field) for name, field in Config.settings().items())
    return (
        '.TH PAPR-HOOK.CONF 5 "" "papr-hook" "File Formats"\n'
        ".SH NAME\npapr-hook.conf \\- settings of papr-hook\n"
        f".SH SYNOPSIS\n.I {CONF}\n"
        f".SH DESCRIPTION\nLines of the form\n.I setting = value\nfollow a line\n.BR [{SECTION}] .\n"
        "Lines that start with # are comments.\nOmitted settings keep their defaults.\n"
        f".SH SETTINGS\n{entries}"
        ".SH SEE ALSO\n.BR papr-hook (1),\n.BR papr-hook (8)\n"
    )


def _entry(name: str, field: dataclasses.Field[Any]) -> str:
    """Return the entry of a setting, its words as a list."""
    text = "\n".join(_sentences(field.metadata["doc"]))
    head = f'.TP\n.BR {name} " (default: " "{field.default}" )\n{text}\n'
    words = field.metadata["words"]
    if not words:
        return f"{head}Takes {field.metadata['takes']}.\n"
    items = "".join(f".IP {word} 8\n" + "\n".join(_sentences(meaning)) + "\n" for word, meaning in words.items())
    return f"{head}.RS\n{items}.RE\n"


def _sentences(text: str) -> list[str]:
    """Split text after each sentence, since man(7) wants each on a line of its own."""
    return text.replace(". ", ".\n").split("\n")
