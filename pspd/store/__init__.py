"""Where the bytes of files are kept: three stores, one contract (``pspd.core.storage.Storage``).

:class:`pspd.store.disk.DiskStore` is a client's folder, :class:`pspd.store.memory.MemoryStore` its twin
without a disk, and :class:`pspd.store.original.OriginalStore` the file that a source seeds.
"""
