"""What check, layout, attach and doctor report: each finding has a stable name, a severity and a rule.

The names are an interface: check prints them in brackets, check --schema uses the same ones, and papr-hook(8)
lists them. Code compares names and severities, and never searches the texts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from .records import Record


class Severity(Enum):
    """How much a finding matters: only an error makes a guest non-compliant."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Rule(Enum):
    """The layout rules, in the order of papr-hook(8)."""

    CONTROLLERS = "controllers"
    ADDRESSES = "addresses"
    ISOLATION = "isolation"
    SPARES = "spares"
    CEILING = "ceiling"


class Name(Enum):
    """The stable names of all findings."""

    PCI_ROOT_ONLY = "pci-root-only"
    PCI_ROOT_MISSING = "pci-root-missing"
    TARGET_INDEX = "target-index"
    COMMANDLINE_PHB = "commandline-phb"
    NO_ADDRESS = "no-address"
    BAD_ADDRESS = "bad-address"
    SAME_ADDRESS = "same-address"
    BEHIND_BRIDGE = "behind-bridge"
    NOT_ISOLATED = "not-isolated"
    COMMANDLINE_BUS = "commandline-bus"
    SPLIT_ENDPOINT = "split-endpoint"
    SPLIT_SLOT = "split-slot"
    INCOMPLETE_ENDPOINT = "incomplete-endpoint"
    LARGE_ENDPOINT = "large-endpoint"
    UNKNOWN_HOSTDEV = "unknown-hostdev"
    NO_FUNCTION_0 = "no-function-0"
    TOO_FEW_SPARES = "too-few-spares"
    TOO_MANY_PHBS = "too-many-phbs"
    TOO_MANY_ENDPOINTS = "too-many-endpoints"
    TOO_MANY_DEVICES = "too-many-devices"
    UNEVEN_SHARING = "uneven-sharing"
    SHARED_VPHB = "shared-vphb"
    HARD_LIMIT = "hard-limit"
    NIC_RENAMED = "nic-renamed"
    REFORMATTED = "reformatted"
    HOOK_MISSING = "hook-missing"
    HOOK_REPLACED = "hook-replaced"
    HOOK_NOT_EXECUTABLE = "hook-not-executable"
    HOOK_BROKEN = "hook-broken"
    HOOK_NOT_CALLED = "hook-not-called"
    HOOK_FAILED = "hook-failed"
    HOOK_TWICE = "hook-twice"
    HOOK_BESIDE = "hook-beside"
    HOOK_CALL = "hook-call"
    GATEWAY_OFF = "gateway-off"
    GATEWAY_UP = "gateway-up"
    GATEWAY_DOWN = "gateway-down"
    GATEWAY_BYPASSED = "gateway-bypassed"
    GATEWAY_ELSEWHERE = "gateway-elsewhere"
    GATEWAY_SOCKET = "gateway-socket"
    NETWORK_CLIENTS = "network-clients"
    DIRECT_CLIENT = "direct-client"
    LIBVIRT_UNREACHABLE = "libvirt-unreachable"
    LIBVIRT_TOO_OLD = "libvirt-too-old"
    VERSIONS = "versions"
    AUTOSTART = "autostart"
    SELINUX_STATE = "selinux-state"
    SELINUX_LABEL = "selinux-label"
    ACCESS_DENIED = "access-denied"
    PHB_MISSING = "phb-missing"
    PHB_UNKNOWN = "phb-unknown"
    DEVICE_MISSING = "device-missing"
    DEVICE_UNKNOWN = "device-unknown"
    CONFIG_SPACE = "config-space"
    FREE_VPHBS = "free-vphbs"
    NOT_PSERIES = "not-pseries"
    NOT_RUNNING = "not-running"
    MONITOR_USED = "monitor-used"
    HOTPLUG_READY = "hotplug-ready"
    HOTPLUG_NOT_READY = "hotplug-not-ready"
    HOTPLUG_UNKNOWN = "hotplug-unknown"

    @property
    def rule(self) -> Rule | None:
        """The layout rule that the finding is about, or None if it is about none of them."""
        return _RULES.get(self)


_RULES: dict[Name, Rule] = {
    Name.PCI_ROOT_ONLY: Rule.CONTROLLERS,
    Name.PCI_ROOT_MISSING: Rule.CONTROLLERS,
    Name.TARGET_INDEX: Rule.CONTROLLERS,
    Name.COMMANDLINE_PHB: Rule.CONTROLLERS,
    Name.NO_ADDRESS: Rule.ADDRESSES,
    Name.BAD_ADDRESS: Rule.ADDRESSES,
    Name.SAME_ADDRESS: Rule.ADDRESSES,
    Name.BEHIND_BRIDGE: Rule.ADDRESSES,
    Name.NOT_ISOLATED: Rule.ISOLATION,
    Name.COMMANDLINE_BUS: Rule.ISOLATION,
    Name.SPLIT_ENDPOINT: Rule.ISOLATION,
    Name.SPLIT_SLOT: Rule.ISOLATION,
    Name.INCOMPLETE_ENDPOINT: Rule.ISOLATION,
    Name.LARGE_ENDPOINT: Rule.ISOLATION,
    Name.UNKNOWN_HOSTDEV: Rule.ISOLATION,
    Name.NO_FUNCTION_0: Rule.ISOLATION,
    Name.TOO_FEW_SPARES: Rule.SPARES,
    Name.TOO_MANY_PHBS: Rule.CEILING,
    Name.TOO_MANY_ENDPOINTS: Rule.CEILING,
    Name.TOO_MANY_DEVICES: Rule.CEILING,
    Name.UNEVEN_SHARING: Rule.CEILING,
    Name.SHARED_VPHB: Rule.CEILING,
}


@dataclass(frozen=True, eq=False, repr=False)
class Diagnostic(Record):
    """One finding about a guest, or about the host.

    name: its stable name. severity: whether it makes the guest non-compliant. text: the predicate of a sentence
    about the device, or a sentence of its own if device is empty. device: the element of the domain XML that it is
    about, as the user would look for it, or the file, guest or vPHB. line: the line of the domain XML, or None if
    nothing there corresponds.
    """

    name: Name
    severity: Severity
    text: str
    device: str = ""
    line: int | None = None

    @property
    def rule(self) -> Rule | None:
        """The layout rule that the finding is about, or None if it is about none of them."""
        return self.name.rule

    @property
    def is_error(self) -> bool:
        """Whether the guest does not comply because of it."""
        return self.severity is Severity.ERROR

    def as_error(self) -> Diagnostic:
        """Return the finding as an error."""
        return replace(self, severity=Severity.ERROR)

    @property
    def message(self) -> str:
        """Everything but the severity and the line: "<disk> vda has no PCI address [no-address]"."""
        subject = f"{self.device} " if self.device else ""
        return f"{subject}{self.text} [{self.name.value}]"

    def __str__(self) -> str:
        return f"{self.severity.value}: {self.message}"


def error(name: Name, text: str, device: str = "", line: int | None = None) -> Diagnostic:
    """Return a finding that makes a guest non-compliant."""
    return Diagnostic(name, Severity.ERROR, text, device, line)


def warning(name: Name, text: str, device: str = "", line: int | None = None) -> Diagnostic:
    """Return a finding that the administrator should know of, and that never refuses a start."""
    return Diagnostic(name, Severity.WARNING, text, device, line)


def note(name: Name, text: str, device: str = "", line: int | None = None) -> Diagnostic:
    """Return a finding that asks for nothing to be done."""
    return Diagnostic(name, Severity.NOTE, text, device, line)
