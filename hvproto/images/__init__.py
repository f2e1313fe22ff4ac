"""From a file to memory: kernels in assembly, ELF, multiboot or flat form, with their symbols and entry."""
