"""hvproto: prototype a hypervisor on real x86 code, in Python."""

__version__ = "0.1.0"
