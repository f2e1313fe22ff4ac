"""The firmware of a PC: interrupt services for programs in real mode, and the way to the boot sector.

The services are Python; what the processor sees of them is a small ROM at F000:E000 (`rom.asm`).
"""
