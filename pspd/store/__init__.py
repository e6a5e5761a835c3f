"""The stores of files: three implementations of ``pspd.core.model.storage.Storage``.

:class:`pspd.store.files.disk.DiskStore` stores a client's files in a folder,
:class:`pspd.store.files.memory.MemoryStore` stores them in memory, and
:class:`pspd.store.source.source_store.SourceStore` reads the file or folder that a source seeds.
"""
