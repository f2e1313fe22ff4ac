"""The error of what an x86 does and this hypervisor doesn't."""


class NotBuilt(Exception):
    """Something that an x86 does and this hypervisor doesn't; the message names it."""
