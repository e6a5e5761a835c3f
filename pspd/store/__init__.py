"""Where the bytes of files are kept: three stores, one contract (``pspd.core.model.storage.Storage``).

:class:`pspd.store.files.disk.DiskStore` is a client's folder, :class:`pspd.store.files.memory.MemoryStore` its twin
without a disk, and :class:`pspd.store.source.source_store.SourceStore` the file that a source seeds.
"""
